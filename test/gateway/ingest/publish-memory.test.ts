/** However much devices send while the disk takes nothing, the door holds no more than it may, and all get their turn. */
import assert from "node:assert/strict";
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import type { Socket } from "node:net";
import test, { type TestContext } from "node:test";
import mqttPacket from "mqtt-packet";
import type { Streams } from "../../../gateway/streams/streams.ts";
import { type Door, openDoor, RawSensor } from "./door.ts";

const MIB = 1_048_576;
const LARGE = Buffer.alloc(1_000_000, 65);
const RULES = [
  { topic: "large/#", stream: "sensors" },
  { topic: "small/#", stream: "others" },
];

/** The sockets that doors get. */
function doorSockets(t: TestContext): Socket[] {
  const sockets: Socket[] = [];
  const onSocket = (message: unknown): void => void sockets.push((message as { socket: Socket }).socket);
  subscribe("net.server.socket", onSocket);
  t.after(() => unsubscribe("net.server.socket", onSocket));
  return sockets;
}

/** What has been read from the sockets that the door has. */
function readBytes(t: TestContext): () => number {
  const sockets = doorSockets(t);
  return () => sockets.reduce((sum, socket) => sum + (socket.bytesRead ?? 0), 0);
}

/** No publish to `sensors` is answered until it is let go. */
function heldStreams() {
  let letGo = (): void => {};
  const released = new Promise<void>((resolve) => {
    letGo = resolve;
  });
  const wrap = (streams: Streams): Streams =>
    new Proxy(streams, {
      get(target, name) {
        if (name === "appendPublishes") {
          return (...args: Parameters<Streams["appendPublishes"]>) => {
            const stored = target.appendPublishes(...args);
            return args[0] === "sensors" ? released.then(() => stored) : stored;
          };
        }
        const value = Reflect.get(target, name);
        return typeof value === "function" ? value.bind(target) : value;
      },
    });
  return { wrap, letGo };
}

async function metric({ metrics }: Door, name: string): Promise<number> {
  const text = await metrics.render();
  const line = text.split("\n").find((one) => one.startsWith(`${name} `) || one.startsWith(`${name}{`));
  return line === undefined ? 0 : Number(line.slice(line.lastIndexOf(" ") + 1));
}

/** Nothing more is read for a while. */
async function quiet(read: () => number): Promise<number> {
  for (;;) {
    const before = read();
    await new Promise((resolve) => setTimeout(resolve, 400));
    if (read() === before) return before;
  }
}

async function open(t: TestContext, options: Parameters<typeof openDoor>[1]): Promise<Door> {
  const door = await openDoor(t, { rules: RULES, ...options });
  await door.streams.createStream({ name: "others", shards: 1, retentionHours: 24 });
  return door;
}

async function sensors(t: TestContext, { port }: Door, count: number, name = "sensor"): Promise<RawSensor[]> {
  const all = await Promise.all(
    Array.from({ length: count }, (_, i) => new RawSensor(port).connect(`${name}-${i}`)),
  );
  t.after(() => Promise.all(all.map((sensor) => sensor.vanish())));
  return all;
}

for (const qos of [1, 2] as const) {
  test(`publishes of QoS ${qos} that nobody stores are read up to a bound, and then all are stored`, async (t) => {
    const { wrap, letGo } = heldStreams();
    const read = readBytes(t);
    const door = await open(t, { wrap, memory: { maxBytes: 64 * MIB } });
    const all = await sensors(t, door, 100);
    for (const sensor of all) sensor.publish(1, "large/a", LARGE, { qos });

    await eventually(async () => assert.equal(await metric(door, "headwater_ingest_held_up_total"), 1));
    const bytes = await quiet(read);
    assert.ok(bytes > 40 * MIB && bytes <= 64 * MIB, `${bytes} bytes were read`);
    // There is room for what is small.
    const other = await new RawSensor(door.port).connect("other");
    await other.acknowledged(1, "small/a", "1");
    await other.vanish();

    letGo();
    const answers = await Promise.all(all.map((sensor) => sensor.next()));
    assert.deepEqual(new Set(answers.map(({ cmd }) => cmd)), new Set([qos === 1 ? "puback" : "pubrec"]));
    assert.equal(await metric(door, 'headwater_ingest_held_bytes{state="waiting for the disk"}'), 0);
    assert.equal(await metric(door, 'headwater_ingest_held_bytes{state="coming in"}'), 0);
  });
}

test("where all memory is taken nobody is read on, whoever came first goes first, and all get their turn", async (t) => {
  const { wrap, letGo } = heldStreams();
  const read = readBytes(t);
  const sockets = doorSockets(t);
  const door = await open(t, { wrap, memory: { maxBytes: 8 * MIB } });
  const all = await sensors(t, door, 60);
  const small = await sensors(t, door, 60, "small");
  for (const sensor of all) sensor.publish(1, "large/a", LARGE);
  await eventually(async () => assert.equal(await metric(door, "headwater_ingest_held_up_total"), 1));
  // One read of each comes at once, at most.
  assert.ok((await quiet(read)) <= 24 * MIB, `${read()} bytes were read`);
  const taken = await metric(door, 'headwater_ingest_held_bytes{state="waiting for the disk"}');
  assert.ok(taken > 4 * MIB && taken < 9 * MIB, `${taken} bytes wait`);
  for (const sensor of small) sensor.publish(1, "large/b", "1");

  // What its connection held is another's.
  const before = read();
  const holders = sockets.filter(({ bytesRead }) => bytesRead > LARGE.length);
  assert.ok(holders.length >= 4 && holders.length <= 8, `${holders.length} hold something`);
  for (const socket of holders) socket.destroy();
  await eventually(async () => assert.ok(read() > before + MIB));

  letGo();
  const ends = [...all, ...small].map((sensor) =>
    Promise.race([sensor.next().then(({ cmd }) => cmd), sensor.ended.then(() => "ended")]),
  );
  const pubacks = (await Promise.allSettled(ends)).filter(
    (end) => end.status === "fulfilled" && end.value === "puback",
  );
  assert.equal(pubacks.length, ends.length - holders.length);
});

test("packets that never come to their end are ended when others wait for their memory, and hold no more", async (t) => {
  const read = readBytes(t);
  const door = await open(t, { memory: { maxBytes: 32 * MIB, roundMs: 300 } });
  const packet = (payload: Buffer) =>
    mqttPacket.generate({
      ...{ cmd: "publish", topic: "large/a", qos: 1, messageId: 1, dup: false, retain: false },
      payload,
    });
  const half = packet(Buffer.alloc(6 * MIB)).subarray(0, 5 * MIB);
  const all = await sensors(t, door, 12);
  for (const sensor of all) sensor.socket.write(half);
  await eventually(async () => assert.equal(await metric(door, "headwater_ingest_held_up_total"), 1));
  assert.ok((await metric(door, 'headwater_ingest_held_bytes{state="coming in"}')) <= 33 * MIB);
  assert.ok(read() <= 33 * MIB, `${read()} bytes were read`);

  const other = await new RawSensor(door.port).connect("other");
  await other.acknowledged(1, "small/a", "1");
  await other.acknowledged(2, "large/a", LARGE);
  assert.ok((await metric(door, 'headwater_ingest_refused_total{reason="packet too slow"}')) >= 2);
  await other.vanish();
});

async function eventually(holds: () => Promise<void>): Promise<void> {
  const deadlineMs = performance.now() + 60_000;
  for (;;) {
    try {
      return await holds();
    } catch (error) {
      if (performance.now() > deadlineMs) throw error;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}
