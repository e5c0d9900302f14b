/** Raw sockets against the port: both protocols, and everything that is neither. */
import assert from "node:assert/strict";
import http2 from "node:http2";
import { connect, type Socket } from "node:net";
import test, { type TestContext } from "node:test";
import fc from "fast-check";
import { FrontDoor } from "../../../../gateway/api/door/front-door.ts";
import { PortBusyError } from "../../../../runtime/listen.ts";
import { type Fixture, openFixture } from "../api-fixture.ts";
import { sign } from "../sign.ts";

async function open(t: TestContext): Promise<Fixture> {
  const fixture = await openFixture();
  t.after(() => fixture.close());
  return fixture;
}

/** Everything that the other side sends until it closes. */
function untilClosed(socket: Socket): Promise<string> {
  return new Promise((resolve) => {
    const chunks: Buffer[] = [];
    socket.on("data", (chunk) => chunks.push(chunk));
    socket.on("error", () => {});
    socket.on("close", () => resolve(Buffer.concat(chunks).toString("latin1")));
  });
}

async function exchange(port: number, bytes: string | Uint8Array): Promise<string> {
  const socket = connect(port, "127.0.0.1");
  const answer = untilClosed(socket);
  socket.end(bytes);
  return answer;
}

test("a request that comes byte by byte is answered, in either protocol", async (t) => {
  const { port } = await open(t);
  const drip = async (bytes: Buffer, end: boolean): Promise<string> => {
    const socket = connect(port, "127.0.0.1");
    socket.setNoDelay(true);
    const chunks: string[] = [];
    socket.on("data", (chunk) => chunks.push(chunk.toString("latin1")));
    const closed = new Promise<void>((resolve) => socket.once("close", () => resolve()));
    for (const byte of bytes) {
      socket.write(Buffer.from([byte]));
      await new Promise((resolve) => setImmediate(resolve));
    }
    if (end) await closed;
    else {
      while (chunks.length === 0) await new Promise((resolve) => socket.once("data", resolve));
      socket.destroy();
    }
    return chunks.join("");
  };
  const answer = await drip(
    Buffer.from("GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
    true,
  );
  assert.match(answer, /^HTTP\/1\.1 200 OK\r\n/);
  assert.match(answer, /"status":"ok"/);
  // RFC 9113 §3.4: the preface and an empty SETTINGS frame; the server's own SETTINGS come back.
  const preface = Buffer.concat([
    Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]),
  ]);
  const settings = await drip(preface, false);
  assert.equal(settings.charCodeAt(3), 4, "a SETTINGS frame");
});

test("many calls share one HTTP/2 connection", async (t) => {
  const { origin } = await open(t);
  const session = http2.connect(origin);
  t.after(() => session.close());
  const statuses = await Promise.all(
    Array.from({ length: 60 }, async () => {
      const stream = session.request({ ":path": "/healthz" });
      stream.resume();
      return await new Promise((resolve) =>
        stream.once("response", (headers) => resolve(headers[":status"])),
      );
    }),
  );
  assert.deepEqual(new Set(statuses), new Set([200]));
});

test("pipelined requests are answered in order", async (t) => {
  const { port } = await open(t);
  const one = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
  const last = "GET /nothing.js HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
  const socket = connect(port, "127.0.0.1");
  const answered = untilClosed(socket);
  socket.write(one + one + last);
  const answer = await answered;
  assert.deepEqual(
    [...answer.matchAll(/HTTP\/1\.1 (\d+)/g)].map((match) => match[1]),
    ["200", "200", "404"],
  );
});

test("a head that is too long, and what is no HTTP, are answered shortly and let go", async (t) => {
  const { port } = await open(t);
  const long = `GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: ${"a".repeat(20_000)}\r\n\r\n`;
  assert.match(await exchange(port, long), /^HTTP\/1\.1 431 /);
  assert.match(await exchange(port, "hello there\r\n\r\n"), /^HTTP\/1\.1 400 /);
  assert.match(await exchange(port, Buffer.from([0x16, 3, 1, 2, 0, 1])), /^HTTP\/1\.1 400 /, "TLS");
  assert.equal(await exchange(port, ""), "");
  const both =
    "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
  assert.match(await exchange(port, both), /^HTTP\/1\.1 400 /, "RFC 9112 §6.3: request smuggling");
});

test("an AWS body beyond 16 MiB gets 413, also when it declares no length", async (t) => {
  const { port, origin } = await open(t);
  const body = Buffer.alloc(16 * 1_048_576 + 1, " ");
  const headers = await sign({
    headers: { host: new URL(origin).host, "x-amz-target": "Kinesis_20131202.ListStreams" },
    body,
  });
  const head = Object.entries(headers)
    .map(([name, value]) => `${name}: ${value}\r\n`)
    .join("");
  const declared = `POST / HTTP/1.1\r\n${head}Content-Length: ${body.length}\r\n\r\n`;
  const answer = await exchange(port, Buffer.concat([Buffer.from(declared), body]));
  assert.match(answer, /^HTTP\/1\.1 413 /);
  assert.match(answer, /"__type":"RequestEntityTooLargeException"/);
  const chunked = `POST / HTTP/1.1\r\n${head}Transfer-Encoding: chunked\r\n\r\n${body.length.toString(16)}\r\n`;
  const again = await exchange(
    port,
    Buffer.concat([Buffer.from(chunked), body, Buffer.from("\r\n0\r\n\r\n")]),
  );
  assert.match(again, /^HTTP\/1\.1 413 /);
});

test("a client that leaves in the middle of its body harms nobody", async (t) => {
  const { port, origin } = await open(t);
  const headers = await sign({
    headers: { host: new URL(origin).host, "x-amz-target": "Kinesis_20131202.ListStreams" },
    body: "{}",
  });
  const head = Object.entries(headers)
    .map(([name, value]) => `${name}: ${value}\r\n`)
    .join("");
  for (let i = 0; i < 20; i++) {
    const socket = connect(port, "127.0.0.1");
    socket.on("error", () => {});
    socket.write(`POST / HTTP/1.1\r\n${head}Content-Length: 1000000\r\n\r\n${"x".repeat(i * 1_000)}`);
    await new Promise((resolve) => setImmediate(resolve));
    socket.resetAndDestroy();
  }
  assert.equal((await fetch(`${origin}/healthz`)).status, 200);
});

test("whatever bytes come first, the next client is served", async (t) => {
  const { port, origin } = await open(t);
  const preface = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(Buffer.alloc(0), preface.subarray(0, 7), preface, Buffer.from("GET / HTTP/1.1\r\n")),
      fc.uint8Array({ maxLength: 400 }),
      async (start, rest) => {
        await exchange(port, Buffer.concat([start, rest]));
      },
    ),
    { numRuns: 200 },
  );
  assert.equal((await fetch(`${origin}/healthz`)).status, 200);
});

test("a busy port is a clear error", async (t) => {
  const { port } = await open(t);
  const second = new FrontDoor(
    "127.0.0.1",
    port,
    () => {},
    () => {},
  );
  await assert.rejects(second.start(), (error: PortBusyError) => {
    assert.ok(error instanceof PortBusyError);
    assert.equal(error.code, "PORT_BUSY");
    return true;
  });
  await second.close();
});

test("closing answers what has begun and leaves no connection", async () => {
  const fixture = await openFixture();
  const idle = connect(fixture.port, "127.0.0.1");
  await new Promise((resolve) => idle.once("connect", resolve));
  const session = http2.connect(fixture.origin);
  session.on("error", () => {});
  await new Promise((resolve) => session.once("remoteSettings", resolve));
  const silent = untilClosed(idle);
  await Promise.all([fixture.api.close(), fixture.api.close()]);
  await silent;
  await fixture.close();
  await assert.rejects(fetch(`${fixture.origin}/healthz`));
});
