import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { splitPlainly } from "../../../../gateway/streams/stores/routing.ts";
import { MAX_SPLIT_RUNS, splitFrame } from "../../../../gateway/streams/stores/split-frame.ts";
import { decodeFrame, type Frame } from "../../../../protocol/frame.ts";
import { type BatchRecord, encodeInOrder } from "../../../../protocol/record-batch.ts";
import { crc32c } from "../../../../runtime/crc32c.ts";
import { frameOf, shardsOf } from "./frames.ts";

const inOrder = (records: readonly BatchRecord[]): Frame =>
  decodeFrame(frameOf(records.length, encodeInOrder(records)));

const record = fc.record({
  key: fc.oneof(fc.constantFrom("a", "b", "ü"), fc.string({ unit: "binary", minLength: 1, maxLength: 30 })),
  timeUs: fc.nat(),
  payload: fc.oneof(
    fc.uint8Array({ maxLength: 40 }),
    fc.nat(8_000).map((bytes) => new Uint8Array(bytes).fill(bytes)),
  ),
});

test("a frame is split into the batches that the plain way makes", () => {
  let known = 0;
  fc.assert(
    fc.property(
      fc.array(record, { minLength: 1, maxLength: 30 }),
      fc.constantFrom(1, 2, 5, 64),
      (records, count) => {
        const frame = inOrder(records);
        const shards = shardsOf(count);
        const parts = splitFrame(frame, shards);
        assert.deepEqual(
          parts?.map(({ shard, count, batch }) => ({ shard, count, batch })),
          splitPlainly(frame, shards),
        );
        for (const { batch, checksum } of parts ?? []) {
          assert.equal(checksum !== undefined, frame.runChecksums !== undefined);
          if (checksum === undefined) continue;
          known++;
          assert.equal(checksum, crc32c(batch));
        }
      },
    ),
  );
  assert.ok(known > 10, "both kinds came");
});

test("as many runs as it takes, and frames of more runs or bytes", () => {
  const alike = (count: number, bytes: number): BatchRecord[] =>
    Array.from({ length: count }, (_, i) => ({ key: `k${i}`, timeUs: i, payload: new Uint8Array(bytes) }));
  const shards = shardsOf(3);
  const many = inOrder(alike(MAX_SPLIT_RUNS, 1));
  assert.deepEqual(
    splitFrame(many, shards)?.map(({ batch }) => Buffer.from(batch)),
    splitPlainly(many, shards).map(({ batch }) => batch),
  );
  assert.equal(splitFrame(inOrder(alike(MAX_SPLIT_RUNS + 1, 1)), shards), undefined);
  assert.equal(splitFrame(inOrder(alike(3, 100_000)), shards), undefined);
});
