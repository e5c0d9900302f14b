import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { Aedes, type AedesPublishPacket } from "aedes";
import { AnomalyRecord } from "../../firmware-sim/anomaly-record.ts";
import { MessageNumbers } from "../../firmware-sim/message-numbers.ts";
import { Sensors } from "../../firmware-sim/sensors.ts";
import { TruthFile } from "../../firmware-sim/truth-file.ts";
import { pause } from "../../runtime/backoff.ts";
import { systemClock } from "../../runtime/clock.ts";
import { silentLog } from "../../runtime/log.ts";
import { freePorts } from "../support/program.ts";

async function until(holds: () => boolean, what: string, timeoutMs = 60_000): Promise<void> {
  const endMs = Date.now() + timeoutMs;
  while (!holds()) {
    assert.ok(Date.now() < endMs, `not within ${timeoutMs} ms: ${what}`);
    await pause(10);
  }
}

interface Seen {
  readonly topic: string;
  readonly payload: string;
  readonly messageId: number;
}

/** A real broker that can die at once, and can keep its PUBACKs to itself. */
class Broker {
  readonly seen: Seen[] = [];
  withholding = false;
  port = 0;
  #server: Server | undefined;
  #aedes: Aedes | undefined;
  readonly #sockets = new Set<Socket>();

  async start(): Promise<void> {
    const aedes = await Aedes.createBroker();
    aedes.authorizePublish = (_client, packet, done) => {
      const { topic, payload, messageId } = packet as AedesPublishPacket & { messageId: number };
      this.seen.push({ topic, payload: payload.toString(), messageId });
      if (!this.withholding) done(null);
    };
    const server = createServer((socket) => {
      this.#sockets.add(socket);
      aedes.handle(socket);
    });
    server.listen(this.port, "127.0.0.1");
    await once(server, "listening");
    this.port = (server.address() as AddressInfo).port;
    this.#server = server;
    this.#aedes = aedes;
  }

  async die(): Promise<void> {
    const closed = this.#server && once(this.#server, "close");
    this.#server?.close();
    for (const socket of this.#sockets) socket.resetAndDestroy();
    this.#sockets.clear();
    await closed;
    await new Promise<void>((resolve) => this.#aedes?.close(() => resolve()) ?? resolve());
    this.#server = undefined;
    this.#aedes = undefined;
  }
}

async function makeSensors(t: TestContext, hz: number, count: number) {
  const folder = mkdtempSync(join(tmpdir(), "hw-sensors-"));
  const broker = new Broker();
  // One that nobody else is given while the broker is dead.
  [broker.port = 0] = await freePorts(1);
  await broker.start();
  const truth = new TruthFile(join(folder, "sensors.ndjson"));
  const anomalyTruth = new TruthFile(join(folder, "anomalies.ndjson"));
  truth.open();
  anomalyTruth.open();
  const anomalies = new AnomalyRecord(anomalyTruth);
  const sensors = new Sensors({
    url: `mqtt://127.0.0.1:${broker.port}`,
    count,
    hz,
    seed: 9,
    anomalySeconds: 5,
    truth,
    anomalies,
    numbers: new MessageNumbers(join(folder, "numbers.json")),
    clock: systemClock,
    log: silentLog,
  });
  t.after(async () => {
    await sensors.close();
    await broker.die();
    truth.close();
    anomalyTruth.close();
    rmSync(folder, { recursive: true, force: true });
  });
  const lines = (name: string) => {
    truth.flush();
    anomalies.close();
    anomalyTruth.flush();
    const text = readFileSync(join(folder, name), "utf8").trim();
    return text === "" ? [] : text.split("\n").map((line) => JSON.parse(line));
  };
  return { broker, sensors, lines };
}

/** By topic, the payloads in the order in which they came first. */
function firstTimes(seen: readonly Seen[]): Map<string, string[]> {
  const byTopic = new Map<string, string[]>();
  for (const { topic, payload } of seen) {
    const payloads = byTopic.get(topic) ?? [];
    if (!payloads.includes(payload)) payloads.push(payload);
    byTopic.set(topic, payloads);
  }
  return byTopic;
}

test("every acknowledged message is in the truth, in the order of its topic", async (t) => {
  const { broker, sensors, lines } = await makeSensors(t, 20, 6);
  sensors.start();
  await until(() => sensors.status().acknowledged > 200, "acknowledged messages");
  sensors.stopSending();
  await until(() => sensors.status().idle, "idle");
  const truth = lines("sensors.ndjson");
  assert.equal(truth.length, sensors.status().made);
  assert.equal(sensors.status().connected, 6);
  for (const [topic, payloads] of firstTimes(broker.seen)) {
    assert.deepEqual(
      truth.filter((line) => line.topic === topic).map((line) => line.payload),
      payloads,
    );
  }
  for (const line of truth) assert.ok(line.ackedUs > 0 && typeof (line.seq ?? line.value) === "number");
});

test("after a broker's death the unacknowledged message comes first, with its packet id, then the queue", async (t) => {
  const { broker, sensors, lines } = await makeSensors(t, 40, 3);
  sensors.start();
  await until(() => sensors.status().acknowledged > 30, "acknowledged messages");
  broker.withholding = true;
  const before = broker.seen.length;
  await until(() => broker.seen.length === before + 3, "one unacknowledged message of each sensor");
  const unacknowledged = broker.seen.slice(-3);
  await until(() => sensors.status().queued > 30, "a queue");
  assert.equal(broker.seen.length, before + 3, "no second message in flight");
  await broker.die();
  await until(() => sensors.status().connected === 0, "disconnected");
  const first = broker.seen.length;
  broker.withholding = false;
  await broker.start();
  await until(() => sensors.status().queued === 0, "the queue's end");
  sensors.stopSending();
  await until(() => sensors.status().idle, "idle");
  for (const message of unacknowledged) {
    const again = broker.seen.slice(first).find(({ topic }) => topic === message.topic);
    assert.deepEqual(again, message);
  }
  const truth = lines("sensors.ndjson");
  assert.equal(truth.length, sensors.status().made);
  for (const [topic, payloads] of firstTimes(broker.seen)) {
    assert.deepEqual(
      truth.filter((line) => line.topic === topic).map((line) => line.payload),
      payloads,
    );
  }
});

test("a broker that dies again while the message is sent again changes nothing", async (t) => {
  const { broker, sensors, lines } = await makeSensors(t, 40, 3);
  sensors.start();
  await until(() => sensors.status().acknowledged > 10, "acknowledged messages");
  for (let death = 0; death < 3; death++) {
    broker.withholding = true;
    await broker.die();
    await broker.start();
    const before = broker.seen.length;
    await until(() => broker.seen.length >= before + 3, "messages sent again");
  }
  await broker.die();
  broker.withholding = false;
  await broker.start();
  await until(() => sensors.status().queued === 0, "the queue's end");
  sensors.stopSending();
  await until(() => sensors.status().idle, "idle");
  const truth = lines("sensors.ndjson");
  assert.equal(truth.length, sensors.status().made);
  assert.equal(new Set(truth.map(({ topic, payload }) => `${topic} ${payload}`)).size, truth.length);
});

test("a silenced sensor says nothing, and the truth says when", async (t) => {
  const { broker, sensors, lines } = await makeSensors(t, 50, 3);
  sensors.start();
  await until(() => sensors.status().connected === 3, "connections");
  const fromUs = systemClock.nowUs();
  assert.equal(sensors.silence("air-barn", 4), true);
  assert.equal(sensors.silence("nobody", 1), false);
  const heard = () => broker.seen.filter(({ topic }) => topic === "tele/air-barn/SENSOR").length;
  // What it said before is on its way; at 50 a second nothing for a while is silence.
  let before = -1;
  while (before !== heard()) {
    before = heard();
    await pause(500);
  }
  // What was still on its way on a machine that stood still is no return.
  await until(() => systemClock.nowUs() > fromUs + 4_000_000, "the end of its silence");
  before = heard();
  await until(() => heard() > before, "the sensor's return");
  const silenced = lines("anomalies.ndjson").find(({ kind }) => kind === "silenced");
  assert.equal(silenced.sensor, "air-barn");
  // It begins and ends with the messages that were not sent; a machine that stood still made none.
  assert.ok(silenced.fromUs >= fromUs - 50_000 && silenced.toUs - silenced.fromUs > 1_500_000);
});
