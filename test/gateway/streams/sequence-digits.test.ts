/** Sequence numbers by addition against those by BigInt. */
import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import {
  digitsOf,
  SEQUENCE_NUMBER_DIGITS,
  SequenceDigits,
} from "../../../gateway/streams/sequence-digits.ts";
import { formatSequenceNumber } from "../../../gateway/streams/sequence-number.ts";

test("runs of offsets, with gaps, repetitions and times that pass, are written as formatSequenceNumber gives them", () => {
  const run = fc.record({
    from: fc.oneof(
      fc.nat(1_000_000),
      fc.maxSafeInteger().map((n) => Math.max(0, Math.abs(n) - 600)),
    ),
    count: fc.integer({ min: 1, max: 300 }),
    arrivalMs: fc.integer({ min: 0, max: 4_000_000_000_000 }),
  });
  const shard = fc.record({
    createdMs: fc.integer({ min: 0, max: 4_000_000_000_000 }),
    index: fc.integer({ min: 0, max: 0x7fff_ffff }),
  });
  fc.assert(
    fc.property(shard, fc.array(run, { minLength: 1, maxLength: 4 }), ({ createdMs, index }, runs) => {
      const digits = new SequenceDigits(createdMs, index);
      const words = new SequenceDigits(createdMs, index);
      const target = Buffer.alloc(SEQUENCE_NUMBER_DIGITS + 2, "x");
      const view = new DataView(target.buffer, target.byteOffset, target.length);
      for (const { from, count, arrivalMs } of runs) {
        for (let offset = from; offset < from + count; offset++) {
          digits.write(target, 1, offset, arrivalMs);
          const plain = formatSequenceNumber({
            shardCreatedMs: createdMs,
            shardIndex: index,
            offset,
            arrivalMs,
          });
          assert.equal(target.toString("latin1"), `x${plain}x`);
          target.fill("x");
          words.writeTo(view, 1, offset, arrivalMs);
          assert.equal(target.toString("latin1"), `x${plain}x`);
          assert.equal(digitsOf(createdMs, index).text(offset, arrivalMs), plain);
        }
      }
    }),
    { numRuns: 200 },
  );
});

test("shards that take turns keep their own numbers, also those that fall on the same place", () => {
  const shards = [
    [1_000, 0],
    [1_000, 64],
    [5_000_000, 0],
    [1_000, 128],
    [1_000, 1],
  ] as const;
  for (let offset = 0; offset < 50; offset++) {
    for (const [shardCreatedMs, shardIndex] of shards) {
      const arrivalMs = 1_700_000_000_000 + offset * 400;
      assert.equal(
        digitsOf(shardCreatedMs, shardIndex).text(offset, arrivalMs),
        formatSequenceNumber({ shardCreatedMs, shardIndex, offset, arrivalMs }),
      );
    }
  }
});
