import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { crc32c, crc32cOfEach } from "../../runtime/crc32c.ts";
import { plainCrc32c } from "../../runtime/crc32c-plain.ts";

/** Bit by bit, as the polynomial is defined. */
function slowly(bytes: Uint8Array): number {
  let crc = 0xffff_ffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  }
  return ~crc >>> 0;
}

test("the vectors of RFC 3720 appendix B.4", () => {
  // The RFC prints the checksum's bytes in the order in which they travel.
  assert.equal(crc32c(new Uint8Array(32)), 0x8a9136aa);
  assert.equal(crc32c(new Uint8Array(32).fill(0xff)), 0x62a8ab43);
  assert.equal(crc32c(Uint8Array.from({ length: 32 }, (_, i) => i)), 0x46dd794e);
  assert.equal(crc32c(Uint8Array.from({ length: 32 }, (_, i) => 31 - i)), 0x113fdb5c);
  const readCommand =
    "01c000000000000000000000000000001400000000000400000000140000001828000000000000000200000000000000";
  assert.equal(crc32c(Buffer.from(readCommand, "hex")), 0xd9963a56);
});

test("the check value of the catalogue of CRCs, and of nothing", () => {
  assert.equal(crc32c(Buffer.from("123456789")), 0xe3069283);
  assert.equal(crc32c(new Uint8Array(0)), 0);
});

test("any bytes give what the definition gives", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
      assert.equal(crc32c(bytes), slowly(bytes));
    }),
  );
});

test("a part of an array, and parts one after the other, give the same", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(200), fc.nat(200), (bytes, a, b) => {
      const start = Math.min(a, b, bytes.length);
      const end = Math.min(Math.max(a, b), bytes.length);
      const part = crc32c(bytes, start, end);
      assert.equal(part, slowly(bytes.subarray(start, end)));
      assert.equal(crc32c(bytes, end, bytes.length, crc32c(bytes, 0, end)), crc32c(bytes));
    }),
  );
});

test("every flipped bit is noticed", () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 1, maxLength: 100 }), fc.nat(), (bytes, at) => {
      const before = crc32c(bytes);
      bytes[at % bytes.length]! ^= 1 << (at % 8);
      assert.notEqual(crc32c(bytes), before);
    }),
  );
});

test("the fast way gives what the plain way gives, at any length, place and seed", () => {
  const bytes = Buffer.alloc(700_000);
  for (let i = 0; i < bytes.length; i++) bytes[i] = (i * 2_654_435_761) >>> 13;
  const place = fc.nat(40_000);
  fc.assert(
    fc.property(place, place, fc.nat(0xffff_ffff), (a, b, seed) => {
      const [start, end] = a < b ? [a, b] : [b, a];
      assert.equal(crc32c(bytes, start, end, seed), plainCrc32c(bytes, start, end, seed));
    }),
  );
  // More than its memory takes at once.
  assert.equal(crc32c(bytes, 3), plainCrc32c(bytes, 3));
});

test("of long parts behind one another each has its own, wherever they begin and whatever was folded before", () => {
  const bytes = Buffer.from(Array.from({ length: 60_000 }, (_, i) => (i * 2_246_822_519) >>> 11));
  const lengths = fc.array(fc.oneof(fc.nat(9_000), fc.integer({ min: 2_500, max: 2_560 })), { maxLength: 6 });
  fc.assert(
    fc.property(fc.nat(500), lengths, (start, lengths) => {
      const ends = lengths.map((_, i) => lengths.slice(0, i + 1).reduce((a, b) => a + b, start));
      const plain = ends.map((end, i) => plainCrc32c(bytes, end - lengths[i]!, end));
      assert.deepEqual(crc32cOfEach(bytes, start, ends), plain);
    }),
  );
});

test("every flipped bit of a long input is noticed, and every length is right", () => {
  const bytes = new Uint8Array(5_200);
  for (let i = 0; i < bytes.length; i++) bytes[i] = (i * 2_654_435_761) >>> 17;
  const before = crc32c(bytes);
  for (let bit = 0; bit < bytes.length * 8; bit += 7) {
    bytes[bit >> 3]! ^= 1 << (bit & 7);
    assert.notEqual(crc32c(bytes), before, `bit ${bit}`);
    bytes[bit >> 3]! ^= 1 << (bit & 7);
  }
  for (let end = 240; end < bytes.length; end++) {
    assert.equal(crc32c(bytes, 0, end, end), plainCrc32c(bytes, 0, end, end), `${end} bytes`);
  }
});
