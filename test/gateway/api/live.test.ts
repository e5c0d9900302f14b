/** What is watched live: readings within a second of being stored, and a camera's pictures. */
import assert from "node:assert/strict";
import { on, once } from "node:events";
import test, { type TestContext } from "node:test";
import fc from "fast-check";
import { WebSocket } from "ws";
import { readingOf } from "../../../gateway/api/console/reading.ts";
import { decodeFrame, encodeFrame } from "../../../protocol/frame.ts";
import { encodeBatch } from "../../../protocol/record-batch.ts";
import { type Fixture, KEY, openFixture, StillClock } from "./api-fixture.ts";

async function open(t: TestContext, clock?: StillClock): Promise<{ fixture: Fixture; cookie: string }> {
  const fixture = await openFixture(clock === undefined ? {} : { clock });
  t.after(() => fixture.close());
  await fixture.streams.createStream({ name: "s", shards: 2, retentionHours: 24 });
  const answer = await fetch(`${fixture.origin}/api/session`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ accessKeyId: KEY.id, secretAccessKey: KEY.secret }),
  });
  return { fixture, cookie: answer.headers.get("set-cookie")!.split(";")[0]! };
}

function socketTo(fixture: Fixture, path: string, headers: Record<string, string>): WebSocket {
  return new WebSocket(`ws://127.0.0.1:${fixture.port}${path}`, { headers });
}

/** The status with which an upgrade was refused. */
async function refusal(fixture: Fixture, path: string, headers: Record<string, string>): Promise<number> {
  const socket = socketTo(fixture, path, headers);
  socket.on("error", () => {});
  const [, answer] = (await once(socket, "unexpected-response")) as [unknown, { statusCode: number }];
  socket.terminate();
  return answer.statusCode;
}

async function json(fixture: Fixture, cookie: string, path: string): Promise<unknown> {
  const answer = await fetch(`${fixture.origin}${path}`, { headers: { cookie } });
  assert.equal(answer.status, 200);
  return answer.json();
}

let sequence = 0n;
/** As an agent sends it: a frame whose records carry their own time. */
async function store(fixture: Fixture, key: string, timeUs: number, fields: object): Promise<void> {
  const payload = Buffer.from(
    JSON.stringify({ device: "d", sensor: key, time: "2026-01-01T00:00:00Z", ...fields }),
  );
  const head = {
    device: "d",
    stream: "s",
    epoch: 7n,
    epochStart: 1,
    sequence: ++sequence,
    storedUs: timeUs,
    recordCount: 1,
    timeSource: "system",
  } as const;
  await fixture.streams.appendFrame(decodeFrame(encodeFrame(head, encodeBatch([{ key, timeUs, payload }]))));
}

/** The gateway begins to follow a stream some time after it has opened the socket. */
async function untilWatched(fixture: Fixture, socket: WebSocket, key: string): Promise<void> {
  let heard = false;
  socket.once("message", () => {
    heard = true;
  });
  while (!heard) {
    await store(fixture, key, Date.now() * 1000, { warmUp: 1 });
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

test("a stored reading reaches a watcher within a second, and only that sensor's", async (t) => {
  const { fixture, cookie } = await open(t);
  const socket = socketTo(fixture, "/api/live/readings?stream=s&key=d%2Fbarn", {
    cookie,
    origin: fixture.origin,
  });
  // A message may come before the store has told that it has the reading.
  const messages = on(socket, "message");
  const next = async (): Promise<object[]> => {
    const rows: object[] = JSON.parse(((await messages.next()).value as [Buffer])[0].toString());
    return rows.filter((row) => !JSON.stringify(row).includes("warmUp"));
  };
  await once(socket, "open");
  await untilWatched(fixture, socket, "d/barn");
  const delays: number[] = [];
  for (let n = 0; n < 10; n++) {
    const timeUs = Date.now() * 1000;
    await store(fixture, "d/other", timeUs, { temperature: -1 });
    await store(fixture, "d/barn", timeUs, { temperature: n, label: "text" });
    const storedMs = performance.now();
    let rows = await next();
    while (rows.length === 0) rows = await next();
    delays.push(performance.now() - storedMs);
    assert.deepEqual(rows, [{ timeUs, values: { temperature: n } }]);
  }
  // Some 45 ms each; not all of them, as a busy machine may hold up some.
  const median = delays.sort((a, b) => a - b)[5]!;
  assert.ok(median < 1_000, `half of them took ${median} ms and more`);
  t.diagnostic(`slowest of 10: ${Math.round(delays.at(-1)!)} ms`);
  socket.close();
});

test("history and live readings join up, whatever was put by whom", async (t) => {
  // The last question is for one second: no more goes by, however slow the disk is.
  const clock = new StillClock();
  const { fixture, cookie } = await open(t, clock);
  const nowUs = Math.floor(clock.nowUs());
  await store(fixture, "d/barn", nowUs - 2_000_000, { temperature: 1.5, humidity: 40 });
  await store(fixture, "d/barn", nowUs - 1_000_000, { temperature: 2.5 });
  await fixture.streams.append("s", [
    { partitionKey: "put", data: Buffer.from('{"__proto__":3,"a":1}') },
    { partitionKey: "bare", data: Buffer.from("17.5") },
    { partitionKey: "bytes", data: Buffer.from([0, 255, 1]) },
  ]);
  const sensors = (await json(fixture, cookie, "/api/sensors?stream=s")) as {
    key: string;
    fields: string[];
    lastUs: number;
    lastValues: Record<string, number>;
  }[];
  assert.deepEqual(
    sensors.map(({ key, fields }) => [key, fields]),
    [
      ["bare", ["value"]],
      ["d/barn", ["humidity", "temperature"]],
      ["put", ["__proto__", "a"]],
    ],
  );
  assert.equal(sensors[1]!.lastUs, nowUs - 1_000_000);
  assert.deepEqual(sensors[1]!.lastValues, { temperature: 2.5, humidity: 40 });
  const readings = await json(fixture, cookie, "/api/readings?stream=s&key=d%2Fbarn&seconds=300");
  assert.deepEqual(readings, {
    rows: [
      { timeUs: nowUs - 2_000_000, values: { temperature: 1.5, humidity: 40 } },
      { timeUs: nowUs - 1_000_000, values: { temperature: 2.5 } },
    ],
  });
  await store(fixture, "d/barn", nowUs, { temperature: 3.5 });
  const { rows } = (await json(fixture, cookie, "/api/readings?stream=s&key=d%2Fbarn&seconds=1")) as {
    rows: { values: object }[];
  };
  assert.deepEqual(rows.at(-1)?.values, { temperature: 3.5 });
});

test("a key's history is bounded however much is stored", async (t) => {
  const { fixture, cookie } = await open(t);
  for (let batch = 0; batch < 14; batch++) {
    const entries = Array.from({ length: 500 }, (_, i) => ({
      partitionKey: "k",
      data: Buffer.from(`{"n":${batch * 500 + i}}`),
    }));
    await fixture.streams.append("s", entries);
  }
  const { rows } = (await json(fixture, cookie, "/api/readings?stream=s&key=k&seconds=300")) as {
    rows: { values: { n: number } }[];
  };
  assert.equal(rows.length, 5_000);
  assert.equal(rows.at(-1)!.values.n, 6_999);
});

test("while nobody looks, nothing is read", async (t) => {
  const { fixture, cookie } = await open(t);
  const read = t.mock.method(fixture.streams, "read");
  const waits = t.mock.method(fixture.streams, "appended");
  await store(fixture, "d/barn", Date.now() * 1000, { temperature: 1 });
  const socket = socketTo(fixture, "/api/live/readings?stream=s&key=d%2Fbarn", { cookie });
  await once(socket, "open");
  await untilWatched(fixture, socket, "d/barn");
  assert.ok(read.mock.callCount() > 0);
  socket.close();
  await once(socket, "close");
  // Until the gateway has noticed, and has read what it was about to read.
  const waiting = (): boolean => waits.mock.calls.some(({ arguments: [, , , signal] }) => !signal?.aborted);
  while (waiting()) await new Promise((resolve) => setTimeout(resolve, 10));
  let calls = -1;
  while (calls !== read.mock.callCount()) {
    calls = read.mock.callCount();
    await Promise.allSettled(read.mock.calls.map(({ result }) => result));
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  await store(fixture, "d/barn", Date.now() * 1000, { temperature: 3 });
  await new Promise((resolve) => setTimeout(resolve, 100));
  assert.equal(read.mock.callCount(), calls);
});

test("live sockets need a session, our own Origin and something to watch", async (t) => {
  const { fixture, cookie } = await open(t);
  const readings = "/api/live/readings?stream=s&key=k";
  assert.equal(await refusal(fixture, readings, {}), 401);
  assert.equal(await refusal(fixture, readings, { cookie, origin: "http://evil.example" }), 403);
  assert.equal(await refusal(fixture, readings, { cookie, host: "evil.example" }), 403);
  assert.equal(await refusal(fixture, "/api/live/readings?stream=none&key=k", { cookie }), 404);
  assert.equal(await refusal(fixture, "/api/live/readings?stream=s", { cookie }), 400);
  assert.equal(await refusal(fixture, "/api/live/camera/..%2Fx", { cookie }), 404);
  assert.equal(await refusal(fixture, "/other", { cookie }), 404);
});

test("a watcher is told when its stream is deleted", async (t) => {
  const { fixture, cookie } = await open(t);
  const socket = socketTo(fixture, "/api/live/readings?stream=s&key=k", { cookie });
  await once(socket, "open");
  await new Promise((resolve) => setTimeout(resolve, 50));
  const closed = once(socket, "close");
  await fixture.streams.deleteStream("s");
  const [code] = (await closed) as [number];
  assert.equal(code, 4404);
});

test("a camera's viewer gets the init segment, then pictures with their time", async (t) => {
  const { fixture, cookie } = await open(t);
  const socket = socketTo(fixture, "/api/live/camera/gate", { cookie, origin: fixture.origin });
  const messages: { data: Buffer; isBinary: boolean }[] = [];
  const three = new Promise<void>((resolve) => {
    socket.on("message", (data: Buffer, isBinary) => {
      if (messages.push({ data, isBinary }) === 3) resolve();
    });
  });
  await once(socket, "open");
  const [viewer] = fixture.video.viewers;
  viewer!.init('video/mp4; codecs="avc1.42c01f"', Buffer.from("init"));
  viewer!.media(Buffer.from("moofmdat"), 1_234_567);
  await three;
  assert.deepEqual(JSON.parse(messages[0]!.data.toString()), {
    type: "init",
    mimeType: 'video/mp4; codecs="avc1.42c01f"',
  });
  assert.deepEqual(
    messages.map((message) => message.isBinary),
    [false, true, true],
  );
  assert.equal(messages[1]!.data.toString(), "init");
  assert.equal(messages[2]!.data.readBigUInt64BE(0), 1_234_567n);
  assert.equal(messages[2]!.data.toString("utf8", 8), "moofmdat");
  socket.close();
  await once(socket, "close");
  while (fixture.video.viewers.size > 0) await new Promise((resolve) => setImmediate(resolve));
});

test("closing the API ends the live sockets", async (t) => {
  const { fixture, cookie } = await open(t);
  const socket = socketTo(fixture, "/api/live/readings?stream=s&key=k", { cookie });
  await once(socket, "open");
  const closed = once(socket, "close");
  await fixture.api.close();
  await closed;
});

test("any payload is a reading of finite numbers, or none", () => {
  fc.assert(
    fc.property(fc.oneof(fc.json(), fc.string({ unit: "binary" })), (text) => {
      const reading = readingOf(Buffer.from(text), 5);
      if (reading === undefined) return;
      assert.equal(reading.timeUs, 5);
      const values = Object.values(reading.values);
      assert.ok(values.length >= 1 && values.length <= 32);
      assert.ok(values.every(Number.isFinite));
    }),
  );
});
