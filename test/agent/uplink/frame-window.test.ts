import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { Batch } from "../../../agent/uplink/batch.ts";
import { FrameWindow, type Underway } from "../../../agent/uplink/frame-window.ts";
import type { Frame } from "../../../protocol/frame.ts";

const frame = (sequence: number, stream = "sensors", epoch = 1n, bytes = 100): Frame =>
  ({ epoch, stream, sequence: BigInt(sequence), bytes: Buffer.alloc(bytes) }) as unknown as Frame;

function batchOf(sequence: number, bytes = 100): Batch {
  const batch = new Batch(undefined);
  batch.take(frame(sequence, "sensors", 1n, bytes), "send");
  return batch;
}

test("in whatever order acknowledgements come, batches are done in theirs, each once", () => {
  fc.assert(
    fc.property(fc.array(fc.nat({ max: 30 }), { maxLength: 60 }), (picks) => {
      const window = new FrameWindow(10_000);
      const underway: Underway[] = [];
      const done: Batch[] = [];
      const batches: Batch[] = [];
      for (const pick of picks) {
        const at = pick % (underway.length + 1);
        const chosen = underway[at];
        if (chosen === undefined) {
          const batch = batchOf(batches.length + 1);
          batches.push(batch);
          const added = window.add(batch);
          window.sent(added, 60, pick);
          underway.push(added);
        } else {
          underway.splice(at, 1);
          done.push(...window.acknowledge(chosen));
        }
        assert.deepEqual(done, batches.slice(0, done.length));
        assert.equal(window.bytes, (batches.length - done.length) * 60);
        assert.equal(window.isEmpty, done.length === batches.length);
      }
      for (const left of underway) done.push(...window.acknowledge(left));
      assert.deepEqual(done, batches);
      assert.equal(window.bytes, 0);
    }),
  );
});

test("one publish is always allowed, and what is not published can be given up", () => {
  const window = new FrameWindow(50);
  assert.equal(window.room, 50);
  const first = window.add(batchOf(1));
  assert.equal(window.room, 0);
  window.sent(first, 40, 1);
  assert.equal(window.room, 10);
  window.add(batchOf(2));
  window.add(batchOf(3));
  window.dropUnsent();
  assert.equal(window.bytes, 40);
  assert.equal(window.isEmpty, false);
  assert.equal(window.oldestSentMs, 1);
  assert.equal(window.acknowledge(first).length, 1);
  assert.equal(window.isEmpty, true);
});

test("everything is done up to the first frame that is held, in each epoch", () => {
  const batch = new Batch(undefined);
  batch.take(frame(1), "pass");
  batch.take(frame(2), "send");
  batch.take(frame(3, "other"), "hold");
  batch.take(frame(4), "send");
  batch.take(frame(1, "sensors", 2n), "send");
  assert.deepEqual(batch.upTo, [
    { epoch: 1n, sequence: 2n },
    { epoch: 2n, sequence: 1n },
  ]);
  assert.deepEqual([...batch.streams].map(({ epoch, sequence }) => [epoch, sequence]).sort(), [
    [1n, 4n],
    [2n, 1n],
  ]);
  assert.equal(batch.bytes, 300);
  const behind = new Batch(1n);
  behind.take(frame(5), "send");
  assert.deepEqual(behind.upTo, []);
  behind.take(frame(1, "sensors", 2n), "pass");
  assert.deepEqual(behind.upTo, [{ epoch: 2n, sequence: 1n }]);
});
