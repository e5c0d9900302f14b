import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import {
  decodePoints,
  decodeSummary,
  encodeSidecar,
  noteInSummary,
  SegmentPoints,
  type ShardSummary,
  summaryBytesOf,
} from "../../../../../../gateway/streams/stores/local/segments/segment-index.ts";

interface Noted {
  readonly shard: number;
  readonly count: number;
  readonly bytes: number;
  readonly gapMs: number;
}

const noted = fc.record({
  shard: fc.integer({ min: 0, max: 9 }),
  count: fc.integer({ min: 1, max: 500 }),
  bytes: fc.integer({ min: 1, max: 200_000 }),
  gapMs: fc.integer({ min: 0, max: 50 }),
});

/** The plain way: every entry, in a list. */
function build(entries: readonly Noted[]) {
  const shards = new Map<number, ShardSummary>();
  const points = new SegmentPoints();
  const all: Array<{ shard: number; first: number; position: number; arrivalMs: number }> = [];
  const next = new Map<number, number>();
  let position = 64;
  let arrivalMs = 1_000;
  for (const { shard, count, bytes, gapMs } of entries) {
    arrivalMs += gapMs;
    const first = next.get(shard) ?? 100;
    next.set(shard, first + count);
    noteInSummary(shards, { shard, first, count, bytes }, arrivalMs);
    points.note(shard, first, position, arrivalMs, shards.size);
    all.push({ shard, first, position, arrivalMs });
    position += bytes;
  }
  const last = {
    base: 7,
    generation: 2 ** 47,
    end: position,
    newestMs: arrivalMs,
    records: 5,
    nextNumber: 99,
  };
  return { all, points, summary: { ...last, damage: [{ from: 70, to: 80 }], shards } };
}

test("a sidecar says what was noted, and every place it gives is at or before the one looked for", () => {
  fc.assert(
    fc.property(fc.array(noted, { maxLength: 80 }), (entries) => {
      const { all, points, summary } = build(entries);
      const bytes = encodeSidecar(summary, points);
      assert.deepEqual(decodeSummary(bytes.subarray(0, summaryBytesOf(bytes))), summary);
      const read = decodePoints(bytes);
      assert.ok(read !== undefined);
      for (const { shard, first, position, arrivalMs } of all) {
        assert.equal(read.positionOf(shard, first), points.positionOf(shard, first));
        assert.ok(read.positionOf(shard, first)! <= position);
        const earliest = all.find((one) => one.shard === shard && one.arrivalMs >= arrivalMs)!;
        assert.ok((read.offsetBefore(shard, arrivalMs) ?? 100) <= earliest.first);
      }
    }),
  );
});

test("a sidecar with a flipped bit, a byte less or other bytes altogether is none", () => {
  const { points, summary } = build([
    { shard: 1, count: 3, bytes: 90_000, gapMs: 1 },
    { shard: 2, count: 3, bytes: 90_000, gapMs: 1 },
    { shard: 1, count: 3, bytes: 90_000, gapMs: 1 },
  ]);
  const sound = encodeSidecar(summary, points);
  for (let bit = 0; bit < sound.length * 8; bit++) {
    const bytes = Buffer.from(sound);
    bytes[bit >> 3]! ^= 1 << (bit & 7);
    assert.equal(decodePoints(bytes), undefined, `bit ${bit}`);
  }
  for (let length = 0; length < sound.length; length++) {
    assert.equal(decodePoints(sound.subarray(0, length)), undefined, `${length} bytes`);
  }
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 400 }), (bytes) => {
      assert.equal(decodePoints(Buffer.from(bytes)), undefined);
      assert.equal(decodePoints(Buffer.concat([sound.subarray(0, 72), bytes])), undefined);
    }),
  );
});
