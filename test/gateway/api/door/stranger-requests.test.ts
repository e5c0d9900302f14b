/** Real attacks of who has requests under way that never end: memory stays, and those who are known go on. */
import assert from "node:assert/strict";
import { once } from "node:events";
import http2 from "node:http2";
import { connect, type Socket } from "node:net";
import test, { type TestContext } from "node:test";
import { FLAG, FRAME, frame, headerBlock } from "../../../../bench/load/http2-frames.ts";
import { Metrics } from "../../../../runtime/metrics.ts";
import { heldAtMost, usedBytes } from "../../../support/held-memory.ts";
import { type Fixture, KEY, openFixture } from "../api-fixture.ts";
import { NO_WINDOW, openRawHttp2 } from "../raw-http2.ts";
import { sign } from "../sign.ts";

const STREAMS = 128;
/** With 128 requests each they have twice as many as strangers may have. */
const CONNECTIONS = 32;
const MAX_STREAMS = 2_048;
const AWS_JSON = "application/x-amz-json-1.1";

async function open(t: TestContext): Promise<{ fixture: Fixture; metrics: Metrics }> {
  const metrics = new Metrics();
  const fixture = await openFixture({ api: { metrics } });
  t.after(() => fixture.close());
  return { fixture, metrics };
}

async function signed(port: number, secret = KEY.secret): Promise<Record<string, string>> {
  return await sign({
    headers: {
      host: `127.0.0.1:${port}`,
      "content-type": AWS_JSON,
      "x-amz-target": "Kinesis_20131202.ListStreams",
    },
    body: "{}",
    key: { id: KEY.id, secret },
    applyChecksum: false,
  });
}

/** Requests that are open for good: their bodies never end, and their answers find no window. */
async function attack(t: TestContext, port: number, fields: Buffer, streams = STREAMS): Promise<Socket> {
  const socket = await openRawHttp2(t, port, NO_WINDOW);
  socket.resume();
  const heads = Array.from({ length: streams }, (_, i) =>
    frame(FRAME.headers, FLAG.endHeaders, 2 * i + 1, fields),
  );
  socket.write(Buffer.concat(heads));
  return socket;
}

function listStreams(session: http2.ClientHttp2Session, headers: Record<string, string>): Promise<number> {
  return new Promise((resolve, reject) => {
    const { host, ...others } = headers;
    const stream = session.request({ ":method": "POST", ":path": "/", ":authority": host, ...others });
    stream.once("response", (head) => resolve(Number(head[":status"])));
    stream.once("error", reject);
    stream.resume();
    stream.end("{}");
  });
}

async function value(metrics: Metrics, line: RegExp): Promise<number> {
  return Number(line.exec(await metrics.render())?.[1] ?? 0);
}

const CONNECTIONS_NOW = /^headwater_api_connections (\d+)$/m;
const PIPELINED = 1_400;
const PIPELINING = 5;
const MIB = 1_048_576;

const ENDED = /^headwater_api_connections_ended_total\{whose="busiest stranger"\} (\d+)$/m;

for (const [way, fieldsOf] of Object.entries({
  "calls whose secret is a guess": async (port: number) => {
    const { host, ...headers } = await signed(port, "a guess of the secret");
    return headerBlock(host!, headers);
  },
  "requests for nothing": async (port: number) => headerBlock(`127.0.0.1:${port}`, {}),
})) {
  test(`of ${way}, left open over HTTP/2, there are so many at once, and the newest stay`, async (t) => {
    const { fixture, metrics } = await open(t);
    const { port, origin } = fixture;
    const known = http2.connect(origin);
    t.after(() => known.destroy());
    const headers = await signed(port);
    assert.equal(await listStreams(known, headers), 200);
    // Its other requests are its own from now on.
    const { host, ...others } = headers;
    const kept = known.request({ ":method": "POST", ":path": "/", ":authority": host, ...others });
    let keptStatus = 0;
    kept.once("response", (head) => {
      keptStatus = Number(head[":status"]);
    });
    const fields = await fieldsOf(port);
    const sockets: Socket[] = [];
    for (let i = 0; i < CONNECTIONS; i++) sockets.push(await attack(t, port, fields));
    const mostOpen = MAX_STREAMS / STREAMS;
    while ((await value(metrics, CONNECTIONS_NOW)) > mostOpen + 1)
      await new Promise((resolve) => setTimeout(resolve, 20));
    assert.equal(await listStreams(known, headers), 200);
    const fresh = http2.connect(origin);
    t.after(() => fresh.destroy());
    assert.equal(await listStreams(fresh, headers), 200);
    kept.end("{}");
    await once(kept.resume(), "end");
    assert.equal(keptStatus, 200);
    // Each that was ended is counted once.
    const ended = await value(metrics, ENDED);
    assert.ok(ended >= CONNECTIONS - mostOpen && ended <= CONNECTIONS, `${ended} were ended`);
    assert.ok(sockets[0]!.destroyed && !sockets.at(-1)!.destroyed);
  });
}

test("who has the most requests under way makes room for those who have fewer", async (t) => {
  const { fixture, metrics } = await open(t);
  const fields = headerBlock(`127.0.0.1:${fixture.port}`, {});
  const modest: Socket[] = [];
  for (let i = 0; i < MAX_STREAMS / 8; i++) modest.push(await attack(t, fixture.port, fields, 8));
  // All its heads come in one packet, and it goes before the last of them is looked at.
  const greedy = await attack(t, fixture.port, fields);
  if (!greedy.destroyed) await once(greedy, "close");
  // One went while it had but one.
  assert.ok(modest.filter((socket) => socket.destroyed).length <= 1);
  assert.ok((await value(metrics, ENDED)) <= 2);
  assert.ok((await value(metrics, CONNECTIONS_NOW)) >= modest.length - 1);
});

test("of thousands of pipelined requests whose answers nobody reads few are held", async (t) => {
  const { fixture, metrics } = await open(t);
  const before = usedBytes();
  const request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
  const sockets: Socket[] = [];
  t.after(() => {
    for (const socket of sockets) socket.destroy();
  });
  for (let i = 0; i < PIPELINING; i++) {
    const socket = connect(fixture.port, "127.0.0.1").on("error", () => {});
    sockets.push(socket);
    await once(socket, "connect");
    // The answers are more than the buffers of the kernels hold.
    for (let n = 0; n < 3; n++) socket.write(request.repeat(PIPELINED));
  }
  const ended = async () => await value(metrics, ENDED);
  while ((await ended()) < 2) await new Promise((resolve) => setTimeout(resolve, 20));
  const answer = await fetch(`${fixture.origin}/healthz`);
  assert.equal(answer.status, 200);
  const held = await heldAtMost(16 * MIB, before, usedBytes);
  t.diagnostic(`${(held / MIB).toFixed(1)} MiB are held`);
});
