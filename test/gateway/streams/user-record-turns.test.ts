import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import {
  forEachUserRecord,
  forEachUserRecordInTurns,
  type LogPart,
} from "../../../gateway/streams/streams.ts";
import { decodeBatch, encodeInOrder } from "../../../protocol/record-batch.ts";
import { aggregate } from "../../support/kpl-aggregate.ts";

const plain = fc
  .tuple(fc.constantFrom("a", "b"), fc.oneof(fc.nat(40), fc.integer({ min: 16_000, max: 17_000 })))
  .map(([key, bytes]) => ({ key, payload: Buffer.alloc(bytes, "x") }));
const packed = fc.integer({ min: 1, max: 6_000 }).map((count) => ({
  key: "pack",
  payload: aggregate(
    Array.from({ length: count }, (_, i) => ({ partitionKey: `p${i % 3}`, data: Buffer.from(String(i)) })),
  ),
}));
const append = fc.array(fc.oneof({ weight: 5, arbitrary: plain }, packed), { minLength: 1, maxLength: 30 });

test("in turns come the same records in the same order as at once", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(append, { maxLength: 3 }), async (appends) => {
      let first = 7;
      const parts = appends.map((records, i): LogPart => {
        const timed = records.map((record, at) => ({ ...record, timeUs: i * 1_000 + at }));
        const part = {
          first,
          count: records.length,
          arrivalMs: 90 + i,
          runs: decodeBatch(encodeInOrder(timed)),
        };
        first += part.count;
        return part;
      });
      const expected: unknown[] = [];
      for (const part of parts) {
        let at = part.first;
        for (const run of part.runs) {
          forEachUserRecord(run, (payload, timeUs, index, key, sub) => {
            expected.push([payload.toString(), at + index, part.arrivalMs, timeUs, key, sub]);
          });
          at += run.count;
        }
      }
      const found: unknown[] = [];
      let rests = 0;
      await forEachUserRecordInTurns(
        parts,
        (payload, offset, arrivalMs, timeUs, key, sub) => {
          found.push([payload.toString(), offset, arrivalMs, timeUs, key, sub]);
        },
        async () => void rests++,
      );
      assert.deepEqual(found, expected);
      assert.ok(rests >= 1);
    }),
    { numRuns: 40 },
  );
});

test("large records are visited in turns, too: others come between", async () => {
  const records = Array.from({ length: 100 }, (_, i) => ({
    key: "k",
    timeUs: i,
    payload: Buffer.alloc(100_000, "x"),
  }));
  const part: LogPart = { first: 0, count: 100, arrivalMs: 1, runs: decodeBatch(encodeInOrder(records)) };
  let bytes = 0;
  let most = 0;
  const visit = (payload: Buffer): void => {
    bytes += payload.length;
    most = Math.max(most, bytes);
  };
  await forEachUserRecordInTurns([part], visit, async () => {
    bytes = 0;
  });
  assert.ok(most <= 400_000, `${most} bytes in one turn`);
});
