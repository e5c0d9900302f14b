/** Frames of thousands of partition keys: others are heard in between. */
import assert from "node:assert/strict";
import test from "node:test";
import type { Streams } from "../../../gateway/streams/streams.ts";
import { encodeFrame, MAX_FRAME_RUNS } from "../../../protocol/frame.ts";
import { encodeBatch } from "../../../protocol/record-batch.ts";
import { openDoor, RawSensor, stored } from "./door.ts";

const FRAMES = "headwater/v1/pi-1/frames";
/** As agent-publishes.ts has it. */
const RUNS_AT_ONCE = 8_192;

function frame(sequence: number, runs: number): Buffer {
  const records = Array.from({ length: runs }, (_, i) => {
    return { key: `${i}`, timeUs: 1, payload: Buffer.from(`${sequence}/${i}`) };
  });
  const head = { device: "pi-1", stream: "sensors", epoch: 7n, epochStart: 1, storedUs: 1 };
  return encodeFrame(
    { ...head, sequence: BigInt(sequence), recordCount: runs, timeSource: "system" },
    encodeBatch(records),
  );
}

/** How many runs were appended in each turn of the event loop. */
function watched() {
  const turns: number[] = [];
  let isSame = false;
  const wrap = (real: Streams): Streams =>
    new Proxy(real, {
      get(target, asked) {
        if (asked !== "appendFrame") return Reflect.get(target, asked)?.bind(target);
        return ((one) => {
          if (!isSame) turns.push(0);
          if (!isSame) setImmediate(() => (isSame = false));
          isSame = true;
          turns[turns.length - 1]! += one.runs.length;
          return real.appendFrame(one);
        }) as Streams["appendFrame"];
      },
    });
  return { turns, wrap };
}

test("of many frames of many runs some are taken in each turn, and all are stored", async (t) => {
  const { turns, wrap } = watched();
  const { port, streams } = await openDoor(t, { wrap });
  const client = await new RawSensor(port).connect("headwater-pi-1");
  const sizes = [3_000, 3_000, 3_000, 10_000, 1, 1, 8_000, 200];
  await client.acknowledged(1, FRAMES, Buffer.concat(sizes.map((runs, i) => frame(i + 1, runs))));
  assert.equal((await stored(streams)).length, 27_202);
  assert.equal(
    turns.reduce((sum, runs) => sum + runs, 0),
    27_202,
  );
  // One frame alone may have more.
  for (const runs of turns) assert.ok(runs <= RUNS_AT_ONCE || runs === 10_000, `${runs} at once`);
});

test("a frame of more runs than there may be is kept aside, and the next one is stored", async (t) => {
  const { port, streams, ingest } = await openDoor(t);
  const client = await new RawSensor(port).connect("headwater-pi-1");
  await client.acknowledged(1, FRAMES, frame(1, MAX_FRAME_RUNS + 1));
  await client.acknowledged(2, FRAMES, frame(2, 3));
  assert.equal((await stored(streams)).length, 3);
  assert.equal(ingest.quarantine().publishes, 1);
});
