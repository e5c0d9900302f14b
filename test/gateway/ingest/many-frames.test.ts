/** Publishes of thousands of frames: others are heard in between, and they are answered as any other. */
import assert from "node:assert/strict";
import test from "node:test";
import { type AppendOutcome, LogFullError, type Streams } from "../../../gateway/streams/streams.ts";
import { encodeFrame } from "../../../protocol/frame.ts";
import { MAX_ENVELOPED_BYTES, sealSync } from "../../../protocol/publish-envelope.ts";
import { encodeBatch } from "../../../protocol/record-batch.ts";
import { eventually } from "../../support/program.ts";
import { openDoor, RawSensor, stored } from "./door.ts";

const FRAMES = "headwater/v1/pi-1/frames";
const EPOCH = 77n;

function frame(sequence: number, device = "pi-1"): Buffer {
  const head = { device, stream: "sensors", epoch: EPOCH, epochStart: 1, storedUs: 2_000_000 };
  return encodeFrame(
    { ...head, sequence: BigInt(sequence), recordCount: 1, timeSource: "system" },
    encodeBatch([{ key: "k", timeUs: 1_000_000, payload: Buffer.from(`${sequence}`.padStart(5, "0")) }]),
  );
}

function frames(from: number, to: number): Buffer {
  return Buffer.concat(Array.from({ length: to - from + 1 }, (_, i) => frame(from + i)));
}

function texts(from: number, to: number): string[] {
  return Array.from({ length: to - from + 1 }, (_, i) => `${from + i}`.padStart(5, "0"));
}

/** What was appended in each turn of the event loop, and by what it is appended. */
function watched(append?: (sequence: number) => Promise<AppendOutcome> | undefined) {
  const turns: number[][] = [];
  let turn: number[] | undefined;
  const wrap = (real: Streams): Streams =>
    new Proxy(real, {
      get(target, asked) {
        if (asked !== "appendFrame") return Reflect.get(target, asked)?.bind(target);
        return ((one) => {
          if (turn === undefined) {
            turn = [];
            turns.push(turn);
            setImmediate(() => {
              turn = undefined;
            });
          }
          turn.push(Number(one.sequence));
          return append?.(Number(one.sequence)) ?? real.appendFrame(one);
        }) as Streams["appendFrame"];
      },
    });
  return { turns, wrap };
}

for (const way of ["plain", "compressed", "compressed to little"] as const) {
  test(`thousands of frames, ${way}, are taken some at a time, and what follows keeps its place`, async (t) => {
    const { turns, wrap } = watched();
    const { port, streams, ingest } = await openDoor(t, { wrap });
    const client = await new RawSensor(port).connect("headwater-pi-1");
    const last = way === "compressed to little" ? 700 : 3_000;
    const many = frames(1, last);
    client.publish(1, FRAMES, way === "plain" ? many : sealSync(many));
    client.publish(2, FRAMES, frame(last + 1));
    client.publish(3, "headwater/v1/pi-1/drained", JSON.stringify({ epochs: ["000000000000004d"] }));
    const answered = [];
    for (let i = 0; i < 3; i++) answered.push((await client.next()).messageId);
    assert.deepEqual(answered.sort(), [1, 2, 3]);
    assert.deepEqual(
      turns.flat(),
      Array.from({ length: last + 1 }, (_, i) => i + 1),
    );
    assert.ok(turns.length > 1);
    for (const turn of turns) assert.ok(turn.length <= 600, `${turn.length} at once`);
    assert.deepEqual(await stored(streams), texts(1, last + 1));
    // The epoch was forgotten behind all of them.
    await client.acknowledged(4, FRAMES, frame(1));
    const { frames: counted, duplicateFrames } = ingest.devices().find(({ device }) => device === "pi-1")!;
    assert.deepEqual([counted, duplicateFrames], [last + 2, 0]);
  });
}

test("a small publish that holds as many frames as fit does not keep others waiting", async (t) => {
  const { turns, wrap } = watched();
  const { port } = await openDoor(t, { wrap });
  const hostile = await new RawSensor(port).connect("headwater-pi-1");
  const one = frame(1);
  const envelope = sealSync(Buffer.concat(Array(Math.floor(MAX_ENVELOPED_BYTES / one.length)).fill(one)));
  assert.ok(envelope.length < 10_000);
  hostile.publish(1, FRAMES, envelope);
  const honest = await new RawSensor(port).connect("honest");
  for (let i = 0; i < 3; i++) await honest.acknowledged(9 + i, "plant/a/temperature", `${i}`);
  assert.equal((await hostile.next()).cmd, "puback");
  assert.ok(turns.length > 100);
});

test("where one of thousands cannot be stored, nothing behind its turn is taken, and there is no answer", async (t) => {
  const { turns, wrap } = watched((sequence) =>
    sequence === 700 ? Promise.reject(new LogFullError("sensors", new Error("ENOSPC"))) : undefined,
  );
  const { port } = await openDoor(t, { wrap });
  const client = await new RawSensor(port).connect("headwater-pi-1");
  client.publish(1, FRAMES, frames(1, 5_000));
  client.publish(2, FRAMES, frame(5_001));
  const busy = await client.next();
  assert.ok(busy.cmd === "publish" && /"busy"/.test(busy.payload.toString()));
  await client.ended;
  await assert.rejects(client.next());
  assert.ok(turns.flat().length < 2_000);
});

test("of thousands of frames the sound ones are stored, and the publish is kept aside once", async (t) => {
  const { port, streams, ingest } = await openDoor(t);
  const client = await new RawSensor(port).connect("headwater-pi-1");
  const many = frames(1, 2_500);
  const { length } = frame(1);
  for (const damaged of [300, 301, 2_000]) many[(damaged - 1) * length + length - 1]! ^= 1;
  await client.acknowledged(1, FRAMES, many);
  const sound = texts(1, 2_500).filter((text) => !["00300", "00301", "02000"].includes(text));
  assert.deepEqual(await stored(streams), sound);
  assert.equal(ingest.quarantine().publishes, 1);
});

test("a frame of another device among thousands ends the connection", async (t) => {
  const { port, ingest, streams } = await openDoor(t);
  const client = await new RawSensor(port).connect("headwater-pi-1");
  client.publish(1, FRAMES, Buffer.concat([frames(1, 2_000), frame(1, "pi-2"), frames(2_001, 4_000)]));
  await client.ended;
  await assert.rejects(client.next());
  // Nothing is known of it where none of them was on disk before the connection ended.
  const seen = ingest.devices().find(({ device }) => device === "pi-1");
  assert.ok((seen?.frames ?? 0) <= 2_000);
  const { shardList } = streams.describe("sensors");
  assert.ok(shardList.reduce((sum, { appendedRecords }) => sum + appendedRecords, 0) <= 2_000);
});

test("a client that goes in the midst of its thousands leaves nothing that waits", async (t) => {
  const { turns, wrap } = watched();
  const { port, metrics } = await openDoor(t, { wrap });
  const client = await new RawSensor(port).connect("headwater-pi-1");
  client.publish(1, FRAMES, sealSync(frames(1, 40_000)));
  while (turns.length < 2) await new Promise((resolve) => setImmediate(resolve));
  await client.vanish();
  await eventually("no room that is taken", 60_000, async () =>
    /^headwater_ingest_envelope_held_bytes 0$/m.test(await metrics.render()) ? true : undefined,
  );
  assert.ok(turns.flat().length < 40_000);
});
