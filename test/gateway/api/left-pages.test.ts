/** Clients that leave while their pages wait for a place: over each way into the gateway. */
import assert from "node:assert/strict";
import http2 from "node:http2";
import { connect, type Socket } from "node:net";
import { text } from "node:stream/consumers";
import test, { type TestContext } from "node:test";
import { Metrics } from "../../../runtime/metrics.ts";
import { KEY, openFixture } from "./api-fixture.ts";
import { call, sign } from "./sign.ts";

/** Pages that are read at once. */
const PLACES = 16;
const RECORD_BYTES = 100_000;
const RECORDS = 20;

/** All places are taken by pages of shard 0, until `goOn`. */
async function open(t: TestContext) {
  const metrics = new Metrics();
  const { streams, origin, port, close } = await openFixture({ api: { metrics } });
  t.after(close);
  await streams.createStream({ name: "s", shards: 2, retentionHours: 24 });
  for (const explicitHash of [0n, 2n ** 127n]) {
    const record = { partitionKey: "k", data: Buffer.alloc(RECORD_BYTES, 1), explicitHash };
    await streams.append("s", Array<typeof record>(RECORDS).fill(record));
  }
  let goOn = (): void => {};
  const opened = new Promise<void>((resolve) => {
    goOn = resolve;
  });
  const reads: string[] = [];
  const read = streams.read.bind(streams);
  t.mock.method(streams, "read", async (name: string, shardId: string, from: number, maxBytes: number) => {
    reads.push(shardId);
    if (shardId.endsWith("0")) await opened;
    return read(name, shardId, from, maxBytes);
  });
  let looks = 0;
  const shard = streams.shard.bind(streams);
  t.mock.method(streams, "shard", (name: string, index: number) => {
    if (index === 1) looks++;
    return shard(name, index);
  });
  const [held, wanted] = await Promise.all([0, 1].map((index) => bodyOf(origin, index)));
  const pages = Array.from({ length: PLACES }, () => call(origin, "GetRecords", held!));
  await until(() => reads.length === PLACES);
  const figure = async (line: string): Promise<number> =>
    Number(new RegExp(`^${line} (\\d+)$`, "m").exec(await metrics.render())?.[1] ?? 0);
  return {
    port,
    body: wanted!,
    goOn: async () => {
      goOn();
      for (const page of await Promise.all(pages)) assert.equal(page.status, 200);
    },
    /** Until so many more calls wait for a place: each has looked at its shard twice. */
    waiting: (calls: number) => {
      const before = looks;
      return () => until(() => looks >= before + 2 * calls);
    },
    wantedReads: () => reads.filter((shardId) => shardId.endsWith("1")).length,
    connections: () => figure("headwater_api_connections"),
    outcome: (outcome: string) =>
      figure(`headwater_kinesis_requests_total\\{operation="GetRecords",outcome="${outcome}"\\}`),
    bodyBytes: () => figure(`headwater_api_body_bytes\\{sender="proven"\\}`),
  };
}

async function bodyOf(origin: string, index: number): Promise<string> {
  const from = { StreamName: "s", ShardId: `shardId-00000000000${index}`, ShardIteratorType: "TRIM_HORIZON" };
  const { json } = await call(origin, "GetShardIterator", JSON.stringify(from));
  return JSON.stringify({ ShardIterator: (json as { ShardIterator: string }).ShardIterator });
}

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await condition())) await new Promise((resolve) => setImmediate(resolve));
}

async function headersOf(port: number, body: string): Promise<Record<string, string>> {
  return await sign({
    headers: {
      host: `127.0.0.1:${port}`,
      "content-type": "application/x-amz-json-1.1",
      "x-amz-target": "Kinesis_20131202.GetRecords",
    },
    body,
    key: KEY,
  });
}

/** @param more a line of the head; with one that is unusual the call goes by Node's server */
async function askOverHttp1(port: number, body: string, more = ""): Promise<Socket> {
  const headers = await headersOf(port, body);
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
  socket.on("error", () => {});
  socket.write(`POST / HTTP/1.1\r\n${lines.join("")}${more}content-length: ${body.length}\r\n\r\n${body}`);
  return socket;
}

async function askOverHttp2(session: http2.ClientHttp2Session, port: number, body: string, path: string) {
  const { host: _, ...headers } = await headersOf(port, body);
  const stream = session.request({ ":method": "POST", ":path": path, ...headers });
  stream.on("error", () => {});
  stream.end(body);
  return stream;
}

/** Once all is answered: nothing was read for the three that waited, and nothing of them is held. */
async function threeAreCutOff(gateway: Awaited<ReturnType<typeof open>>): Promise<void> {
  await gateway.goOn();
  await until(async () => (await gateway.outcome("ok")) + (await gateway.outcome("cut off")) === PLACES + 3);
  assert.equal(await gateway.outcome("cut off"), 3);
  assert.equal(gateway.wantedReads(), 0);
  assert.equal(await gateway.bodyBytes(), 0);
}

for (const [way, more] of [
  ["HTTP/1.1", ""],
  ["HTTP/1.1, unusual", "te: trailers\r\n"],
] as const) {
  test(`${way}: of a client that is gone no page is read, and the call counts as cut off`, async (t) => {
    const gateway = await open(t);
    const before = await gateway.connections();
    const allWait = gateway.waiting(3);
    const sockets = [];
    for (let i = 0; i < 3; i++) sockets.push(await askOverHttp1(gateway.port, gateway.body, more));
    await allWait();
    for (const socket of sockets) socket.resetAndDestroy();
    await until(async () => (await gateway.connections()) <= before);
    await threeAreCutOff(gateway);
  });
}

for (const [way, path] of [
  ["HTTP/2", "/"],
  ["HTTP/2, unusual", "/?"],
] as const) {
  test(`${way}: of a call that is cancelled no page is read, and it counts as cut off`, async (t) => {
    const gateway = await open(t);
    const session = http2.connect(`http://127.0.0.1:${gateway.port}`);
    t.after(() => session.destroy());
    const allWait = gateway.waiting(3);
    const streams = [];
    for (let i = 0; i < 3; i++) {
      streams.push(await askOverHttp2(session, gateway.port, gateway.body, path));
    }
    await allWait();
    for (const stream of streams) stream.close(http2.constants.NGHTTP2_CANCEL);
    // It comes behind what says that they are.
    await new Promise((resolve) => session.ping(resolve));
    await threeAreCutOff(gateway);
  });
}

for (const [way, more] of [
  ["HTTP/1.1", ""],
  ["HTTP/1.1, unusual", "te: trailers\r\n"],
] as const) {
  test(`${way}: who has closed its side may wait, and gets a page that costs little`, async (t) => {
    const gateway = await open(t);
    const oneWaits = gateway.waiting(1);
    const socket = await askOverHttp1(gateway.port, gateway.body, more);
    await oneWaits();
    await new Promise<void>((resolve) => socket.end(resolve));
    const answer = text(socket);
    // Its end is behind these in the loop's queues.
    await call(`http://127.0.0.1:${gateway.port}`, "ListStreams", "{}");
    await gateway.goOn();
    const [head, body] = (await answer).split("\r\n\r\n") as [string, string];
    assert.match(head, /^HTTP\/1\.1 200 OK/);
    const page = JSON.parse(body) as { Records: unknown[]; NextShardIterator: string };
    assert.equal(page.Records.length, 10);
    const origin = `http://127.0.0.1:${gateway.port}`;
    const rest = await call(origin, "GetRecords", JSON.stringify({ ShardIterator: page.NextShardIterator }));
    assert.equal((rest.json as { Records: unknown[] }).Records.length, RECORDS - 10);
  });
}
