import assert from "node:assert/strict";
import test from "node:test";
import { LogFile } from "../../../gateway/streams/stores/local/segments/log-file.ts";
import { LogFullError, type PublishColumns, PublishTooLateError } from "../../../gateway/streams/streams.ts";
import { forEachRecord } from "../../../protocol/record-batch.ts";
import { eventually } from "../../support/program.ts";
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

test("what DUP marks as a resend is stored once also on the connection on which it was sent before", async (t) => {
  const door = await openDoor(t);
  const client = await sensor(door);
  await client.acknowledged(1, TOPIC, "21.5");
  await client.acknowledged(1, TOPIC, "21.5", true);
  // Before the first is on disk, too.
  client.socket.cork();
  client.publish(2, TOPIC, "21.6");
  client.publish(2, TOPIC, "21.6", { dup: true });
  client.socket.uncork();
  await client.next();
  await client.next();
  for (const dup of [false, true]) {
    client.publish(3, TOPIC, "21.7", { qos: 2, dup });
    assert.equal((await client.next()).cmd, "pubrec");
  }
  // A new reading may be as an old one, and says so.
  await client.acknowledged(1, TOPIC, "21.5");
  assert.deepEqual(await stored(door.streams), ["21.5", "21.5", "21.6", "21.7"]);
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

test("a reading behind a DISCONNECT is new also while the disk is at work on the one before", async (t) => {
  const door = await openDoor(t);
  const syncs: Array<() => void> = [];
  const { datasync } = LogFile.prototype;
  const held = t.mock.method(LogFile.prototype, "datasync", async function (this: LogFile) {
    await new Promise<void>((resolve) => syncs.push(resolve));
    return datasync.call(this);
  });
  const latest = (): number =>
    door.streams.describe("sensors").shardList.reduce((sum, { latest }) => sum + latest, 0);
  const before = await sensor(door);
  before.publish(700, TOPIC, "21.5");
  await eventually("the first is written", 60_000, async () => syncs.length === 1 || undefined);
  // It does not wait for its PUBACK.
  await before.disconnect();
  await eventually("it is gone", 60_000, async () => !door.ingest.devices()[0]?.connected || undefined);
  syncs.shift()?.();
  await eventually("the first is stored", 60_000, async () => latest() === 1 || undefined);
  const after = await sensor(door);
  after.publish(700, TOPIC, "21.5");
  await eventually("the next write", 60_000, async () => syncs.length === 1 || undefined);
  held.mock.restore();
  syncs.shift()?.();
  assert.equal((await after.next()).cmd, "puback");
  assert.deepEqual(await stored(door.streams), ["21.5", "21.5"]);
});

test("what a gateway that ends has taken is answered before it closes, and nothing more is taken", async (t) => {
  const door = await openDoor(t);
  let release = (): void => {};
  const isHeld = new Promise<void>((resolve) => {
    release = resolve;
  });
  // Not the disk itself, for which a closing door waits no longer than two seconds.
  const held = t.mock.method(LogFile.prototype, "datasync", () => isHeld);
  const client = await sensor(door);
  for (let i = 0; i < 5; i++) client.publish(10 + i, TOPIC, String(i));
  await eventually("the write", 60_000, async () => held.mock.callCount() > 0 || undefined);
  const closed = door.ingest.close();
  client.publish(20, TOPIC, "late");
  setImmediate(release);
  for (let i = 0; i < 5; i++) assert.equal((await client.next()).messageId, 10 + i);
  await assert.rejects(client.next(), /ended/);
  await closed;
  assert.deepEqual(await stored(door.streams), ["0", "1", "2", "3", "4"]);
});

test("a gateway whose disk does not answer ends all the same", async (t) => {
  const door = await openDoor(t);
  const { datasync } = LogFile.prototype;
  let release = (): void => {};
  const isHeld = new Promise<void>((resolve) => {
    release = resolve;
  });
  t.mock.method(LogFile.prototype, "datasync", async function (this: LogFile) {
    await isHeld;
    return datasync.call(this);
  });
  const client = await sensor(door);
  client.publish(10, TOPIC, "1");
  await door.ingest.close();
  await assert.rejects(client.next(), /ended/);
  release();
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

test("what refuses one client's readings leaves those of others that came with them alone", async (t) => {
  let together = 0;
  let refuses = false;
  const door = await openDoor(t, {
    wrap: (real) =>
      new Proxy(real, {
        get(target, name) {
          if (name !== "appendPublishes") return Reflect.get(target, name)?.bind(target);
          return async (stream: string, publishes: PublishColumns) => {
            const ids = publishes.clientIds;
            if (new Set(ids).size === 2) together++;
            if (!refuses) return target.appendPublishes(stream, publishes);
            const outcomes = await target.appendPublishes(stream, publishes);
            // Those behind it may not be acknowledged either.
            const at = ids.indexOf("refused") + 1;
            return outcomes.map((one, i) => (i === at ? new PublishTooLateError(stream) : one));
          };
        },
      }),
  });
  const [refused, other] = [await sensor(door, "refused"), await sensor(door, "other")];
  // What a session says first is judged by itself.
  for (const client of [refused, other]) await client.acknowledged(1, TOPIC, "first");
  refuses = true;
  refused.socket.cork();
  for (let id = 2; id <= 4; id++) refused.publish(id, TOPIC, `refused ${id}`);
  refused.socket.uncork();
  other.publish(2, TOPIC, "other");
  assert.equal((await other.next()).messageId, 2);
  assert.equal((await refused.next()).messageId, 2);
  await assert.rejects(refused.next(), /the connection ended/, "acknowledged behind one that was refused");
  assert.equal(together, 1);
  refuses = false;
  await other.acknowledged(3, TOPIC, "other again");
  const again = await sensor(door, "refused");
  for (let id = 3; id <= 4; id++) await again.acknowledged(id, TOPIC, `refused ${id}`, true);
  assert.deepEqual(await stored(door.streams), [
    ...["first", "first", "other", "other again"],
    ...["refused 2", "refused 3", "refused 4"],
  ]);
});

test("what one stream lacked does not make another forget what it has", async (t) => {
  let full = true;
  let otherIsStored = (): void => {};
  const otherStored = new Promise<void>((resolve) => {
    otherIsStored = resolve;
  });
  const door = await openDoor(t, {
    rules: [
      { topic: "a", stream: "sensors" },
      { topic: "b", stream: "others" },
    ],
    wrap: (real) =>
      new Proxy(real, {
        get(target, name) {
          if (name !== "appendPublishes") return Reflect.get(target, name)?.bind(target);
          return async (stream: string, publishes: PublishColumns) => {
            // The one is refused after the other is stored, as by two disks.
            if (stream === "sensors" && full) {
              await otherStored;
              throw new LogFullError(stream);
            }
            const outcomes = await target.appendPublishes(stream, publishes);
            if (stream === "others") setImmediate(otherIsStored);
            return outcomes;
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

test("readings that come along with CONNECT are all stored, in their order", async (t) => {
  const door = await openDoor(t);
  const client = new RawSensor(door.port);
  client.socket.cork();
  client.hello("eager");
  for (let i = 0; i < 100; i++) client.publish(10 + i, TOPIC, String(1_000 + i));
  client.socket.uncork();
  assert.equal((await client.next()).cmd, "connack");
  for (let i = 0; i < 100; i++) assert.equal((await client.next()).cmd, "puback");
  assert.deepEqual(
    await stored(door.streams),
    Array.from({ length: 100 }, (_, i) => String(1_000 + i)),
  );
});

for (const farewell of ["DISCONNECT", "nothing"] as const) {
  test(`thousands of readings in one breath, and ${farewell} behind them, are all stored in their order`, async (t) => {
    const { port, streams } = await openDoor(t);
    const sensor = await new RawSensor(port).connect("hasty");
    const count = 10_000;
    sensor.socket.cork();
    for (let i = 0; i < count; i++) sensor.publish(0, TOPIC, `${i}`.padStart(5, "0"), { qos: 0 });
    if (farewell === "DISCONNECT") sensor.send({ cmd: "disconnect" });
    sensor.socket.uncork();
    sensor.socket.end();
    await sensor.ended;
    const appended = (): number =>
      streams.describe("sensors").shardList.reduce((sum, { appendedRecords }) => sum + appendedRecords, 0);
    await eventually("all of them", 60_000, async () => (appended() === count ? true : undefined));
    const { shardId } = streams
      .describe("sensors")
      .shardList.find(({ appendedRecords }) => appendedRecords > 0)!;
    const found: number[] = [];
    for (let at = 0; at < count; ) {
      const { parts, next } = await streams.read("sensors", shardId, at, 1_048_576);
      for (const part of parts)
        for (const run of part.runs)
          forEachRecord(run, (payload) => void found.push(Number(payload.toString())));
      at = next;
    }
    assert.deepEqual(
      found,
      Array.from({ length: count }, (_, i) => i),
    );
  });
}

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
