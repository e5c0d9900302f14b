import assert from "node:assert/strict";
import test from "node:test";
import { LogFullError, type PublishColumns } from "../../../gateway/streams/streams.ts";
import { type Door, openDoor, RawSensor, stored } from "./door.ts";

const TOPIC = "plant/a/temperature";

async function sensor(door: Door, clientId = "plain"): Promise<RawSensor> {
  return new RawSensor(door.port).connect(clientId);
}

test("a sensor that wakes, says the same as its first packet and loses its power is heard each time", async (t) => {
  const door = await openDoor(t);
  for (let wake = 0; wake < 3; wake++) {
    const client = await sensor(door);
    await client.acknowledged(1, TOPIC, "21.5");
    await client.acknowledged(2, TOPIC, "21.5");
    await client.vanish();
  }
  assert.deepEqual(await stored(door.streams), Array(6).fill("21.5"));
});

test("what DUP marks as a resend is stored once, also as the first packet", async (t) => {
  const door = await openDoor(t);
  const before = await sensor(door);
  await before.acknowledged(1, TOPIC, "21.5");
  await before.vanish();
  const after = await sensor(door);
  await after.acknowledged(1, TOPIC, "21.5", true);
  assert.deepEqual(await stored(door.streams), ["21.5"]);
});

test("after a DISCONNECT the same packet id and payload are a new reading", async (t) => {
  const door = await openDoor(t);
  for (let call = 0; call < 3; call++) {
    const client = await sensor(door);
    await client.acknowledged(700, TOPIC, "21.5");
    await client.disconnect();
  }
  assert.deepEqual(await stored(door.streams), ["21.5", "21.5", "21.5"]);
  assert.equal(door.streams.describe("sensors").producers, 0);
});

test("a session that outlives its connection may send again after a DISCONNECT", async (t) => {
  const door = await openDoor(t);
  for (let call = 0; call < 2; call++) {
    const client = await new RawSensor(door.port).connect("keeper", { clean: false });
    await client.acknowledged(700, TOPIC, "21.5");
    await client.disconnect();
  }
  assert.deepEqual(await stored(door.streams), ["21.5"]);
});

test("new readings that come in one piece are all new, even where one repeats an old packet", async (t) => {
  const door = await openDoor(t);
  const before = await sensor(door);
  await before.acknowledged(40, TOPIC, "on");
  await before.vanish();
  const after = await sensor(door);
  after.socket.cork();
  after.publish(39, TOPIC, "off");
  after.publish(40, TOPIC, "on");
  after.socket.uncork();
  await after.next();
  await after.next();
  assert.deepEqual(await stored(door.streams), ["off", "on", "on"]);
});

test("what one stream lacked does not make another forget what it has", async (t) => {
  let full = true;
  const door = await openDoor(t, {
    rules: [
      { topic: "a", stream: "sensors" },
      { topic: "b", stream: "others" },
    ],
    wrap: (real) =>
      new Proxy(real, {
        get(target, name) {
          if (name !== "appendPublishes") return Reflect.get(target, name).bind(target);
          return async (stream: string, publishes: PublishColumns) => {
            // The one is refused after the other is stored, as by two disks.
            if (stream === "sensors" && full) {
              await new Promise((resolve) => setTimeout(resolve, 100));
              throw new LogFullError(stream);
            }
            return target.appendPublishes(stream, publishes);
          };
        },
      }),
  });
  await door.streams.createStream({ name: "others", shards: 1, retentionHours: 24 });
  const before = await sensor(door);
  before.publish(11, "a", "1");
  before.publish(12, "b", "2");
  await before.ended;
  full = false;
  const after = await sensor(door);
  await after.acknowledged(11, "a", "1");
  await after.acknowledged(12, "b", "2");
  assert.deepEqual(await stored(door.streams), ["1"]);
  assert.deepEqual(await stored(door.streams, "others"), ["2"]);
});

test("a QoS 2 publish whose PUBREC got lost is stored once, and its handshake ends", async (t) => {
  const door = await openDoor(t);
  const before = await sensor(door);
  before.publish(30, TOPIC, "21.5", { qos: 2 });
  assert.equal((await before.next()).cmd, "pubrec");
  await before.vanish();
  const after = await sensor(door);
  after.publish(30, TOPIC, "21.5", { qos: 2, dup: true });
  assert.equal((await after.next()).cmd, "pubrec");
  after.send({ cmd: "pubrel", messageId: 30 });
  assert.equal((await after.next()).cmd, "pubcomp");
  await after.acknowledged(31, TOPIC, "21.6");
  assert.deepEqual(await stored(door.streams), ["21.5", "21.6"]);
});

test("QoS 0 readings do not push out what is remembered", async (t) => {
  const door = await openDoor(t);
  const before = await sensor(door);
  await before.acknowledged(30, TOPIC, "21.5");
  for (let i = 0; i < 100; i++) before.publish(0, TOPIC, "0", { qos: 0 });
  await before.acknowledged(31, TOPIC, "21.6");
  await before.vanish();
  const after = await sensor(door);
  await after.acknowledged(30, TOPIC, "21.5");
  await after.acknowledged(31, TOPIC, "21.6");
  assert.equal((await stored(door.streams)).length, 102);
});

test("a publish for a stream that was deleted is quarantined, and does not come again", async (t) => {
  const door = await openDoor(t);
  await door.streams.deleteStream("sensors");
  const client = await sensor(door);
  await client.acknowledged(9, TOPIC, "21.5");
  assert.match(door.ingest.quarantine().lastReason ?? "", /there is no stream sensors/);
});

test("nobody ends another's connection by a publish below $SYS", async (t) => {
  const door = await openDoor(t);
  const victim = await sensor(door, "victim");
  const villain = await sensor(door, "villain");
  await villain.acknowledged(9, "$SYS/another/new/clients", "victim");
  await villain.acknowledged(10, TOPIC, "1");
  await victim.acknowledged(9, TOPIC, "2");
  assert.deepEqual(await stored(door.streams), ["1", "2"]);
});

test("a will is no reading, and a client with an endless id is not let in", async (t) => {
  const door = await openDoor(t);
  const client = await new RawSensor(door.port).connect("mortal", {
    will: { topic: TOPIC, payload: Buffer.from("gone"), qos: 1, retain: false },
  });
  await client.vanish();
  await assert.rejects(new RawSensor(door.port).connect("x".repeat(60_000)), /ended/);
  const next = await sensor(door);
  await next.acknowledged(9, TOPIC, "1");
  assert.deepEqual(await stored(door.streams), ["1"]);
});
