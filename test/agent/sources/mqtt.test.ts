import assert from "node:assert/strict";
import { once } from "node:events";
import { connect as connectTcp, type Socket } from "node:net";
import test, { type TestContext } from "node:test";
import mqtt from "mqtt";
import mqttPacket from "mqtt-packet";
import type { RecordBuffer } from "../../../agent/buffer/record-buffer.ts";
import { MqttSource } from "../../../agent/sources/mqtt.ts";
import { Backoff } from "../../../runtime/backoff.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { openBuffer, readAll, temporaryFolder, texts } from "../buffer/records/buffer-fixture.ts";

interface Record_ {
  sensor: string;
  value?: number;
  [key: string]: unknown;
}

async function source(
  t: TestContext,
  buffer: RecordBuffer,
  config: Partial<ConstructorParameters<typeof MqttSource>[0]["config"]> = {},
): Promise<MqttSource> {
  const made = new MqttSource({
    config: {
      type: "mqtt",
      name: "broker",
      host: "127.0.0.1",
      port: 0,
      stream: "sensors",
      topics: ["#"],
      users: [],
      ...config,
    },
    device: "pi-1",
    buffer,
    clock: systemClock,
    log: silentLog,
    metrics: new Metrics(),
    backoff: new Backoff(5, 20),
  });
  await made.start();
  t.after(() => made.close());
  return made;
}

async function records(buffer: RecordBuffer): Promise<Record_[]> {
  return texts(await readAll(buffer)).map((text) => JSON.parse(text) as Record_);
}

/** A 3.1.1 client that sends exactly what it is told, and never acknowledges on its own. */
class RawClient {
  readonly socket: Socket;
  readonly #packets: mqttPacket.Packet[] = [];
  #wake = (): void => {};

  constructor(port: number) {
    this.socket = connectTcp(port, "127.0.0.1");
    const parser = mqttPacket.parser();
    parser.on("packet", (packet) => {
      this.#packets.push(packet);
      this.#wake();
    });
    this.socket.on("data", (bytes) => parser.parse(bytes));
    this.socket.on("error", () => {});
  }

  async connect(clientId: string): Promise<this> {
    this.send({
      cmd: "connect",
      protocolId: "MQTT",
      protocolVersion: 4,
      clientId,
      clean: true,
      keepalive: 0,
    });
    assert.equal((await this.next()).cmd, "connack");
    return this;
  }

  send(packet: mqttPacket.Packet): void {
    this.socket.write(mqttPacket.generate(packet));
  }

  publish(messageId: number, topic: string, payload: string): void {
    this.send({ cmd: "publish", topic, payload, qos: 1, messageId, dup: false, retain: false });
  }

  async next(): Promise<mqttPacket.Packet> {
    while (this.#packets.length === 0) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    return this.#packets.shift()!;
  }

  async acknowledged(messageId: number): Promise<void> {
    const packet = await this.next();
    assert.deepEqual([packet.cmd, packet.messageId], ["puback", messageId]);
  }

  async break(): Promise<void> {
    this.socket.destroy();
    await once(this.socket, "close");
  }
}

test("what a sensor got acknowledged is in the buffer, in its format", async (t) => {
  const buffer = await openBuffer(await temporaryFolder(t));
  const broker = await source(t, buffer);
  const client = await mqtt.connectAsync(`mqtt://127.0.0.1:${broker.port}`, { clientId: "s1" });
  const time = new Date().toISOString();
  await client.publishAsync("farm/barn/water", "1000.017", { qos: 1 });
  await client.publishAsync("tele/shed/SENSOR", `{"Time":"${time}","AM2301":{"Temperature":21.5},"Seq":4}`, {
    qos: 1,
  });
  await client.publishAsync("zigbee2mqtt/hall", `{"temperature":19,"last_seen":"${time}"}`, {
    qos: 1,
    retain: true,
  });
  await client.publishAsync("any/topic", `{"a":1,"device":"liar"}`, { qos: 1 });
  await client.publishAsync("tele/shed/LWT", "Online", { qos: 1 });
  await client.publishAsync("stat/shed/RESULT", "hello", { qos: 1 });
  const stored = await records(buffer);
  assert.deepEqual(
    stored.map(({ time: _, ...rest }) => rest),
    [
      { device: "pi-1", sensor: "farm/barn/water", value: 1000.017 },
      { device: "pi-1", sensor: "shed", temperature: 21.5, Seq: 4 },
      { device: "pi-1", sensor: "hall", temperature: 19 },
      { device: "pi-1", sensor: "any/topic", a: 1, reported_device: "liar" },
      { device: "pi-1", sensor: "shed", online: true },
      {
        device: "pi-1",
        sensor: "stat/shed/RESULT",
        reason: stored[5]!.reason,
        raw: Buffer.from("hello").toString("base64"),
      },
    ],
  );
  assert.equal(stored[1]!.time, time);
  assert.equal(broker.status().rejected, 1);
  assert.equal(broker.status().records, 6);
  await client.endAsync();
  await broker.close();
  await buffer.close();
});

test("a publish sent again after a broken connection is stored once", async (t) => {
  const buffer = await openBuffer(await temporaryFolder(t));
  const broker = await source(t, buffer);
  const first = await new RawClient(broker.port).connect("s1");
  for (const id of [1, 2, 3]) first.publish(id, "a/b", String(id));
  for (const id of [1, 2, 3]) await first.acknowledged(id);
  await first.break();
  const second = await new RawClient(broker.port).connect("s1");
  second.publish(2, "a/b", "2");
  second.publish(3, "a/b", "3");
  second.publish(4, "a/b", "4");
  second.publish(3, "a/b", "3");
  for (const id of [2, 3, 4, 3]) await second.acknowledged(id);
  assert.deepEqual(
    (await records(buffer)).map((record) => record.value),
    [1, 2, 3, 4, 3],
  );
  await second.break();
  await broker.close();
  await buffer.close();
});

test("a publish sent again after the agent was started anew is stored once", async (t) => {
  const dir = await temporaryFolder(t);
  const before = await openBuffer(dir);
  const old = await source(t, before);
  const first = await new RawClient(old.port).connect("s1");
  first.publish(7, "a/b", "1");
  await first.acknowledged(7);
  await old.close();
  await before.close();
  const after = await openBuffer(dir);
  const fresh = await source(t, after);
  const second = await new RawClient(fresh.port).connect("s1");
  second.publish(7, "a/b", "1");
  second.publish(8, "a/b", "2");
  await second.acknowledged(7);
  await second.acknowledged(8);
  // Another client may use the same id for the same payload.
  const other = await new RawClient(fresh.port).connect("s2");
  other.publish(7, "a/b", "1");
  await other.acknowledged(7);
  assert.deepEqual(
    (await records(after)).map((record) => record.value),
    [1, 2, 1],
  );
  await second.break();
  await other.break();
  await fresh.close();
  await after.close();
});

test("after a clean DISCONNECT the same publish is a new one", async (t) => {
  const buffer = await openBuffer(await temporaryFolder(t));
  const broker = await source(t, buffer);
  for (let round = 0; round < 2; round++) {
    const client = await new RawClient(broker.port).connect("s1");
    client.publish(1, "a/b", "5");
    await client.acknowledged(1);
    client.send({ cmd: "disconnect" });
    await once(client.socket, "close");
  }
  assert.equal((await records(buffer)).length, 2);
  await broker.close();
  await buffer.close();
});

test("while the buffer is full PUBACK is withheld, and what is sent again meanwhile is stored once", async (t) => {
  const buffer = await openBuffer(await temporaryFolder(t), { maxBytes: 3_000 });
  const broker = await source(t, buffer);
  const big = JSON.stringify({ text: "x".repeat(2_000) });
  const first = await new RawClient(broker.port).connect("s1");
  first.publish(1, "a/b", big);
  await first.acknowledged(1);
  first.publish(2, "a/b", big);
  const second = await new RawClient(broker.port).connect("s1");
  second.publish(2, "a/b", big);
  const [frame] = await buffer.read(undefined, 1);
  await buffer.ack(frame!.epoch, frame!.sequence);
  await second.acknowledged(2);
  assert.equal((await records(buffer)).length, 1);
  await second.break();
  await broker.close();
  await buffer.close();
});

test("a buffer that rejects withholds PUBACK and ends the connection, keeping order", async (t) => {
  const buffer = await openBuffer(await temporaryFolder(t), { maxBytes: 3_000, whenFull: "reject" });
  const broker = await source(t, buffer);
  const client = await new RawClient(broker.port).connect("s1");
  client.publish(1, "a/b", JSON.stringify({ text: "x".repeat(2_000) }));
  await client.acknowledged(1);
  client.publish(2, "a/b", JSON.stringify({ text: "x".repeat(2_000) }));
  client.publish(3, "a/b", "3");
  await once(client.socket, "close");
  assert.equal((await records(buffer)).length, 1);
  await broker.close();
  await buffer.close();
});

test("only listed users and wanted topics get in", async (t) => {
  const buffer = await openBuffer(await temporaryFolder(t));
  const broker = await source(t, buffer, {
    users: [{ username: "shed", password: "secret-password" }],
    topics: ["farm/+/temperature"],
  });
  const address = `mqtt://127.0.0.1:${broker.port}`;
  await assert.rejects(
    mqtt.connectAsync(address, { username: "shed", password: "wrong-password", reconnectPeriod: 0 }),
  );
  const client = await mqtt.connectAsync(address, { username: "shed", password: "secret-password" });
  await client.publishAsync("farm/barn/temperature", "20", { qos: 1 });
  await client.publishAsync("farm/barn/humidity", "50", { qos: 1 });
  await client.publishAsync("$SYS/x/new/clients", client.options.clientId!, { qos: 1 });
  assert.deepEqual(
    (await records(buffer)).map((record) => record.sensor),
    ["farm/barn/temperature"],
  );
  await client.endAsync();
  await broker.close();
  await buffer.close();
});

test("a sensor that wakes, says the same as its first packet and loses its power is heard each time", async (t) => {
  const buffer = await openBuffer(await temporaryFolder(t));
  const made = await source(t, buffer);
  for (let wake = 0; wake < 3; wake++) {
    const client = await new RawClient(made.port).connect("sleepy");
    client.publish(1, "farm/door", "0");
    assert.equal((await client.next()).cmd, "puback");
    client.socket.destroy();
    await once(client.socket, "close");
  }
  assert.equal((await records(buffer)).length, 3);
  const again = await new RawClient(made.port).connect("sleepy");
  again.send({
    cmd: "publish",
    topic: "farm/door",
    payload: "0",
    qos: 1,
    messageId: 1,
    dup: true,
    retain: false,
  });
  assert.equal((await again.next()).cmd, "puback");
  assert.equal((await records(buffer)).length, 3, "DUP says that it is a resend");
  again.socket.destroy();
  await made.close();
  await buffer.close();
});

for (const clientId of ["impatient", ""]) {
  const who = clientId === "" ? "a client without an id" : "a client";
  test(`${who} that sends again on the same connection, with DUP, is stored once`, async (t) => {
    const buffer = await openBuffer(await temporaryFolder(t));
    const made = await source(t, buffer);
    const client = await new RawClient(made.port).connect(clientId);
    const again = (messageId: number, payload: string): void =>
      client.send({
        cmd: "publish",
        topic: "farm/gate",
        payload,
        qos: 1,
        messageId,
        dup: true,
        retain: false,
      });
    // The second goes out before the first is answered.
    client.publish(1, "farm/gate", "0");
    again(1, "0");
    for (const id of [1, 1]) await client.acknowledged(id);
    client.publish(2, "farm/gate", "1");
    await client.acknowledged(2);
    again(1, "0");
    again(2, "1");
    // Never seen before, whatever DUP says; and the same reading under a number of its own.
    again(3, "2");
    client.publish(4, "farm/gate", "2");
    for (const id of [1, 2, 3, 4]) await client.acknowledged(id);
    assert.deepEqual(
      (await records(buffer)).map(({ value }) => value),
      [0, 1, 2, 2],
    );
    await client.break();
    await made.close();
    await buffer.close();
  });
}

test("a SenML pack is several records of one commit, and is stored once when it is sent again", async (t) => {
  const buffer = await openBuffer(await temporaryFolder(t));
  const made = await source(t, buffer);
  const pack = '[{"bn":"urn:dev:1:","n":"t","v":1},{"n":"h","v":2},{"n":"p","v":3}]';
  const first = await new RawClient(made.port).connect("s1");
  first.publish(1, "any", "5");
  first.publish(2, "any", pack);
  for (const id of [1, 2]) await first.acknowledged(id);
  await first.break();
  const second = await new RawClient(made.port).connect("s1");
  second.publish(2, "any", pack);
  await second.acknowledged(2);
  assert.deepEqual(
    (await records(buffer)).map(({ sensor, value }) => [sensor, value]),
    [
      ["any", 5],
      ["urn:dev:1:t", 1],
      ["urn:dev:1:h", 2],
      ["urn:dev:1:p", 3],
    ],
  );
  await second.break();
  await made.close();
  await buffer.close();
});

test("what devices said of their values is known after a restart", async (t) => {
  const folder = await temporaryFolder(t);
  const before = await openBuffer(folder);
  const old = await source(t, before);
  const announcing = await mqtt.connectAsync(`mqtt://127.0.0.1:${old.port}`);
  const config = '{"state_topic":"farm/t","unit_of_measurement":"°C"}';
  await announcing.publishAsync("homeassistant/sensor/t/config", config, { qos: 1 });
  await announcing.publishAsync("homeassistant/sensor/gone/config", config.replace("farm/t", "farm/gone"), {
    qos: 1,
  });
  await announcing.publishAsync("homeassistant/sensor/gone/config", "", { qos: 1 });
  await announcing.endAsync();
  await old.close();
  await before.close();
  const after = await openBuffer(folder);
  const fresh = await source(t, after);
  const client = await mqtt.connectAsync(`mqtt://127.0.0.1:${fresh.port}`);
  await client.publishAsync("farm/t", "21.5", { qos: 1 });
  await client.publishAsync("farm/gone", "1", { qos: 1 });
  const [known, gone] = (await records(after)).slice(-2);
  assert.deepEqual([known!.value, known!.unit, gone!.unit], [21.5, "°C", undefined]);
  await client.endAsync();
  await fresh.close();
  await after.close();
});

test("a filter keeps the order, and what it leaves out is acknowledged", async (t) => {
  const buffer = await openBuffer(await temporaryFolder(t));
  const filter = { javascript: "record.value % 2 === 0", timeoutMs: 30_000, maxBytes: 1_000, memoryMiB: 16 };
  const made = await source(t, buffer, { shape: { filter: { ...filter, onError: "keep" } } });
  const client = await new RawClient(made.port).connect("s1");
  for (let id = 1; id <= 40; id++) client.publish(id, "n", String(id));
  for (let id = 1; id <= 40; id++) await client.acknowledged(id);
  assert.deepEqual(
    (await records(buffer)).map(({ value }) => value),
    Array.from({ length: 20 }, (_, i) => 2 * i + 2),
  );
  assert.equal(made.status().leftOut, 20);
  await client.break();
  await made.close();
  await buffer.close();
});

test("a reading that the full buffer refused passes the deadband when it comes again", async (t) => {
  const buffer = await openBuffer(await temporaryFolder(t), { maxBytes: 3_000, whenFull: "reject" });
  const made = await source(t, buffer, {
    shape: { deadband: { fields: { value: 1 }, maxSilenceSeconds: 600 } },
  });
  const first = await new RawClient(made.port).connect("s1");
  first.publish(1, "pad", JSON.stringify({ text: "x".repeat(2_700) }));
  await first.acknowledged(1);
  first.publish(2, "t", JSON.stringify({ value: 20, pad: "x".repeat(400) }));
  await once(first.socket, "close");
  const [frame] = await buffer.read(undefined, 1);
  await buffer.ack(frame!.epoch, frame!.sequence);
  const second = await new RawClient(made.port).connect("s1");
  second.publish(2, "t", JSON.stringify({ value: 20, pad: "x".repeat(400) }));
  second.publish(3, "t", JSON.stringify({ value: 20.5 }));
  for (const id of [2, 3]) await second.acknowledged(id);
  assert.deepEqual(
    (await records(buffer)).map(({ value }) => value),
    [20],
  );
  await second.break();
  await made.close();
  await buffer.close();
});

test("a port that is taken is listened on when it is free", async (t) => {
  const buffer = await openBuffer(await temporaryFolder(t));
  const holder = await source(t, buffer);
  const { port } = holder;
  const second = await source(t, buffer, { name: "second", port });
  assert.equal(second.status().health, "backing-off");
  assert.match(second.status().lastError ?? "", /PORT_BUSY/);
  await holder.close();
  while (second.status().health !== "running") await new Promise((resolve) => setTimeout(resolve, 5));
  const client = await new RawClient(port).connect("s1");
  await client.break();
  await second.close();
  await buffer.close();
});

test("a reading that becomes too large for a record is accounted for, and not sent again for ever", {
  timeout: 60_000,
}, async (t) => {
  const buffer = await openBuffer(await temporaryFolder(t));
  const broker = await source(t, buffer);
  const client = await mqtt.connectAsync(`mqtt://127.0.0.1:${broker.port}`, { reconnectPeriod: 0 });
  // Written again each of them has 21 digits.
  const payload = `{"a":[${"1e20,".repeat(52_000)}0]}`;
  await client.publishAsync("sly", payload, { qos: 1 });
  await client.publishAsync("after", "1", { qos: 1 });
  const [sly, after] = await records(buffer);
  assert.match(String(sly!.reason), /too large|bytes/);
  assert.ok(Number(sly!.bytes) > 1_048_576 && payload.length <= 262_144);
  assert.equal(after!.value, 1);
  await client.endAsync();
});

test("a subscriber that does not read holds up nobody else for long", { timeout: 240_000 }, async (t) => {
  const buffer = await openBuffer(await temporaryFolder(t), { whenFull: "drop-oldest" });
  const broker = await source(t, buffer);
  const slow = await new RawClient(broker.port).connect("slow");
  t.after(() => slow.socket.destroy());
  slow.send({ cmd: "subscribe", messageId: 1, subscriptions: [{ topic: "#", qos: 0 }] });
  assert.equal((await slow.next()).cmd, "suback");
  slow.socket.pause();
  const client = await mqtt.connectAsync(`mqtt://127.0.0.1:${broker.port}`, { reconnectPeriod: 0 });
  const payload = JSON.stringify({ a: "x".repeat(200_000) });
  for (let i = 0; i < 500; i++) await client.publishAsync("a", payload, { qos: 1 });
  await client.endAsync();
  assert.match(broker.status().lastError ?? "", /does not read/);
});

test("a client with overlong topics leaves no memory of each of them", { timeout: 60_000 }, async (t) => {
  const buffer = await openBuffer(await temporaryFolder(t));
  const broker = await source(t, buffer);
  const client = await mqtt.connectAsync(`mqtt://127.0.0.1:${broker.port}`);
  const long = "x".repeat(30_000);
  await client.publishAsync(`homeassistant/sensor/${long}/config`, '{"stat_t":"a","unit_of_meas":"C"}', {
    qos: 1,
  });
  await client.publishAsync(`spBv1.0/${long}/NBIRTH/node`, "", { qos: 1 });
  assert.deepEqual(await buffer.marks("discovery/"), []);
  const stored = await records(buffer);
  assert.equal(stored.length, 2);
  for (const { reason } of stored) assert.match(String(reason), /topic/);
  await client.endAsync();
});

test("what one client announces of itself takes little memory, however much it says", async (t) => {
  const buffer = await openBuffer(await temporaryFolder(t));
  const broker = await source(t, buffer);
  const client = await mqtt.connectAsync(`mqtt://127.0.0.1:${broker.port}`);
  const config = {
    state_topic: "ä".repeat(400),
    name: "ä".repeat(400),
    unit_of_measurement: "ä".repeat(400),
  };
  await client.publishAsync(`homeassistant/sensor/${"ä".repeat(900)}/config`, JSON.stringify(config), {
    qos: 1,
  });
  await client.publishAsync("homeassistant/sensor/small/config", '{"stat_t":"s","unit_of_meas":"C"}', {
    qos: 1,
  });
  await client.publishAsync("s", "1", { qos: 1 });
  let bytes = 0;
  for (const name of await buffer.marks("discovery/"))
    bytes += name.length + (await buffer.mark(name))!.length;
  assert.ok(bytes > 0 && bytes < 1_000, `${bytes} bytes of marks`);
  const all = await records(buffer);
  assert.equal(all.length, 3);
  assert.equal(all[2]!.unit, "C");
  await client.endAsync();
});

test("strangers who connect and say nothing keep no sensor out, and none that is in", {
  timeout: 180_000,
}, async (t) => {
  const buffer = await openBuffer(await temporaryFolder(t));
  const broker = await source(t, buffer);
  const sensor = await mqtt.connectAsync(`mqtt://127.0.0.1:${broker.port}`, { reconnectPeriod: 0 });
  const strangers: Socket[] = [];
  t.after(() => {
    for (const socket of strangers) socket.destroy();
  });
  for (let i = 0; i < 2_300; i++) {
    const socket = connectTcp(broker.port, "127.0.0.1");
    socket.on("error", () => {});
    strangers.push(socket);
    if (i % 100 === 99) await once(socket, "connect");
  }
  const other = await mqtt.connectAsync(`mqtt://127.0.0.1:${broker.port}`, {
    reconnectPeriod: 0,
    connectTimeout: 60_000,
  });
  await other.publishAsync("b", "2", { qos: 1 });
  await sensor.publishAsync("a", "1", { qos: 1 });
  assert.equal((await records(buffer)).length, 2);
  await Promise.all([sensor.endAsync(), other.endAsync()]);
});
