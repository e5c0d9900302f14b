/** Compressed publishes between programs of the same version and of different ones. */
import assert from "node:assert/strict";
import test, { type TestContext } from "node:test";
import type { RecordBuffer } from "../../../agent/buffer/record-buffer.ts";
import { MqttUplink, type MqttUplinkOptions } from "../../../agent/uplink/mqtt-uplink.ts";
import { LogFullError } from "../../../gateway/streams/streams.ts";
import type { StatusMessage } from "../../../protocol/topics.ts";
import { Backoff } from "../../../runtime/backoff.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { openDoor, stored } from "../../gateway/ingest/door.ts";
import { openBuffer, record, temporaryFolder, texts } from "../buffer/records/buffer-fixture.ts";
import { StandInBroker } from "./stand-in-broker.ts";

const STATUS: StatusMessage = {
  version: "0",
  buffer: { waitingRecords: 0, waitingBytes: 0, maxBytes: 1, oldestAgeMs: 0, droppedRecords: 0 },
  sources: [],
  residentBytes: 1,
};

async function uplink(
  t: TestContext,
  port: number,
  buffer: RecordBuffer,
  options: Partial<MqttUplinkOptions> = {},
): Promise<MqttUplink> {
  const made = new MqttUplink({
    url: `mqtt://127.0.0.1:${port}`,
    device: "pi-1",
    buffer,
    clock: systemClock,
    log: silentLog,
    metrics: new Metrics(),
    publishBytes: 20_000,
    windowBytes: 100_000,
    statusSeconds: 60,
    status: () => STATUS,
    backoff: new Backoff(5, 50),
    ...options,
  });
  await made.start();
  t.after(() => made.close());
  return made;
}

async function drained(buffer: RecordBuffer): Promise<void> {
  while (buffer.usage().waitingBytes > 0) await new Promise((resolve) => setTimeout(resolve, 5));
}

async function fill(buffer: RecordBuffer, count: number, from = 0): Promise<void> {
  await Promise.all(
    Array.from({ length: count }, (_, i) => buffer.append([record(`${from + i}`.padEnd(100))])),
  );
}

const numbers = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

test("a gateway that says so gets envelopes, in order, and the meters tell both sizes", async (t) => {
  const buffer = await openBuffer(await temporaryFolder(t), { commitRecords: 10 });
  const gateway = new StandInBroker();
  gateway.hello = { type: "hello", accepts: ["zstd-of-later", "brotli"] };
  const metrics = new Metrics();
  const up = await uplink(t, await gateway.start(t), buffer, { metrics });
  await fill(buffer, 10);
  await drained(buffer);
  // The greeting and the first publishes cross; by now it has come.
  await fill(buffer, 490, 10);
  await drained(buffer);
  assert.deepEqual(texts(gateway.frames).map(Number), numbers(500));
  assert.ok(gateway.envelopes > 0);
  const text = await metrics.render();
  const total = (name: string): number =>
    Number(new RegExp(`^headwater_uplink_${name}_total (\\d+)$`, "m").exec(text)?.[1]);
  assert.ok(total("wire_bytes") < total("bytes_sent") / 3, text);
  await up.close();
  await buffer.close();
});

test("a gateway that says nothing, or something else, gets plain frames", async (t) => {
  const greetings = [
    undefined,
    { type: "hello" },
    { type: "hello", accepts: ["zstd"] },
    { type: "hello", accepts: "brotli" },
    { type: "hello", accepts: { 0: "brotli" } },
    ["hello"],
    null,
  ];
  for (const hello of greetings) {
    const buffer = await openBuffer(await temporaryFolder(t), { commitRecords: 10 });
    const gateway = new StandInBroker();
    gateway.hello = hello;
    const up = await uplink(t, await gateway.start(t), buffer, { compression: "always" });
    for (const from of [0, 100]) {
      await fill(buffer, 100, from);
      await drained(buffer);
    }
    assert.deepEqual(texts(gateway.frames).map(Number), numbers(200));
    assert.equal(gateway.envelopes, 0, JSON.stringify(hello));
    await up.close();
    await buffer.close();
  }
});

test("what one connection's gateway accepts does not hold for the next one's", async (t) => {
  const buffer = await openBuffer(await temporaryFolder(t), { commitRecords: 10 });
  const gateway = new StandInBroker();
  gateway.hello = { type: "hello", accepts: ["brotli"] };
  const up = await uplink(t, await gateway.start(t), buffer, { compression: "always" });
  await fill(buffer, 10);
  await drained(buffer);
  await fill(buffer, 100, 10);
  await drained(buffer);
  assert.ok(gateway.envelopes > 0);
  // An older gateway takes its place.
  let envelopesBefore = Number.NaN;
  gateway.onFrames = () => {
    gateway.hello = undefined;
    gateway.onFrames = () => "ack";
    envelopesBefore = gateway.envelopes;
    return "cut";
  };
  await fill(buffer, 100, 110);
  await drained(buffer);
  assert.equal(gateway.envelopes, envelopesBefore);
  assert.deepEqual(texts(gateway.unique).map(Number), numbers(210));
  await up.close();
  await buffer.close();
});

test("through refusals and broken connections each record is stored once, compressed or not", async (t) => {
  let left = 4;
  let appends = 0;
  let full = false;
  const { port, streams, metrics } = await openDoor(t, {
    wrap: (real) =>
      new Proxy(real, {
        get(target, name) {
          if (name !== "appendFrame") return Reflect.get(target, name)?.bind(target);
          return (frame: Parameters<typeof real.appendFrame>[0]) => {
            // Now and then the disk is full for a moment; as a log does it, for all that comes in a turn.
            if (++appends % 23 === 0 && left-- > 0) {
              full = true;
              setImmediate(() => {
                full = false;
              });
            }
            if (full) return Promise.reject(new LogFullError("sensors"));
            return real.appendFrame(frame);
          };
        },
      }),
  });
  const buffer = await openBuffer(await temporaryFolder(t), { commitRecords: 7 });
  // Some publishes are large enough for a thread, some are small, some too small for an envelope.
  const up = await uplink(t, port, buffer, { publishBytes: 200_000, windowBytes: 1_000_000 });
  for (let i = 0; i < 40; i++) {
    await Promise.all(
      numbers(20).map((n) => buffer.append([record(`${20 * i + n}`.padEnd(n === 0 ? 30_000 : 200))])),
    );
  }
  await drained(buffer);
  const arrived = (await stored(streams)).map(Number).sort((a, b) => a - b);
  assert.deepEqual(arrived, numbers(800));
  assert.match(await metrics.render(), /^headwater_ingest_envelopes_total [1-9]/m);
  assert.match(await metrics.render(), /^headwater_ingest_envelope_held_bytes 0$/m);
  await up.close();
  await buffer.close();
});
