/**
 * Real attacks of who has a key and holds all the bodies that it can, over as many connections as it wants and
 * together with strangers: who has another key goes on, over HTTP/1.1 by the lane and by Node's server, and
 * over HTTP/2.
 */
import assert from "node:assert/strict";
import http from "node:http";
import http2 from "node:http2";
import { connect, type Socket } from "node:net";
import test, { type TestContext } from "node:test";
import { type Fixture, KEY, openFixture, PUT_ONLY } from "./api-fixture.ts";
import { sign } from "./sign.ts";

const MIB = 1_048_576;
const BUDGET_MIB = 256;
/**
 * Bodies that are held, in their order, by their size: more than there is room for. What is refused gives back all
 * that it held, so small ones come last.
 */
const ONE_KEYS = [
  { mib: 15, bodies: 18 },
  { mib: 1, bodies: 40 },
];
const STRANGERS = [
  { mib: 15, bodies: 2 },
  { mib: 1, bodies: 30 },
];
/** So many times in turn what is held has to be the same. */
const SETTLED = 3;
const ok = { status: 200, type: "" };
const busy = { status: 503, type: "ServiceUnavailable" };
const throttled = { status: 400, type: "ThrottlingException" };

interface Answer {
  readonly status: number;
  readonly type: string;
}

type Key = { readonly id: string; readonly secret: string };

/** So much of a body that never comes whole. */
type Hold = (headers: Record<string, string>, mib: number) => Promise<void>;

/** @param declaresHash whether the head alone proves who signed it */
function signed(port: number, body: string, key: Key, declaresHash: boolean) {
  return sign({
    headers: {
      host: `127.0.0.1:${port}`,
      "content-type": "application/x-amz-json-1.1",
      "x-amz-target": "Kinesis_20131202.PutRecords",
    },
    body,
    key,
    applyChecksum: declaresHash,
  });
}

function records(count: number, bytes: number): string {
  const data = Buffer.alloc(bytes, "r").toString("base64");
  const put = Array.from({ length: count }, (_, i) => ({ Data: data, PartitionKey: String(i) }));
  return JSON.stringify({ StreamName: "s", Records: put });
}

function post(
  agent: http.Agent,
  port: number,
  headers: Record<string, string>,
  body: string,
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const request = http.request(
      { host: "127.0.0.1", port, method: "POST", path: "/", headers, agent },
      (answer) => {
        const chunks: Buffer[] = [];
        answer.on("data", (chunk: Buffer) => chunks.push(chunk));
        // Its connection is free for the next call only then.
        answer.on("end", () => setImmediate(resolve, answerOf(answer.statusCode!, Buffer.concat(chunks))));
      },
    );
    request.on("error", reject);
    request.end(body);
  });
}

function call2(session: http2.ClientHttp2Session, headers: Record<string, string>, body: string) {
  return new Promise<Answer>((resolve, reject) => {
    const { host, ...others } = headers;
    const stream = session.request({ ":method": "POST", ":path": "/", ":authority": host, ...others });
    let status = 0;
    const chunks: Buffer[] = [];
    stream.on("response", (head) => {
      status = Number(head[":status"]);
    });
    stream.on("data", (chunk: Buffer) => chunks.push(chunk));
    stream.on("end", () => resolve(answerOf(status, Buffer.concat(chunks))));
    stream.on("error", reject);
    stream.end(body);
  });
}

function answerOf(status: number, body: Buffer): Answer {
  return { status, type: (JSON.parse(body.toString()) as { __type?: string }).__type ?? "" };
}

function agentOf(t: TestContext): http.Agent {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  t.after(() => agent.destroy());
  return agent;
}

function sessionOf(t: TestContext, origin: string): http2.ClientHttp2Session {
  const session = http2.connect(origin);
  session.on("error", () => {});
  t.after(() => session.destroy());
  return session;
}

/** By a connection of its own; one byte never comes. */
function holdByHttp1(t: TestContext, { port }: Fixture, isChunked: boolean): Hold {
  const sockets: Socket[] = [];
  t.after(() => {
    for (const socket of sockets) socket.destroy();
  });
  const piece = Buffer.alloc(MIB, "x");
  return async (headers, mib) => {
    const length = isChunked ? "transfer-encoding: chunked" : `content-length: ${mib * MIB + 1}`;
    const head = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
    const socket = connect(port, "127.0.0.1");
    sockets.push(socket);
    socket.on("error", () => {});
    socket.resume();
    socket.write(`POST / HTTP/1.1\r\n${head.join("")}${length}\r\n\r\n`);
    if (isChunked) socket.write(`${(mib * MIB + 1).toString(16)}\r\n`);
    for (let sent = 0; sent < mib; sent++) await new Promise((resolve) => socket.write(piece, resolve));
  };
}

function holdByHttp2(t: TestContext, { origin }: Fixture): Hold {
  const session = sessionOf(t, origin);
  const piece = Buffer.alloc(MIB, "x");
  return async ({ host, ...headers }, mib) => {
    const head = { ":method": "POST", ":path": "/", ":authority": host, ...headers };
    const stream = session.request(head, { endStream: false });
    stream.on("error", () => {});
    stream.resume();
    for (let sent = 0; sent < mib; sent++) await new Promise((resolve) => stream.write(piece, resolve));
  };
}

async function holdAll(
  hold: Hold,
  headers: Record<string, string>,
  held: typeof ONE_KEYS,
  settle: () => Promise<number>,
) {
  let heldMib = 0;
  for (const { mib, bodies } of held) {
    for (let body = 0; body < bodies; body++) await hold(headers, mib);
    heldMib = await settle();
  }
  return heldMib;
}

/** Once all that was sent has arrived. */
async function settledMib({ origin }: Fixture, sender: "proven" | "unproven"): Promise<number> {
  const line = new RegExp(`^headwater_api_body_bytes\\{sender="${sender}"\\} (\\d+)`, "m");
  let last = -1;
  for (let same = 0; same < SETTLED; ) {
    const text = await (await fetch(`${origin}/metrics`)).text();
    const bytes = Number(line.exec(text)![1]);
    same = bytes === last ? same + 1 : 0;
    last = bytes;
  }
  return last / MIB;
}

const WAYS: Record<string, (t: TestContext, fixture: Fixture) => Hold> = {
  "HTTP/1.1 by the lane": (t, fixture) => holdByHttp1(t, fixture, false),
  "HTTP/1.1 by Node's server": (t, fixture) => holdByHttp1(t, fixture, true),
  "HTTP/2": holdByHttp2,
};

for (const [way, holder] of Object.entries(WAYS)) {
  test(`bodies that are held over ${way} with one key keep nobody out who has another`, async (t) => {
    const fixture = await openFixture();
    t.after(fixture.close);
    const { port, origin } = fixture;
    await fixture.streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
    const small = records(200, 750);
    const mebibyte = records(1, 780_000);
    const largest = records(10, 1_040_000);
    const victims = await signed(port, small, PUT_ONLY, false);
    const known = agentOf(t);
    const knownSession = sessionOf(t, origin);
    assert.deepEqual(await post(known, port, victims, small), ok);
    assert.deepEqual(await call2(knownSession, victims, small), ok);

    const attackers = await signed(port, mebibyte, KEY, true);
    const mib = await holdAll(holder(t, fixture), attackers, ONE_KEYS, () => settledMib(fixture, "proven"));
    assert.deepEqual(await post(agentOf(t), port, attackers, mebibyte), busy);

    const victimsGoOn = async (): Promise<void> => {
      assert.deepEqual(await post(known, port, victims, small), ok);
      assert.deepEqual(await post(known, port, { ...victims, "transfer-encoding": "chunked" }, small), ok);
      assert.deepEqual(await call2(knownSession, victims, small), ok);
      // A whole PutRecords of the largest kind, too, and who comes anew.
      const large = await signed(port, largest, PUT_ONLY, true);
      assert.deepEqual(await post(known, port, large, largest), ok);
      assert.deepEqual(await call2(sessionOf(t, origin), large, largest), ok);
    };
    await victimsGoOn();
    // Who is alone has four fifths of all, but for what a body takes that is refused.
    assert.ok(mib > BUDGET_MIB * 0.79 && mib <= BUDGET_MIB * 0.8, `${mib} MiB`);

    const forged = await signed(port, mebibyte, { ...KEY, secret: "a guess of the secret" }, false);
    const strangersMib = await holdAll(holder(t, fixture), forged, STRANGERS, () =>
      settledMib(fixture, "unproven"),
    );
    assert.ok(strangersMib > 20 && strangersMib <= 26, `${strangersMib} MiB`);
    assert.deepEqual(await post(agentOf(t), port, forged, mebibyte), throttled);
    await victimsGoOn();
  });
}
