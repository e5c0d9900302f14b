import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { formatSequenceNumber, parseSequenceNumber } from "../../../gateway/streams/streams.ts";

const parts = fc.record(
  {
    shardCreatedMs: fc.integer({ min: 1_000_000_000, max: 4_000_000_000 }).map((s) => s * 1000),
    shardIndex: fc.integer({ min: 0, max: 4_095 }),
    offset: fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER - 1 }),
    arrivalMs: fc.integer({ min: 1_000_000_000, max: 4_000_000_000 }).map((s) => s * 1000),
  },
  { noNullPrototype: true },
);

test("a sequence number has 56 digits and tells its parts", () => {
  fc.assert(
    fc.property(parts, (sequence) => {
      const text = formatSequenceNumber(sequence);
      assert.match(text, /^\d{56}$/);
      assert.deepEqual(parseSequenceNumber(text), sequence);
    }),
  );
});

test("sequence numbers rise with the offset, as text and as numbers, whatever the times", () => {
  fc.assert(
    fc.property(parts, parts, (a, b) => {
      const [low, high] = [Math.min(a.offset, b.offset), Math.max(a.offset, b.offset)];
      fc.pre(low < high);
      const before = formatSequenceNumber({ ...a, offset: low });
      const after = formatSequenceNumber({ ...a, offset: high, arrivalMs: b.arrivalMs });
      assert.ok(before < after && BigInt(before) < BigInt(after));
    }),
  );
});

test("a number that Kinesis itself gave is understood", () => {
  // From an example in AWS' reference of DescribeStream.
  const kinesis = "49543463076548007577105092703039560359975228518395019266";
  const { shardIndex, shardCreatedMs } = parseSequenceNumber(kinesis);
  assert.equal(shardIndex, 0);
  assert.equal(new Date(shardCreatedMs).getUTCFullYear(), 2014);
});

test("other texts are refused, at once", () => {
  const bad = [
    "",
    "0",
    "-1",
    "1e55",
    "9".repeat(56),
    "1".repeat(56),
    "4".repeat(1_000_000),
    "0x2",
    "٤".repeat(56),
  ];
  for (const text of bad) assert.throws(() => parseSequenceNumber(text), { code: "BAD_SEQUENCE_NUMBER" });
  fc.assert(
    fc.property(fc.stringMatching(/^[1-9][0-9]{55}$/), (text) => {
      try {
        assert.equal(formatSequenceNumber(parseSequenceNumber(text)), text);
      } catch (error) {
        assert.equal((error as { code: string }).code, "BAD_SEQUENCE_NUMBER");
      }
    }),
  );
});
