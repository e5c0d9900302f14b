import assert from "node:assert/strict";
import { once } from "node:events";
import { request } from "node:http";
import { connect, type Socket } from "node:net";
import test, { type TestContext } from "node:test";
import { gzipSync } from "node:zlib";
import type { RecordBuffer } from "../../../agent/buffer/record-buffer.ts";
import { HttpSource } from "../../../agent/sources/http.ts";
import type { HttpSourceConfig } from "../../../config/source-config.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { openBuffer, temporaryFolder } from "../buffer/records/buffer-fixture.ts";
import { sourceParts, stored, until } from "./source-parts.ts";

async function http(
  t: TestContext,
  buffer: RecordBuffer,
  config: Partial<HttpSourceConfig> = {},
  whenFull: "pause" | "reject" = "pause",
  clock = systemClock,
): Promise<HttpSource> {
  const source = new HttpSource({
    ...sourceParts(buffer),
    clock,
    whenFull,
    config: {
      type: "http",
      name: "door",
      host: "127.0.0.1",
      port: 0,
      stream: "sensors",
      tokens: [],
      maxBodyBytes: 10_000,
      ...config,
    },
  });
  t.after(() => source.close());
  await source.start();
  await until(() => source.status().state === "running");
  return source;
}

function post(
  { port }: HttpSource,
  body: string | Uint8Array,
  headers: Record<string, string> = {},
  path = "/records",
): Promise<Response> {
  return fetch(`http://127.0.0.1:${port}${path}`, {
    method: "POST",
    body: body as string,
    headers: { "content-type": "application/json", ...headers },
  });
}

test("what was answered 200 is in the buffer: an object, an array, lines, SenML", async (t) => {
  const buffer = await openBuffer(await temporaryFolder(t));
  const source = await http(t, buffer);
  const time = new Date().toISOString();
  assert.equal((await post(source, `{"sensor":"a","value":1,"time":"${time}"}`)).status, 200);
  assert.deepEqual(
    await (await post(source, '[{"value":2},{"sensor":"b","value":3}]', {}, "/records/yard%2Fgate")).json(),
    {
      stored: 2,
    },
  );
  const lines = await post(source, '{"value":4}\n\n{"value":5}\n', {
    "content-type": "application/x-ndjson",
  });
  assert.equal(lines.status, 200);
  const senml = '[{"bn":"urn:dev:1:","bu":"Cel","n":"t","v":6},{"n":"h","u":"%RH","v":7}]';
  assert.equal((await post(source, senml, { "content-type": "application/senml+json" })).status, 200);
  assert.equal((await post(source, gzipSync('{"value":8}'), { "content-encoding": "gzip" })).status, 200);
  const records = (await stored(buffer)).map(({ time: _, ...rest }) => rest);
  assert.deepEqual(records, [
    { device: "pi-1", sensor: "a", value: 1 },
    { device: "pi-1", sensor: "yard/gate", value: 2 },
    { device: "pi-1", sensor: "b", value: 3 },
    { device: "pi-1", sensor: "door", value: 4 },
    { device: "pi-1", sensor: "door", value: 5 },
    { device: "pi-1", sensor: "urn:dev:1:t", value: 6, unit: "Cel" },
    { device: "pi-1", sensor: "urn:dev:1:h", value: 7, unit: "%RH" },
    { device: "pi-1", sensor: "door", value: 8 },
  ]);
  assert.equal(source.status().records, 8);
  await source.close();
  await buffer.close();
});

test("what is wrong is answered with its reason, and nothing of it is stored", async (t) => {
  const buffer = await openBuffer(await temporaryFolder(t));
  const source = await http(t, buffer);
  const cases: [Promise<Response>, number][] = [
    [post(source, '{"a":1}\n{broken', { "content-type": "application/x-ndjson" }), 400],
    [post(source, '[{"a":1},2]'), 400],
    [post(source, "{"), 400],
    [post(source, "[".repeat(9_000)), 400],
    [post(source, "x".repeat(10_001)), 413],
    [post(source, gzipSync("x".repeat(100_000)), { "content-encoding": "gzip" }), 413],
    [post(source, "not gzip", { "content-encoding": "gzip" }), 400],
    [post(source, "{}", { "content-type": "text/plain" }), 415],
    [post(source, "{}", { origin: "http://evil.example" }), 403],
    [post(source, "{}", {}, "/elsewhere"), 404],
    [post(source, "{}", {}, "/records/%zz"), 400],
    [fetch(`http://127.0.0.1:${source.port}/records`), 405],
  ];
  for (const [answer, status] of cases) assert.equal((await answer).status, status);
  const rebound = await new Promise<number | undefined>((resolve) => {
    request(
      { port: source.port, method: "POST", path: "/records", headers: { host: "evil.example" } },
      (response) => {
        response.resume();
        resolve(response.statusCode);
      },
    ).end("{}");
  });
  assert.equal(rebound, 403);
  const wrong = (await (
    await post(source, '{"a":1}\n{broken', { "content-type": "application/x-ndjson" })
  ).json()) as {
    error: string;
  };
  assert.match(wrong.error, /line 2/);
  assert.deepEqual(await stored(buffer), []);
  await source.close();
  await buffer.close();
});

test("a full buffer is answered 429 with Retry-After, whatever its policy", async (t) => {
  for (const whenFull of ["pause", "reject"] as const) {
    const buffer = await openBuffer(await temporaryFolder(t), { maxBytes: 3_000, whenFull });
    const source = await http(t, buffer, {}, whenFull);
    const body = JSON.stringify({ text: "x".repeat(2_000) });
    assert.equal((await post(source, body)).status, 200);
    const refused = await post(source, body, { "idempotency-key": "k" });
    assert.deepEqual([refused.status, Number(refused.headers.get("retry-after")) > 0], [429, true]);
    const [frame] = await buffer.read(undefined, 1);
    await buffer.ack(frame!.epoch, frame!.sequence);
    await until(async () => (await post(source, body, { "idempotency-key": "k" })).status === 200);
    assert.equal((await stored(buffer)).length, 1);
    await source.close();
    await buffer.close();
  }
});

test("a request sent again with its key is stored once, also after a restart", async (t) => {
  const folder = await temporaryFolder(t);
  const first = await openBuffer(folder);
  const before = await http(t, first);
  const key = { "idempotency-key": "meter-1" };
  await Promise.all([
    post(before, '{"n":1}', key),
    post(before, '{"n":1}', key),
    post(before, '{"n":1}', key),
  ]);
  assert.deepEqual(await (await post(before, '{"n":2}', { "idempotency-key": "meter-2" })).json(), {
    stored: 1,
  });
  await before.close();
  await first.close();
  const second = await openBuffer(folder);
  const after = await http(t, second);
  assert.deepEqual(await (await post(after, '{"n":1}', key)).json(), { stored: 1, repeated: true });
  assert.equal((await post(after, '{"n":3}', { "idempotency-key": "meter-3" })).status, 200);
  assert.deepEqual(
    (await stored(second)).map(({ n }) => n),
    [1, 2, 3],
  );
  await after.close();
  await second.close();
});

test("with tokens only who has one gets in", async (t) => {
  const buffer = await openBuffer(await temporaryFolder(t));
  const source = await http(t, buffer, { tokens: ["0123456789abcdef"] });
  assert.equal((await post(source, "{}")).status, 401);
  assert.equal((await post(source, "{}", { authorization: "Bearer 0123456789abcdeX" })).status, 401);
  assert.equal((await post(source, "{}", { authorization: "Bearer 0123456789abcdef" })).status, 200);
  await source.close();
  await buffer.close();
});

test("a port that is taken is tried again, and says so", async (t) => {
  const buffer = await openBuffer(await temporaryFolder(t));
  const holder = await http(t, buffer);
  const { port } = holder;
  const source = new HttpSource({
    ...sourceParts(buffer),
    whenFull: "pause",
    config: {
      type: "http",
      name: "second",
      host: "127.0.0.1",
      port,
      stream: "sensors",
      tokens: [],
      maxBodyBytes: 1_024,
    },
  });
  t.after(() => source.close());
  await source.start();
  await until(() => source.status().health === "backing-off");
  assert.match(source.status().lastError ?? "", /PORT_BUSY.*end that program/);
  await holder.close();
  await until(() => source.status().health === "running");
  await source.close();
  await buffer.close();
});

test("closing answers what is being stored and leaves no connection", async (t) => {
  const buffer = await openBuffer(await temporaryFolder(t), { commitDelayMs: 100 });
  const append = buffer.append.bind(buffer);
  const storing = new Promise<void>((resolve) => {
    buffer.append = (records) => {
      resolve();
      return append(records);
    };
  });
  const source = await http(t, buffer);
  const idle = connect(source.port, "127.0.0.1");
  const idleClosed = once(idle, "close");
  const answered = post(source, '{"n":1}');
  await storing;
  await source.close();
  assert.equal((await answered).status, 200);
  await idleClosed;
  await buffer.close();
});

test("a reading that no record can hold is refused for good, and not told to come again", async (t) => {
  const buffer = await openBuffer(await temporaryFolder(t));
  const source = await http(t, buffer, { maxBodyBytes: 4 * 1_048_576 });
  const large = await post(source, JSON.stringify([{ value: 1 }, { text: "x".repeat(1_100_000) }]));
  assert.equal(large.status, 400);
  assert.equal(large.headers.get("retry-after"), null);
  assert.deepEqual(await stored(buffer), []);
  assert.equal((await post(source, '{"value":2}')).status, 200);
});

/** A request of which the end never comes. */
async function unfinished(t: TestContext, { port }: HttpSource, body: string): Promise<Socket> {
  const socket = connect(port, "127.0.0.1");
  t.after(() => socket.destroy());
  socket.on("error", () => {});
  await once(socket, "connect");
  const head = "POST /records HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000\r\n\r\n";
  socket.write(body === "" ? "POST /records HTTP/1.1\r\n" : head + body);
  return socket;
}

test("clients that send slowly keep nobody out", async (t) => {
  const buffer = await openBuffer(await temporaryFolder(t));
  const source = await http(t, buffer);
  const slow = await Promise.all(Array.from({ length: 40 }, () => unfinished(t, source, "[")));
  assert.equal((await post(source, '{"n":1}')).status, 200);
  for (const socket of slow) socket.destroy();
});

test("bodies that never end lose their memory to those that do, the oldest first", async (t) => {
  const buffer = await openBuffer(await temporaryFolder(t));
  // Nobody is slow before the test says so.
  const clock = { ...systemClock, ms: 1_000, monotonicMs: () => clock.ms };
  const source = await http(t, buffer, {}, "pause", clock);
  const slow: Socket[] = [];
  for (let i = 0; i < 16; i++) slow.push(await unfinished(t, source, "x".repeat(9_999)));
  let refused = 0;
  await until(
    async () => (await post(source, `{"n":"${"x".repeat(200)}"}`)).status === 429 || ++refused > 500,
  );
  assert.ok(refused <= 500, "their memory was never full");
  clock.ms += 3_000;
  const answer = once(slow[0]!, "data") as Promise<[Buffer]>;
  assert.equal((await post(source, `{"n":"${"x".repeat(200)}"}`)).status, 200);
  assert.match((await answer)[0].toString(), /^HTTP\/1.1 429 /);
  assert.equal(slow.filter(({ readableEnded, destroyed }) => readableEnded || destroyed).length <= 1, true);
  for (const socket of slow) socket.destroy();
});

test("connections that say nothing make place for others", async (t) => {
  const buffer = await openBuffer(await temporaryFolder(t));
  const source = await http(t, buffer);
  for (let i = 0; i < 220; i++) await unfinished(t, source, "");
  assert.equal((await post(source, '{"n":1}')).status, 200);
  assert.match(source.status().lastError ?? "", /more than 200 connections/);
});

test("a body that turns out to be too large is answered, though it is still being sent", async (t) => {
  const buffer = await openBuffer(await temporaryFolder(t));
  const source = await http(t, buffer);
  const socket = connect(source.port, "127.0.0.1");
  t.after(() => socket.destroy());
  socket.on("error", () => {});
  const answer = once(socket, "data") as Promise<[Buffer]>;
  socket.write("POST /records HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
  socket.write(`2ee0\r\n${"x".repeat(12_000)}\r\n`);
  assert.match((await answer)[0].toString(), /^HTTP\/1.1 413 /);
});

test("an empty Idempotency-Key is refused: it would make all that bear it one request", async (t) => {
  const buffer = await openBuffer(await temporaryFolder(t));
  const source = await http(t, buffer);
  assert.equal((await post(source, '{"n":1}', { "idempotency-key": "" })).status, 400);
  assert.deepEqual(await stored(buffer), []);
});

test("a body that is no UTF-8 is refused, and not stored with other characters in it", async (t) => {
  const buffer = await openBuffer(await temporaryFolder(t));
  const source = await http(t, buffer);
  const answer = await post(source, Buffer.from('{"room":"K\xfcche"}', "latin1"));
  assert.equal(answer.status, 400);
  assert.match(((await answer.json()) as { error: string }).error, /UTF-8/);
  assert.equal((await post(source, Buffer.from('\ufeff{"room":"K\xfcche"}'))).status, 200);
  assert.deepEqual(
    (await stored(buffer)).map(({ room }) => room),
    ["K\xfcche"],
  );
});
