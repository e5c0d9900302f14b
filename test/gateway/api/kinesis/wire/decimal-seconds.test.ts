/** Times of records, against those that String writes. */
import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { writeSeconds } from "../../../../../gateway/api/kinesis/wire/decimal-seconds.ts";

test("milliseconds are written as String writes their seconds, and nothing is touched around them", () => {
  const edges = [
    0,
    1,
    10,
    100,
    999,
    1_000,
    1_010,
    9_999_999_999_999,
    10_000_000_000_000,
    -1,
    0.5,
    Number.NaN,
  ];
  const ms = fc.oneof(
    { weight: 1, arbitrary: fc.constantFrom(...edges) },
    { weight: 4, arbitrary: fc.integer({ min: 0, max: 9_999_999_999_999 }) },
    { weight: 4, arbitrary: fc.integer({ min: 1_700_000_000_000, max: 1_900_000_000_000 }) },
    { weight: 1, arbitrary: fc.integer({ min: 0, max: 100_000 }) },
    { weight: 1, arbitrary: fc.double() },
  );
  const memory = Buffer.alloc(40);
  fc.assert(
    fc.property(ms, (ms) => {
      memory.fill("x");
      const bytes = writeSeconds(memory, 3, ms);
      assert.equal(memory.toString("latin1", 3, 3 + bytes), String(ms / 1_000));
      assert.equal(memory.toString("latin1", 0, 3), "xxx");
      assert.ok(memory.subarray(3 + Math.max(bytes, 14)).every((byte) => byte === 0x78));
    }),
    { numRuns: 5_000 },
  );
});
