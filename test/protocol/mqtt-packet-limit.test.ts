import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { MAX_CONNECT_BYTES, MAX_OTHER_BYTES, PacketLengths } from "../../protocol/mqtt-packet-limit.ts";

/** A packet with `length` bytes of body; PUBLISH unless told. */
function packet(length: number, first = 0x30): Buffer {
  const head = [first];
  let rest = length;
  do {
    head.push((rest % 128) + (rest >= 128 ? 128 : 0));
    rest = Math.floor(rest / 128);
  } while (rest > 0);
  return Buffer.concat([Buffer.from(head), Buffer.alloc(length, 0xff)]);
}

test("packets up to the limit pass, however they are cut into chunks", () => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 0, max: 20_000 }), { maxLength: 8 }),
      fc.integer({ min: 1, max: 997 }),
      (sizes, step) => {
        const stream = Buffer.concat(sizes.map((size) => packet(size)));
        const lengths = new PacketLengths(20_000);
        for (let at = 0; at < stream.length; at += step)
          assert.equal(lengths.accept(stream.subarray(at, at + step)), true);
      },
    ),
  );
});

test("what passes ends where so many packets end", () => {
  const sizes = fc.array(fc.integer({ min: 0, max: 300 }), { maxLength: 8 });
  fc.assert(
    fc.property(sizes, fc.integer({ min: 1, max: 4 }), fc.nat(), (list, most, cut) => {
      const packets = list.map((size) => packet(size));
      const stream = Buffer.concat(packets);
      const lengths = new PacketLengths(20_000);
      // As it may be in the midst of one.
      let at = cut % (stream.length + 1);
      lengths.accept(stream.subarray(0, at));
      const ends = packets.map((_, i) =>
        packets.slice(0, i + 1).reduce((sum, { length }) => sum + length, 0),
      );
      const left = ends.filter(
        (end) => end > at && (lengths.isBetween || end > ends.find((one) => one > at)!),
      );
      const passed = lengths.pass(stream.subarray(at), most);
      at += passed;
      assert.equal(at, left[most - 1] ?? stream.length);
    }),
  );
});

test("a packet above the limit is refused at its header, before its body comes", () => {
  fc.assert(
    fc.property(fc.integer({ min: 20_001, max: 268_435_455 }), fc.boolean(), (size, bytewise) => {
      const lengths = new PacketLengths(20_000);
      assert.equal(lengths.accept(packet(20_000)), true);
      const head = packet(20_001).subarray(0, 4);
      const digits: number[] = [0x30];
      for (let rest = size; rest > 0; rest = Math.floor(rest / 128))
        digits.push((rest % 128) + (rest >= 128 ? 128 : 0));
      assert.ok(head.length === 4);
      const chunks = bytewise ? digits.map((digit) => Buffer.from([digit])) : [Buffer.from(digits)];
      assert.equal(chunks.map((chunk) => lengths.accept(chunk)).includes(false), true);
    }),
  );
});

test("the first packet, CONNECT, has a limit of its own", () => {
  const lengths = new PacketLengths(1_000_000);
  assert.equal(lengths.accept(packet(MAX_CONNECT_BYTES)), true);
  assert.equal(lengths.accept(packet(1_000_000)), true);
  assert.equal(lengths.accept(packet(1_000_001)), false);
  assert.equal(new PacketLengths(1_000_000).accept(packet(MAX_CONNECT_BYTES + 1)), false);
});

test("packets that are no PUBLISH are small, whatever their type", () => {
  for (let first = 0; first < 256; first++) {
    const isPublish = first >> 4 === 3;
    const lengths = new PacketLengths(1_000_000);
    assert.equal(lengths.accept(packet(10, 0x10)), true);
    assert.equal(lengths.accept(packet(MAX_OTHER_BYTES, first)), true);
    assert.equal(lengths.accept(packet(MAX_OTHER_BYTES + 1, first)), isPublish);
  }
});

test("a length of more than four bytes is refused", () => {
  assert.equal(new PacketLengths(20_000).accept(Buffer.from([0x30, 0x80, 0x80, 0x80, 0x80, 0x01])), false);
});
