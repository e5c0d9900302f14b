import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { PacketBlocks, SparingPackets } from "../../../protocol/rtsp/packet-blocks.ts";

const MIB = 1_048_576;

/** What a list of packets holds in memory. */
function heldBytes(packets: readonly Buffer[]): number {
  return [...new Set(packets.map(({ buffer }) => buffer))].reduce(
    (sum, { byteLength }) => sum + byteLength,
    0,
  );
}

test("copies are what was copied, apart from one another, and hold little more than themselves", () => {
  const packets = fc.array(fc.uint8Array({ maxLength: 20_000 }), { maxLength: 60 });
  fc.assert(
    fc.property(packets, (originals) => {
      const blocks = new PacketBlocks();
      const copies = originals.map((bytes) => blocks.copy(Buffer.from(bytes)));
      for (const [i, copy] of copies.entries()) assert.ok(copy.equals(originals[i]!));
      for (const copy of copies) copy.fill(0);
      for (const copy of copies) assert.ok(copy.every((byte) => byte === 0));
      const bytes = originals.reduce((sum, { length }) => sum + length, 0);
      assert.ok(heldBytes(copies) <= bytes * 1.4 + 32_768);
    }),
    { numRuns: 100 },
  );
});

test("an honest sender's packets are views, and stay so", () => {
  const packets = new SparingPackets();
  for (let n = 0; n < 5_000; n++) {
    const chunk = Buffer.alloc(14_400);
    packets.came(chunk.length);
    // Ten packets with their heads, and one report now and then.
    for (let at = 0; at < 14_000; at += 1_400) {
      const packet = chunk.subarray(at, at + 1_400);
      assert.equal(packets.take(packet), packet);
    }
  }
});

test("whatever a sender mixes with its packets, what is kept of them is bounded", () => {
  const turns = fc.array(fc.record({ packet: fc.nat(2_000), other: fc.nat(60_000), times: fc.nat(60) }), {
    maxLength: 12,
  });
  fc.assert(
    fc.property(turns, (mixture) => {
      const packets = new SparingPackets();
      const kept: Buffer[] = [];
      for (const { packet, other, times } of mixture) {
        for (let n = 0; n < times; n++) {
          const chunk = Buffer.alloc(packet + other);
          packets.came(chunk.length);
          kept.push(packets.take(chunk.subarray(0, packet)));
        }
      }
      const bytes = kept.reduce((sum, { length }) => sum + length, 0);
      assert.ok(heldBytes(kept) <= bytes * 1.6 + 2 * MIB, `${heldBytes(kept)} for ${bytes}`);
    }),
    { numRuns: 100 },
  );
});
