import assert from "node:assert/strict";
import test from "node:test";
import { cutFrames, decodeFrame, encodeFrame, MAX_FRAME_RUNS } from "../../protocol/frame.ts";
import { encodeBatch } from "../../protocol/record-batch.ts";

function frame(sequence: number, runs: number): Buffer {
  const records = Array.from({ length: runs }, (_, i) => {
    return { key: `${i}`, timeUs: 1, payload: Buffer.from("x") };
  });
  const head = { device: "pi-1", stream: "sensors", epoch: 7n, epochStart: 1, storedUs: 1 };
  return encodeFrame(
    { ...head, sequence: BigInt(sequence), recordCount: runs, timeSource: "system" },
    encodeBatch(records),
  );
}

test("a frame holds so many runs and no more", () => {
  assert.equal(decodeFrame(frame(1, MAX_FRAME_RUNS)).runs.length, MAX_FRAME_RUNS);
  assert.throws(() => decodeFrame(frame(1, MAX_FRAME_RUNS + 1)), {
    code: "FRAME_MALFORMED",
    message: "frame: too many runs",
  });
});

test("a publish is cut before the frame whose runs would be too many", () => {
  const sizes = [3, 4, 4, 20, 1, 1, 1, 1, 1, 10];
  const frames = sizes.map((runs, i) => frame(i + 1, runs));
  const pieces = cutFrames(Buffer.concat(frames), 4, 10);
  const expected = [[3, 4], [4], [20], [1, 1, 1, 1], [1], [10]];
  let at = 0;
  assert.deepEqual(
    pieces,
    expected.map((piece) => Buffer.concat(piece.map(() => frames[at++]!))),
  );
});

test("wherever a publish is cut off, its pieces are all of it", () => {
  const whole = Buffer.concat([frame(1, 3), frame(2, 9), frame(3, 2)]);
  for (let end = 0; end <= whole.length; end++) {
    const cut = whole.subarray(0, end);
    assert.deepEqual(Buffer.concat(cutFrames(cut, 2, 5)), cut);
  }
});
