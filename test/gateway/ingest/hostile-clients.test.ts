/** Clients that mean harm, or are broken: the memory, the log's disk and the others do not suffer by them. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, Socket } from "node:net";
import test from "node:test";
import mqttPacket from "mqtt-packet";
import { silentLog } from "../../../runtime/log.ts";
import { eventually } from "../../support/program.ts";
import { openDoor, RawSensor, stored } from "./door.ts";

const TOPIC = "plant/a/temperature";
const DEVICES = [
  { id: "pi-1", password: "correct horse" },
  { id: "pi-2", password: "battery staple" },
];

function as(device: (typeof DEVICES)[number]) {
  return { username: device.id, password: Buffer.from(device.password) };
}

test("who has not proven anything yet ends at the header of a large packet", async (t) => {
  const { port } = await openDoor(t);
  const socket = connect(port, "127.0.0.1");
  socket.on("error", () => {});
  // Also after an error, for which `once` of node:events would reject.
  const closed = new Promise((resolve) => socket.once("close", resolve));
  // CONNECT, of 70,000 bytes.
  socket.write(Buffer.from([0x10, 0xf0, 0xa2, 0x04]));
  await closed;
  const client = await new RawSensor(port).connect("patient", {
    will: { topic: "t", payload: Buffer.alloc(60_000), qos: 1, retain: false },
  });
  // Behind it a large packet is what anybody may send.
  await client.acknowledged(9, TOPIC, Buffer.alloc(200_000, 0x31));
});

test("a SUBSCRIBE of millions of topics ends its connection at its header", async (t) => {
  const { port } = await openDoor(t);
  const client = await new RawSensor(port).connect("curious");
  client.socket.write(Buffer.from([0x82, 0x80, 0x80, 0x80, 0x06]));
  await client.ended;
});

test("a client that is gone before it was let in is not said to be there", async (t) => {
  const { port, ingest } = await openDoor(t);
  for (let i = 0; i < 200; i++) {
    const socket = connect(port, "127.0.0.1");
    socket.on("error", () => {});
    socket.write(
      mqttPacket.generate({
        cmd: "connect",
        protocolId: "MQTT",
        protocolVersion: 4,
        clientId: `hasty-${i}`,
        clean: true,
        keepalive: 0,
      }),
    );
    socket.once("data", () => socket.destroy());
    await new Promise((resolve) => socket.once("close", resolve));
  }
  await eventually("nobody", 60_000, async () =>
    ingest.devices().some(({ connected }) => connected) ? undefined : true,
  );
});

test("a device cannot end another's connection by its client id, nor make its readings pass for known", async (t) => {
  const { port, streams } = await openDoor(t, { devices: DEVICES });
  const [one, two] = DEVICES as [(typeof DEVICES)[number], (typeof DEVICES)[number]];
  const honest = await new RawSensor(port).connect("sensor", as(one));
  await honest.acknowledged(20, TOPIC, "1");
  const other = await new RawSensor(port).connect("sensor", as(two));
  await other.acknowledged(20, TOPIC, "1");
  await other.disconnect();
  await honest.acknowledged(21, TOPIC, "2");
  await honest.vanish();
  const again = await new RawSensor(port).connect("sensor", as(one));
  await again.acknowledged(20, TOPIC, "1");
  await again.acknowledged(21, TOPIC, "2");
  assert.deepEqual(await stored(streams), ["1", "1", "2"]);
});

test("clients of one device that name no id are clients of their own", async (t) => {
  const { port } = await openDoor(t, { devices: DEVICES });
  const first = await new RawSensor(port).connect("", as(DEVICES[0]!));
  const second = await new RawSensor(port).connect("", as(DEVICES[0]!));
  await second.acknowledged(9, TOPIC, "1");
  await first.acknowledged(9, TOPIC, "1");
});

test("TCP asks for a client that is silent for long, as one without a keep-alive of its own may be gone", async (t) => {
  const setKeepAlive = t.mock.method(Socket.prototype, "setKeepAlive");
  const { port } = await openDoor(t);
  await new RawSensor(port).connect("silent");
  assert.deepEqual(
    setKeepAlive.mock.calls.map((call) => call.arguments),
    [[true, 60_000]],
  );
});

test("a connection for which there is no room is ended, counted and told of", async (t) => {
  const lines: string[] = [];
  const log = { ...silentLog, warn: (_: object, message: string) => void lines.push(message) };
  const { port, metrics } = await openDoor(t, { log, maxConnections: 1 });
  const first = await new RawSensor(port).connect("first");
  await new RawSensor(port).ended;
  await first.acknowledged(9, TOPIC, "1");
  assert.match(await metrics.render(), /headwater_ingest_refused_total\{reason="too many connections"\} 1/);
  assert.equal(lines.filter((line) => /too many/.test(line)).length, 1);
});

test("who has not been let in makes room for others, and who is in keeps it", async (t) => {
  const lines: string[] = [];
  const log = { ...silentLog, warn: (_: object, message: string) => void lines.push(message) };
  const { port, metrics } = await openDoor(t, { devices: DEVICES, log, maxConnections: 3 });
  const strangers = Array.from({ length: 3 }, () => new RawSensor(port));
  await Promise.all(strangers.map(({ socket }) => once(socket, "connect")));
  await eventually("all of them", 60_000, async () =>
    /^headwater_ingest_connections 3$/m.test(await metrics.render()) ? true : undefined,
  );
  const honest = [];
  for (let i = 0; i < 3; i++) {
    honest.push(await new RawSensor(port).connect(`honest-${i}`, as(DEVICES[0]!)));
    await strangers[i]!.ended;
  }
  // Nobody is left who could go.
  await new RawSensor(port).ended;
  for (const one of honest) await one.acknowledged(9, TOPIC, "1");
  assert.match(await metrics.render(), /headwater_ingest_refused_total\{reason="too many connections"\} 4/);
  assert.equal(lines.filter((line) => /too many/.test(line)).length, 4);
});

test("a device that opens all the connections that it can keeps no other out", async (t) => {
  const { port, metrics } = await openDoor(t, { devices: DEVICES, maxConnections: 8 });
  const many = [];
  for (let i = 0; i < 12; i++) many.push(await new RawSensor(port).connect(`many-${i}`, as(DEVICES[0]!)));
  const other = await new RawSensor(port).connect("one", as(DEVICES[1]!));
  await other.acknowledged(9, TOPIC, "1");
  // Those within its share keep their places, and so does the other.
  many.push(await new RawSensor(port).connect("another", as(DEVICES[0]!)));
  for (const kept of [...many.slice(0, 6), other]) await kept.acknowledged(10, TOPIC, "2");
  assert.match(await metrics.render(), /headwater_ingest_refused_total\{reason="too many connections"\} 6/);
});

test("what a device had beyond its share keeps its place when the device has less", async (t) => {
  const { port, metrics } = await openDoor(t, { devices: DEVICES, maxConnections: 8 });
  const many = [];
  for (let i = 0; i < 8; i++) many.push(await new RawSensor(port).connect(`many-${i}`, as(DEVICES[0]!)));
  for (const leaving of many.slice(0, 5)) await leaving.vanish();
  const connections = async (count: number) =>
    eventually(
      `${count} connections`,
      60_000,
      async () =>
        new RegExp(`^headwater_ingest_connections ${count}$`, "m").test(await metrics.render()) || undefined,
    );
  await connections(3);
  const strangers = Array.from({ length: 5 }, () => new RawSensor(port));
  await connections(8);
  const other = await new RawSensor(port).connect("one", as(DEVICES[1]!));
  await strangers[0]!.ended;
  for (const kept of [...many.slice(5), other]) await kept.acknowledged(9, TOPIC, "1");
});

test("thousands of wrong passwords are few lines in the log", async (t) => {
  const lines: string[] = [];
  const log = { ...silentLog, warn: (_: object, message: string) => void lines.push(message) };
  const { port, metrics } = await openDoor(t, { devices: DEVICES, log });
  for (let i = 0; i < 50; i++) {
    const guest = new RawSensor(port);
    guest.hello(`guest-${i}`, { username: "pi-1", password: Buffer.from(`wrong ${i}`) });
    assert.equal((await guest.next()).cmd, "connack");
    await guest.ended;
  }
  assert.equal(lines.filter((line) => /wrong password/.test(line)).length, 10);
  assert.match(await metrics.render(), /headwater_ingest_refused_total\{reason="credentials"\} 50/);
});
