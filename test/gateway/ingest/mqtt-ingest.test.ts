import assert from "node:assert/strict";
import { type EventEmitter, once } from "node:events";
import { readFile } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import mqtt, { type MqttClient } from "mqtt";
import { LogFullError } from "../../../gateway/streams/streams.ts";
import { encodeFrame } from "../../../protocol/frame.ts";
import { encodeBatch } from "../../../protocol/record-batch.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { createLog } from "../../../runtime/log.ts";
import { openDoor, RawSensor, stored } from "./door.ts";

function agent(context: TestContext, url: string, options: mqtt.IClientOptions = {}): Promise<MqttClient> {
  const client = mqtt.connect(url, {
    clientId: "headwater-pi-1",
    username: "pi-1",
    reconnectPeriod: 0,
    protocolVersion: 4,
    ...options,
  });
  context.after(() => client.endAsync(true));
  client.on("error", () => {});
  return heard(client, "connect").then(() => client);
}

/** The library's own types do not say that it is an emitter. */
function heard(client: MqttClient, event: string): Promise<unknown[]> {
  return once(client as unknown as EventEmitter, event);
}

/** The connection is over, also when it was reset: `heard` would reject for that. */
function ended(client: MqttClient): Promise<unknown> {
  return new Promise((resolve) => client.once("close", () => resolve(undefined)));
}

/** The next control message of that type; others pass, also those that come in one piece with it. */
function told(client: MqttClient, type: string): Promise<{ topic: string; message: { type: string } }> {
  return new Promise((resolve) => {
    client.on("message", (topic, payload) => {
      const message = JSON.parse(payload.toString()) as { type: string };
      if (message.type === type) resolve({ topic, message });
    });
  });
}

function frame(
  sequence: number,
  payloads: string[],
  changes: { device?: string; stream?: string } = {},
): Buffer {
  const records = payloads.map((payload, i) => ({
    key: `pi-1/s${i % 3}`,
    timeUs: 1_000_000 + i,
    payload: Buffer.from(payload),
  }));
  return encodeFrame(
    {
      device: changes.device ?? "pi-1",
      stream: changes.stream ?? "sensors",
      epoch: 77n,
      epochStart: 1,
      sequence: BigInt(sequence),
      storedUs: 2_000_000,
      recordCount: records.length,
      timeSource: "system",
    },
    encodeBatch(records),
  );
}

const FRAMES = "headwater/v1/pi-1/frames";

test("frames of one publish are stored before its PUBACK", async (context) => {
  const { url, streams, ingest } = await openDoor(context);
  const client = await agent(context, url);
  await client.publishAsync(FRAMES, Buffer.concat([frame(1, ["a", "b"]), frame(2, ["c"])]), { qos: 1 });
  assert.deepEqual(await stored(streams), ["a", "b", "c"]);
  const [device] = ingest.devices();
  assert.deepEqual(
    [device?.device, device?.connected, device?.frames, device?.records],
    ["pi-1", true, 2, 3],
  );
});

test("a frame sent twice is acknowledged twice and stored once", async (context) => {
  const { url, streams, ingest } = await openDoor(context);
  const client = await agent(context, url);
  await client.publishAsync(FRAMES, frame(1, ["a"]), { qos: 1 });
  await client.publishAsync(FRAMES, Buffer.concat([frame(1, ["a"]), frame(2, ["b"])]), { qos: 1 });
  assert.deepEqual(await stored(streams), ["a", "b"]);
  assert.equal(ingest.devices()[0]?.duplicateFrames, 1);
});

test("an invalid publish is quarantined and acknowledged, and what follows gets through", async (context) => {
  const { url, streams, ingest, dir } = await openDoor(context);
  const client = await agent(context, url);
  const damaged = frame(1, ["a"]);
  damaged[damaged.length - 1]! ^= 1;
  await client.publishAsync(FRAMES, damaged, { qos: 1 });
  await client.publishAsync(FRAMES, frame(2, ["x"], { stream: "nowhere" }), { qos: 1 });
  await client.publishAsync("headwater/v1/pi-1/unknown", "?", { qos: 1 });
  await client.publishAsync(FRAMES, frame(3, ["b"]), { qos: 1 });
  assert.deepEqual(await stored(streams), ["b"]);
  assert.equal(ingest.quarantine().publishes, 3);
  const kept = (await readFile(join(dir, "quarantine", "publishes.ndjson"), "utf8")).trim().split("\n");
  assert.match(kept[0]!, /checksum/);
  assert.equal(Buffer.from(JSON.parse(kept[0]!).payload, "base64").equals(damaged), true);
  assert.match(kept[1]!, /there is no stream nowhere/);
});

test("a damaged frame takes no other of its publish with it", async (context) => {
  const { url, streams, ingest, dir } = await openDoor(context);
  const client = await agent(context, url);
  const damaged = frame(2, ["b"]);
  damaged[damaged.length - 1]! ^= 1;
  const publish = Buffer.concat([frame(1, ["a"]), damaged, frame(3, ["c"])]);
  await client.publishAsync(FRAMES, publish, { qos: 1 });
  await client.publishAsync(FRAMES, frame(3, ["c"]), { qos: 1 });
  assert.deepEqual(await stored(streams), ["a", "c"]);
  assert.equal(ingest.quarantine().publishes, 1);
  const kept = JSON.parse(await readFile(join(dir, "quarantine", "publishes.ndjson"), "utf8"));
  assert.equal(Buffer.from(kept.payload, "base64").equals(publish), true);
});

test("while storing fails no PUBACK is given, the agent is told, and nothing later overtakes", async (context) => {
  let full = true;
  const refused: bigint[] = [];
  const { url, streams } = await openDoor(context, {
    wrap: (real) =>
      new Proxy(real, {
        get(target, name) {
          if (name !== "appendFrame" || !full) return Reflect.get(target, name)?.bind(target);
          return (asked: { sequence: bigint }) => {
            refused.push(asked.sequence);
            full = false; // Room is back at once, which must not let frame 2 overtake frame 1.
            return Promise.reject(new LogFullError("sensors"));
          };
        },
      }),
  });
  const client = await agent(context, url);
  await client.subscribeAsync("headwater/v1/pi-1/control");
  const busy = told(client, "busy");
  const end = ended(client);
  let acknowledged = 0;
  client.publish(FRAMES, frame(1, ["a"]), { qos: 1 }, (error) => {
    if (!error) acknowledged++;
  });
  await busy;
  client.publish(FRAMES, frame(2, ["b"]), { qos: 1 }, (error) => {
    if (!error) acknowledged++;
  });
  await end;
  assert.deepEqual([acknowledged, refused, await stored(streams)], [0, [1n], []]);

  const again = await agent(context, url);
  await again.publishAsync(FRAMES, frame(1, ["a"]), { qos: 1 });
  await again.publishAsync(FRAMES, frame(2, ["b"]), { qos: 1 });
  assert.deepEqual(await stored(streams), ["a", "b"]);
});

test("a plain sensor's resent publish is stored once, and what follows it is new", async (context) => {
  const { port, streams } = await openDoor(context);
  for (const values of [["20.5"], ["20.5", "20.6"]]) {
    const client = new RawSensor(port);
    // Before it has heard that it is connected, which MQTT allows.
    client.socket.cork();
    client.hello("plain");
    for (const [i, value] of values.entries()) client.publish(7 + i, "plant/a/temperature", value);
    client.socket.uncork();
    for (const cmd of ["connack", ...values.map(() => "puback")])
      assert.equal((await client.next()).cmd, cmd);
    await client.vanish();
  }
  assert.deepEqual(await stored(streams), ["20.5", "20.6"]);
});

test("a publish on a topic without a rule is quarantined", async (context) => {
  const { url, ingest } = await openDoor(context);
  const client = await agent(context, url, { clientId: "plain" });
  await client.publishAsync("plant/a/pressure", "1", { qos: 1 });
  assert.match(ingest.quarantine().lastReason ?? "", /no rule/);
});

test("with devices configured, only they come in, and only as themselves", async (context) => {
  const devices = [
    { id: "pi-1", password: "correct horse" },
    { id: "pi-2", password: "battery staple" },
  ];
  const { url, streams } = await openDoor(context, { devices });
  const stranger = mqtt.connect(url, {
    username: "pi-1",
    password: "battery staple",
    reconnectPeriod: 0,
    protocolVersion: 4,
  });
  context.after(() => stranger.endAsync(true));
  const [refusal] = (await heard(stranger, "error")) as [{ code: number }];
  assert.equal(refusal.code, 5);

  const client = await agent(context, url, { username: "pi-2", password: "battery staple" });
  const granted = await client.subscribeAsync("headwater/v1/pi-1/control").catch(() => [{ qos: 128 }]);
  assert.equal(granted[0]?.qos, 128);
  const end = ended(client);
  client.publish(FRAMES, frame(1, ["forged"]), { qos: 1 });
  await end;
  assert.deepEqual(await stored(streams), []);
});

test("a packet above the limit ends its connection, and nobody else's", async (context) => {
  const { url, port } = await openDoor(context);
  const client = await agent(context, url);
  const socket = connect(port, "127.0.0.1");
  socket.on("error", () => {});
  // What it is answered before must not keep it from its end.
  socket.resume();
  const closed = new Promise((resolve) => socket.once("close", resolve));
  socket.write(Buffer.from([0x10, 14, 0, 4, 77, 81, 84, 84, 4, 2, 0, 60, 0, 2, 97, 98]));
  socket.write(Buffer.from([0x32, 0xff, 0xff, 0xff, 0x7f]));
  await closed;
  await client.publishAsync(FRAMES, frame(1, ["a"]), { qos: 1 });
});

test("a drained epoch is forgotten before its PUBACK", async (context) => {
  const { url, streams } = await openDoor(context);
  const client = await agent(context, url);
  await client.publishAsync(FRAMES, frame(1, ["a"]), { qos: 1 });
  assert.equal(streams.describe("sensors").producers, 1);
  await client.publishAsync("headwater/v1/pi-1/drained", JSON.stringify({ epochs: ["000000000000004d"] }), {
    qos: 1,
  });
  assert.equal(streams.describe("sensors").producers, 0);
});

test("an agent that asks what time it is hears it on its control topic, and nonsense is quarantined", async (context) => {
  const { url, ingest } = await openDoor(context);
  const client = await agent(context, url);
  await client.subscribeAsync("headwater/v1/pi-1/control", { qos: 0 });
  const answer = told(client, "time");
  const fromUs = Date.now() * 1_000;
  await client.publishAsync("headwater/v1/pi-1/time", '{"id":7}', { qos: 0 });
  const { topic, message } = await answer;
  assert.equal(topic, "headwater/v1/pi-1/control");
  const { type, id, utcUs } = message as { type: string; id: number; utcUs: number };
  assert.deepEqual([type, id], ["time", 7]);
  assert.ok(utcUs >= fromUs - 1_000_000 && utcUs <= Date.now() * 1_000 + 1_000_000);
  for (const nonsense of ["", "{}", '{"id":"7"}', '{"id":-1}', "x".repeat(100_000)]) {
    await client.publishAsync("headwater/v1/pi-1/time", nonsense, { qos: 1 });
  }
  assert.equal(ingest.quarantine().publishes, 5);
});

test("connections that were given up before they said a word, as a gateway finds them that stood still, are no rivals", async (context) => {
  const lines: string[] = [];
  const log = createLog("gateway", "info", { write: (line: string) => lines.push(line) });
  // All of them are taken up in one moment.
  const { url, metrics } = await openDoor(context, { log, clock: { ...systemClock, monotonicMs: () => 0 } });
  for (let i = 0; i < 6; i++) await agent(context, url);
  assert.match(await metrics.render(), /headwater_ingest_takeovers_total 5/);
  assert.deepEqual(
    lines.filter((line) => line.includes("end one another")),
    [],
  );
});

test("sensors with one id that seldom say something are told of as well", async (context) => {
  const lines: string[] = [];
  const log = createLog("gateway", "info", { write: (line: string) => lines.push(line) });
  let nowMs = 0;
  const { url } = await openDoor(context, { log, clock: { ...systemClock, monotonicMs: () => nowMs } });
  // As libraries come back after a second.
  for (let i = 0; i < 4; i++, nowMs += 1_000) await agent(context, url, { clientId: "door-1" });
  assert.equal(lines.filter((line) => line.includes("end one another")).length, 1);
});

test("devices that end one another's connections under one id are told so, and it is logged and counted", async (context) => {
  const lines: string[] = [];
  const log = createLog("gateway", "info", { write: (line: string) => lines.push(line) });
  const { url, metrics } = await openDoor(context, { log });
  // Once or twice is a link that broke without the gateway's knowing.
  const hellos: unknown[] = [];
  for (let i = 0; i < 6; i++) {
    const client = await agent(context, url);
    const hello = told(client, "hello");
    await client.subscribeAsync("headwater/v1/pi-1/control");
    hellos.push(((await hello).message as { contested?: boolean }).contested ?? false);
  }
  assert.deepEqual(hellos, [false, false, false, true, true, true]);
  assert.match(await metrics.render(), /headwater_ingest_takeovers_total 5/);
  assert.equal(lines.filter((line) => line.includes("end one another")).length, 3);
});
