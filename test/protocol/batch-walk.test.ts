/** The walk over a batch against decodeBatch and forEachRecord. */
import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { BatchWalk } from "../../protocol/batch-walk.ts";
import {
  type BatchRecord,
  decodeBatch,
  encodeInOrder,
  forEachRecord,
  MalformedBatchError,
} from "../../protocol/record-batch.ts";

const records = fc.array(
  fc.record({
    key: fc.oneof(fc.constantFrom("a", "b"), fc.string({ unit: "grapheme", minLength: 1, maxLength: 9 })),
    timeUs: fc.maxSafeInteger().map(Math.abs),
    payload: fc.uint8Array({ maxLength: 12 }),
  }),
  { maxLength: 12 },
);

type Seen = readonly [key: string, count: number, payloadBytes: number, payloads: readonly string[]];

function plain(batch: Uint8Array): Seen[] {
  return decodeBatch(batch, "trusted").map((run) => {
    const payloads: string[] = [];
    forEachRecord(run, (payload) => payloads.push(payload.toString("hex")));
    return [run.key, run.count, payloads.join("").length / 2, payloads];
  });
}

/** @param recordsOf how many records of a run are looked at */
function walked(batch: Uint8Array, recordsOf: (count: number) => number = (count) => count + 1): Seen[] {
  const walk = new BatchWalk(batch);
  const seen: Seen[] = [];
  while (walk.nextRun()) {
    const key = walk.bytes.toString("utf8", walk.keyAt, walk.keyEnd);
    const payloads: string[] = [];
    for (let left = recordsOf(walk.count); left > 0 && walk.nextRecord(); left--) {
      payloads.push(walk.bytes.toString("hex", walk.payloadAt, walk.payloadEnd));
    }
    seen.push([key, walk.count, walk.payloadBytes, payloads]);
  }
  return seen;
}

test("runs and records are those that decodeBatch gives", () => {
  fc.assert(
    fc.property(records, (list) => {
      const batch = encodeInOrder(list as BatchRecord[]);
      assert.deepEqual(walked(batch), plain(batch));
    }),
  );
});

test("a run may be left in its middle", () => {
  fc.assert(
    fc.property(records, fc.nat(3), (list, few) => {
      const batch = encodeInOrder(list as BatchRecord[]);
      const cut = plain(batch).map(([key, count, bytes, payloads]) => [
        key,
        count,
        bytes,
        payloads.slice(0, few),
      ]);
      assert.deepEqual(
        walked(batch, () => few),
        cut,
      );
    }),
  );
});

test("of bytes that are no batch nothing is read but an error", () => {
  const damaged = fc.tuple(
    records,
    fc.array(fc.tuple(fc.nat(400), fc.nat(255)), { maxLength: 4 }),
    fc.nat(20),
  );
  fc.assert(
    fc.property(damaged, ([list, changes, cut]) => {
      const whole = encodeInOrder(list as BatchRecord[]);
      for (const [at, byte] of changes) whole[at % whole.length] = byte;
      const batch = whole.subarray(0, Math.max(0, whole.length - cut));
      let expected: Seen[] | undefined;
      try {
        expected = plain(batch);
      } catch (error) {
        assert.ok(error instanceof MalformedBatchError);
      }
      try {
        const seen = walked(batch);
        // Keys that are not UTF-8 are not looked at here.
        if (expected !== undefined) assert.deepEqual(seen, expected);
      } catch (error) {
        assert.ok(error instanceof MalformedBatchError, String(error));
        assert.equal(expected, undefined);
      }
    }),
    { numRuns: 2_000 },
  );
});
