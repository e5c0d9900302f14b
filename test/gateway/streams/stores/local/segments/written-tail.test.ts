/** The memory of what was written last goes round: a reader finds what was written, or nothing. */
import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { RecentChunks } from "../../../../../../gateway/streams/stores/local/segments/recent-chunks.ts";
import type { Segment } from "../../../../../../gateway/streams/stores/local/segments/segment.ts";
import { WrittenTail } from "../../../../../../gateway/streams/stores/local/segments/written-tail.ts";

const KIB = 1_024;
const MAX_BYTES = 512 * KIB;

/** It is told from others, and nothing else. */
const segmentNamed = (name: string): Segment => ({ path: name }) as Segment;

let mark = 0;
/** Bytes that differ from those of other writes. */
function fresh(bytes: number): Buffer {
  const made = Buffer.alloc(bytes);
  for (let at = 0; at + 4 <= bytes; at += 4) made.writeUInt32LE(mark++, at);
  return made;
}

test("what was just written is found, by itself and with what came before it", () => {
  const tail = new WrittenTail(MAX_BYTES);
  const segment = segmentNamed("a");
  const first = fresh(1_000);
  const second = fresh(2_000);
  tail.add(segment, 64, first);
  tail.add(segment, 1_064, second);
  const all = tail.copy(segment, 64, 56)!;
  assert.ok(all.bytes.equals(Buffer.concat([first, second])));
  assert.equal(all.at, 64);
  assert.equal(all.verifiedTo, 3_064);
  assert.ok(tail.copy(segment, 1_064, 2_000)!.bytes.equals(second));
  assert.equal(tail.copy(segment, 1_064, 2_001), undefined, "more than was written");
  assert.equal(tail.copy(segment, 63, 10), undefined, "before it");
  assert.equal(tail.copy(segmentNamed("a"), 64, 56), undefined, "another of the same name");
});

test("a copy is of what is asked for and little more, also where more is asked for than that", () => {
  const tail = new WrittenTail(MAX_BYTES);
  const segment = segmentNamed("a");
  const large = fresh(300 * KIB);
  tail.add(segment, 0, large);
  assert.ok(tail.copy(segment, 100, 56)!.bytes.equals(large.subarray(100, 100 + 64 * KIB)));
  assert.ok(tail.copy(segment, 100, 200 * KIB)!.bytes.equals(large.subarray(100, 100 + 200 * KIB)));
});

test("what was forgotten, or is larger than the memory, is not found, and takes no other's place", () => {
  const tail = new WrittenTail(MAX_BYTES);
  const [a, b] = [segmentNamed("a"), segmentNamed("b")];
  const kept = fresh(100);
  tail.add(a, 0, fresh(100));
  tail.add(b, 0, kept);
  tail.add(b, 100, fresh(MAX_BYTES + 1));
  assert.equal(tail.copy(b, 100, 1), undefined);
  tail.forget([a]);
  assert.equal(tail.copy(a, 0, 1), undefined);
  assert.ok(tail.copy(b, 0, 100)!.bytes.equals(kept));
  tail.add(a, 100, kept);
  assert.ok(tail.copy(a, 100, 100)!.bytes.equals(kept), "it may come again");
});

const write = fc.record({
  segment: fc.nat(3),
  // Small ones, such as fill a chunk to its end, and such as take a large part of the memory.
  bytes: fc.oneof(fc.integer({ min: 1, max: 3_000 }), fc.integer({ min: 60_000, max: 350_000 })),
  /** Something else was written in between that was never told. */
  skips: fc.boolean(),
});

test("whatever is written to whichever segment, copies are right, and stay so", () => {
  fc.assert(
    fc.property(fc.array(write, { maxLength: 80 }), fc.infiniteStream(fc.nat()), (writes, random) => {
      const next = (below: number): number => random.next().value % below;
      const recent = new RecentChunks(MAX_BYTES);
      const segments = [0, 1, 2, 3].map((i) => ({ segment: segmentNamed(`${i}`), end: 64 }));
      const told: { segment: Segment; at: number; bytes: Buffer }[] = [];
      const copies: { copied: Buffer; expected: Buffer }[] = [];
      for (const { segment: index, bytes: count, skips } of writes) {
        const to = segments[index]!;
        if (skips) to.end += 56;
        const bytes = fresh(count);
        recent.written(to.segment, to.end, bytes);
        told.push({ segment: to.segment, at: to.end, bytes });
        to.end += count;
        // The newest is always there; of older ones, what is found is right.
        for (const one of told.slice(-12)) {
          const skipped = next(one.bytes.length);
          const needed = 1 + next(one.bytes.length - skipped);
          const found = recent.find(one.segment, one.at + skipped, needed);
          if (one === told.at(-1)) assert.ok(found !== undefined, "what was just written is found");
          if (found === undefined) continue;
          const inWrite = Math.min(found.bytes.length, one.bytes.length - skipped);
          assert.ok(found.bytes.length >= needed && found.verifiedTo === found.at + found.bytes.length);
          copies.push({
            copied: found.bytes.subarray(0, inWrite),
            expected: one.bytes.subarray(skipped, skipped + inWrite),
          });
        }
      }
      for (const { copied, expected } of copies) assert.ok(copied.equals(expected));
    }),
    { numRuns: 200 },
  );
});
