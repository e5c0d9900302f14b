/**
 * Real attacks of who knows a key's id, which is no secret, and holds all the bodies that it can: those who
 * know the secret go on, over HTTP/1.1 by the lane and by Node's server, and over HTTP/2.
 */
import assert from "node:assert/strict";
import http from "node:http";
import http2 from "node:http2";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import test, { type TestContext } from "node:test";
import type { TLSSocket } from "node:tls";
import { type Fixture, KEY, openFixture } from "./api-fixture.ts";
import { sign } from "./sign.ts";

const JSON_11 = "application/x-amz-json-1.1";
const MIB = 1_048_576;
/**
 * Of each attacker, in their order: what is refused gives back all that it held, so small bodies come last. All
 * together they are more than the gateway holds, and half of them are as much as half of it.
 */
const HELD_MIB = [...new Array<number>(17).fill(15), ...new Array<number>(20).fill(1)];

interface Answer {
  readonly status: number;
  readonly type: string;
}

/** A call whose signature is right, as boto3 signs (without the body's hash), or as the SDK for JavaScript. */
async function signed(port: number, body: string, declaresHash: boolean): Promise<Record<string, string>> {
  return await sign({
    headers: {
      host: `127.0.0.1:${port}`,
      "content-type": JSON_11,
      "x-amz-target": "Kinesis_20131202.PutRecords",
    },
    body,
    applyChecksum: declaresHash,
  });
}

/** All is right, but the secret is a guess. */
async function forged(port: number, operation = "PutRecords"): Promise<Record<string, string>> {
  return await sign({
    headers: {
      host: `127.0.0.1:${port}`,
      "content-type": JSON_11,
      "x-amz-target": `Kinesis_20131202.${operation}`,
    },
    body: "{}",
    key: { id: "AKIAEVERYTHING", secret: "a guess of the secret" },
    applyChecksum: false,
  });
}

const records = JSON.stringify({
  StreamName: "s",
  Records: Array.from({ length: 200 }, (_, i) => ({
    Data: Buffer.alloc(750, i).toString("base64"),
    PartitionKey: String(i),
  })),
});

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
        answer.on("end", () => resolve(answerOf(answer.statusCode!, Buffer.concat(chunks).toString())));
      },
    );
    request.on("error", reject);
    request.end(body);
  });
}

function answerOf(status: number, body: string): Answer {
  return { status, type: (JSON.parse(body) as { __type?: string }).__type ?? "" };
}

/** Every call on a connection of its own, and none is answered. @param more headers, which decide the way */
async function attackHttp1(t: TestContext, { port }: Fixture, more: Record<string, string>): Promise<void> {
  const headers = { ...(await forged(port)), ...more };
  const piece = Buffer.alloc(MIB, "x");
  const isChunked = more["transfer-encoding"] !== undefined;
  const sockets: Socket[] = [];
  t.after(() => {
    for (const socket of sockets) socket.destroy();
  });
  for (const mib of HELD_MIB) {
    // One byte is missing for ever.
    const length: Record<string, string> = isChunked ? {} : { "content-length": String(mib * MIB + 1) };
    const head = Object.entries({ ...headers, ...length }).map(([name, value]) => `${name}: ${value}\r\n`);
    const socket = connect(port, "127.0.0.1");
    sockets.push(socket);
    socket.on("error", () => {});
    socket.resume();
    socket.write(`POST / HTTP/1.1\r\n${head.join("")}\r\n`);
    for (let sent = 0; sent < mib; sent++) {
      if (isChunked) socket.write(`${MIB.toString(16)}\r\n`);
      await new Promise((resolve) => socket.write(piece, resolve));
      if (isChunked) socket.write("\r\n");
    }
  }
}

async function attackHttp2(t: TestContext, { port, origin }: Fixture): Promise<void> {
  const { host, ...headers } = await forged(port);
  const session = http2.connect(origin);
  session.on("error", () => {});
  t.after(() => session.destroy());
  const piece = Buffer.alloc(MIB, "x");
  for (const mib of HELD_MIB) {
    const stream = session.request(
      { ":method": "POST", ":path": "/", ":authority": host, ...headers },
      { endStream: false },
    );
    stream.on("error", () => {});
    stream.resume();
    for (let sent = 0; sent < mib; sent++) await new Promise((resolve) => stream.write(piece, resolve));
  }
}

/** Until all that was sent has arrived, which is half of what the gateway holds. */
async function untilHeld(fixture: Fixture): Promise<void> {
  const held = /^headwater_api_body_bytes\{sender="unproven"\} (\d+)/m;
  while ((await metric(fixture, held)) < 128 * MIB) await new Promise((resolve) => setTimeout(resolve, 20));
}

function call2(
  session: http2.ClientHttp2Session,
  headers: Record<string, string>,
  body: string,
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const { host, ...others } = headers;
    const stream = session.request({ ":method": "POST", ":path": "/", ":authority": host, ...others });
    let status = 0;
    const chunks: Buffer[] = [];
    stream.on("response", (head) => {
      status = Number(head[":status"]);
    });
    stream.on("data", (chunk: Buffer) => chunks.push(chunk));
    stream.on("end", () => resolve(answerOf(status, Buffer.concat(chunks).toString())));
    stream.on("error", reject);
    stream.end(body);
  });
}

async function metric({ origin }: Fixture, line: RegExp): Promise<number> {
  const text = await (await fetch(`${origin}/metrics`)).text();
  return Number(line.exec(text)?.[1] ?? 0);
}

const ATTACKS: Record<string, (t: TestContext, fixture: Fixture) => Promise<void>> = {
  "HTTP/1.1 by the lane": (t, fixture) => attackHttp1(t, fixture, {}),
  "HTTP/1.1 by Node's server": (t, fixture) => attackHttp1(t, fixture, { "transfer-encoding": "chunked" }),
  "HTTP/2": attackHttp2,
};

/** At the console. @returns the cookie */
function signIn(agent: http.Agent, port: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const headers = { "content-type": "application/json" };
    const path = "/api/session";
    const request = http.request(
      { host: "127.0.0.1", port, method: "POST", path, headers, agent },
      (answer) => {
        const cookie = answer.headers["set-cookie"]![0]!.split(";")[0]!;
        answer.resume().once("end", () => setImmediate(resolve, cookie));
      },
    );
    request.on("error", reject);
    request.end(JSON.stringify({ accessKeyId: KEY.id, secretAccessKey: KEY.secret }));
  });
}

function look(agent: http.Agent, port: number, cookie: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const request = http.get(
      { host: "127.0.0.1", port, path: "/api/state", headers: { cookie }, agent },
      (answer) => answer.resume().once("end", () => setImmediate(resolve, answer.statusCode!)),
    );
    request.on("error", reject);
  });
}

/** As many as the gateway takes, and some more. */
const STRANGERS = 2_100;

test("connections that are held by who proves nothing keep nobody out", async (t) => {
  const fixture = await openFixture();
  t.after(fixture.close);
  const { port, origin } = fixture;
  await fixture.streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
  const headers = await signed(port, records, false);
  const ok = { status: 200, type: "" };
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  const session = http2.connect(origin);
  t.after(() => {
    agent.destroy();
    session.destroy();
  });
  let isSessionClosed = false;
  session.once("close", () => {
    isSessionClosed = true;
  });
  assert.deepEqual(await post(agent, port, headers, records), ok);
  assert.deepEqual(await call2(session, headers, records), ok);
  const [known] = Object.values(agent.freeSockets).flat();
  const viewer = new http.Agent({ keepAlive: true, maxSockets: 1 });
  t.after(() => viewer.destroy());
  const cookie = await signIn(viewer, port);
  const [viewersSocket] = Object.values(viewer.freeSockets).flat();
  const strangers: Socket[] = [];
  t.after(() => {
    for (const socket of strangers) socket.destroy();
  });
  while (strangers.length < STRANGERS) {
    const some = Array.from({ length: 100 }, () => connect(port, "127.0.0.1"));
    strangers.push(...some);
    await Promise.all(
      some.map(async (socket) => {
        socket.on("error", () => {});
        await new Promise((resolve) => {
          socket.once("connect", resolve);
          socket.once("close", resolve);
        });
        socket.write("GET /none HTTP/1.1\r\nHost: localhost\r\n");
      }),
    );
  }
  assert.deepEqual(await post(agent, port, headers, records), ok);
  assert.deepEqual(await call2(session, headers, records), ok);
  assert.equal(Object.values(agent.freeSockets).flat()[0], known, "it is still the same connection");
  assert.ok(!isSessionClosed);
  assert.equal(await look(viewer, port, cookie), 200);
  assert.equal(Object.values(viewer.freeSockets).flat()[0], viewersSocket);
  const fresh = new http.Agent({ keepAlive: true });
  t.after(() => fresh.destroy());
  assert.deepEqual(await post(fresh, port, headers, records), ok);
  const ended = /^headwater_api_connections_ended_total\{whose="oldest stranger"\} (\d+)/m;
  assert.ok((await metric(fixture, ended)) > 0);
});

/** As an SDK does: what is throttled is tried again, on the same connection. */
async function twice(ask: () => Promise<Answer>): Promise<Answer> {
  const first = await ask();
  if (first.status === 200) return first;
  assert.deepEqual(first, { status: 400, type: "ThrottlingException" });
  return await ask();
}

for (const [way, attack] of Object.entries(ATTACKS)) {
  test(`bodies that are held over ${way} by who knows no secret keep nobody out who does`, async (t) => {
    const fixture = await openFixture();
    t.after(fixture.close);
    const { port, origin } = fixture;
    await fixture.streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
    const agentOf = () => {
      const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
      t.after(() => agent.destroy());
      return agent;
    };
    const sessionOf = () => {
      const session = http2.connect(origin);
      t.after(() => session.destroy());
      return session;
    };
    const plain = await signed(port, records, false);
    const hashed = await signed(port, records, true);
    const chunked = { ...plain, "transfer-encoding": "chunked" };
    const ok = { status: 200, type: "" };

    const known = agentOf();
    const knownByNode = agentOf();
    const knownSession = sessionOf();
    assert.deepEqual(await post(known, port, plain, records), ok);
    assert.deepEqual(await post(knownByNode, port, chunked, records), ok);
    assert.deepEqual(await call2(knownSession, plain, records), ok);
    await attack(t, fixture);
    await untilHeld(fixture);

    // Those that have been here before notice nothing.
    for (let turn = 0; turn < 3; turn++) {
      assert.deepEqual(await post(known, port, plain, records), ok);
      assert.deepEqual(await post(knownByNode, port, chunked, records), ok);
      assert.deepEqual(await call2(knownSession, plain, records), ok);
    }
    // Nor do those whose heads show what they know.
    assert.deepEqual(await post(agentOf(), port, hashed, records), ok);
    assert.deepEqual(await post(agentOf(), port, { ...hashed, "transfer-encoding": "chunked" }, records), ok);
    assert.deepEqual(await call2(sessionOf(), hashed, records), ok);
    // All others are heard at their second try.
    const fresh = agentOf();
    assert.deepEqual(await twice(() => post(fresh, port, plain, records)), ok);
    const freshByNode = agentOf();
    assert.deepEqual(await twice(() => post(freshByNode, port, chunked, records)), ok);
    const freshSession = sessionOf();
    assert.deepEqual(await twice(() => call2(freshSession, plain, records)), ok);

    const refused =
      /^headwater_kinesis_requests_total\{operation="PutRecords",outcome="ThrottlingException"\} (\d+)/m;
    assert.equal(await metric(fixture, refused), 3);
    // Who only guesses is no better off by trying again.
    const guesser = agentOf();
    for (let turn = 0; turn < 3; turn++) {
      const answer = await post(guesser, port, await forged(port), records);
      assert.deepEqual(answer, { status: 400, type: "ThrottlingException" });
    }
  });
}

test("a device whose certificate is good, but who knows no secret, holds what strangers may", async (t) => {
  const fixture = await openFixture();
  t.after(fixture.close);
  const { port, streams } = fixture;
  await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
  // What comes by the TLS port, once it is known whose it is.
  const secure = createServer((socket) =>
    fixture.api.adopt(socket as TLSSocket, { device: "d", serial: "1" }),
  );
  await new Promise<void>((resolve) => secure.listen(0, "127.0.0.1", resolve));
  t.after(() => secure.close());
  const { port: securePort } = secure.address() as AddressInfo;
  const headers = await signed(port, records, false);
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  t.after(() => agent.destroy());
  assert.deepEqual(await post(agent, port, headers, records), { status: 200, type: "" });
  await attackHttp1(t, { ...fixture, port: securePort }, {});
  const held = /^headwater_api_body_bytes\{sender="(?:un)?proven"\} (\d{9,})/m;
  while ((await metric(fixture, held)) < 128 * MIB) await new Promise((resolve) => setTimeout(resolve, 20));
  assert.deepEqual(await post(agent, port, headers, records), { status: 200, type: "" });
  const unproven = /^headwater_api_body_bytes\{sender="unproven"\} (\d+)/m;
  assert.equal(await metric(fixture, unproven), 128 * MIB);
});
