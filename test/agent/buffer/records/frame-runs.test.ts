import assert from "node:assert/strict";
import test from "node:test";
import { newEpochState } from "../../../../agent/buffer/records/epoch-ledger.ts";
import { FrameCutter } from "../../../../agent/buffer/records/frame-cutter.ts";
import { decodeFrame } from "../../../../protocol/frame.ts";

test("a commit of very many partition keys is cut into frames that a gateway takes one by one", () => {
  const count = 20_000;
  const records = Array.from({ length: count }, (_, i) => {
    return { stream: "a", partitionKey: `key-${i % 15_000}`, timeUs: i, payload: Buffer.from("x") };
  });
  const head = { device: "pi-1", storedUs: 1, timeSource: "system" } as const;
  const frames = new FrameCutter()
    .cut(newEpochState(1, 7n), head, records)
    .map(({ bytes }) => decodeFrame(bytes));
  assert.deepEqual(
    frames.map(({ runs }) => runs.length),
    [8_192, 8_192, 3_616],
  );
  assert.equal(
    frames.reduce((sum, { recordCount }) => sum + recordCount, 0),
    count,
  );
});
