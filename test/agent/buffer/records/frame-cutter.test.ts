import assert from "node:assert/strict";
import test from "node:test";
import type { BufferRecord } from "../../../../agent/buffer/record-buffer.ts";
import { newEpochState } from "../../../../agent/buffer/records/epoch-ledger.ts";
import { estimateBytes, FrameCutter } from "../../../../agent/buffer/records/frame-cutter.ts";
import { decodeFrame, encodeFrame, type Frame } from "../../../../protocol/frame.ts";
import { encodeBatch, forEachRecord } from "../../../../protocol/record-batch.ts";

const head = { device: "pi-1", storedUs: 1_700_000_000_000_000, timeSource: "system" } as const;

function records(stream: string, count: number, bytes: number): BufferRecord[] {
  return Array.from({ length: count }, (_, i) => ({
    stream,
    partitionKey: `key-${i % 3}`,
    timeUs: i,
    payload: Buffer.alloc(bytes, i),
  }));
}

function cut(cutter: FrameCutter, given: readonly BufferRecord[]): Frame[] {
  const epoch = newEpochState(4, 7n);
  epoch.last = 41n;
  return cutter.cut(epoch, head, given).map(({ bytes }) => decodeFrame(Buffer.from(bytes)));
}

test("one frame a stream, in the order of the streams' first records, as encodeFrame would make them", () => {
  const [a, b] = [records("a", 5, 10), records("b", 4, 20)];
  const mixed = [a[0]!, b[0]!, b[1]!, a[1]!, a[2]!, ...b.slice(2), ...a.slice(3)];
  const frames = cut(new FrameCutter(), mixed);
  const plain = [a, b].map((all, i) =>
    encodeFrame(
      {
        ...head,
        stream: all[0]!.stream,
        epoch: 7n,
        epochStart: 4,
        sequence: 42n + BigInt(i),
        recordCount: all.length,
      },
      encodeBatch(all.map((each) => ({ ...each, key: each.partitionKey }))),
    ),
  );
  assert.deepEqual(
    frames.map(({ bytes }) => bytes),
    plain,
  );
});

test("a stream with more than a frame may hold is cut into several, and no record is missed", () => {
  const given = records("a", 5, 400_000);
  const frames = cut(new FrameCutter(), given);
  assert.deepEqual(
    frames.map(({ recordCount, sequence }) => [recordCount, sequence]),
    [
      [2, 42n],
      [2, 43n],
      [1, 44n],
    ],
  );
  const times: number[] = [];
  for (const { runs } of frames)
    for (const run of runs) forEachRecord(run, (_, timeUs) => times.push(timeUs));
  assert.deepEqual(times.sort(), [0, 1, 2, 3, 4]);
});

test("the memory of one commit is that of the next, whatever their sizes", () => {
  const cutter = new FrameCutter();
  const epoch = newEpochState(1, 1n);
  const first = cutter.cut(epoch, head, records("a", 10, 100))[0]!.bytes;
  const second = cutter.cut(epoch, head, records("a", 20, 100))[0]!.bytes;
  assert.equal(second.buffer, first.buffer);
  for (const size of [1, 70_000, 900_000, 5, 3_000_000, 200]) {
    const given = records("a", 3, size);
    const frames = cut(cutter, given);
    assert.equal(
      frames.reduce((sum, { recordCount }) => sum + recordCount, 0),
      3,
    );
    assert.ok(frames.reduce((sum, { bytes }) => sum + bytes.length, 0) <= estimateBytes(given) + 512);
  }
});

test("a commit of marks alone has no frame", () => {
  assert.deepEqual(new FrameCutter().cut(newEpochState(1, 1n), head, []), []);
});
