import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { BatchBuilder } from "../../protocol/batch-builder.ts";
import { decodeFrame, encodeFrame, type FrameHead, frameBytes, writeFrame } from "../../protocol/frame.ts";
import { type BatchRecord, encodeBatch } from "../../protocol/record-batch.ts";

const record: fc.Arbitrary<BatchRecord> = fc.record({
  key: fc.oneof(fc.constantFrom("a", "b", "pi-1/°C"), fc.string({ unit: "binary", maxLength: 40 })),
  timeUs: fc.nat(Number.MAX_SAFE_INTEGER),
  payload: fc.uint8Array({ maxLength: 60 }),
});

function build(records: readonly BatchRecord[]): BatchBuilder {
  const builder = new BatchBuilder();
  for (const { key, timeUs, payload } of records) builder.add(key, timeUs, payload);
  return builder;
}

test("what is built record by record is what encodeBatch makes, wherever it is put", () => {
  fc.assert(
    fc.property(fc.array(record, { maxLength: 40 }), fc.nat(50), (records, from) => {
      const builder = build(records);
      const memory = Buffer.alloc(from + builder.bytes + 5, 0xee);
      assert.equal(builder.writeTo(memory, from), from + builder.bytes);
      assert.deepEqual(memory.subarray(from, from + builder.bytes), encodeBatch(records));
      assert.ok([...memory.subarray(0, from), ...memory.subarray(-5)].every((byte) => byte === 0xee));
      assert.equal(builder.records, records.length);
    }),
  );
});

test("a frame that is written into memory is what encodeFrame makes", () => {
  const records = [
    { key: "a", timeUs: 1, payload: Buffer.from("one") },
    { key: "b", timeUs: 2, payload: Buffer.from("two") },
  ];
  const head: FrameHead = {
    device: "gerät",
    stream: "temperatur-°C",
    epoch: 0x1234_5678_9abc_def0n,
    epochStart: 3,
    sequence: 9n,
    storedUs: 1_700_000_000_000_000,
    recordCount: 2,
    timeSource: "ntp",
  };
  const builder = build(records);
  const memory = Buffer.alloc(7 + frameBytes(head, builder.bytes) + 3, 0xee);
  const frame = writeFrame(memory, 7, head, builder.bytes, (at) => builder.writeTo(memory, at));
  assert.deepEqual(frame, encodeFrame(head, encodeBatch(records)));
  assert.equal(decodeFrame(frame).stream, head.stream);
  assert.ok([...memory.subarray(0, 7), ...memory.subarray(-3)].every((byte) => byte === 0xee));
});
