/** HTTP/2 connections that rest, in health or not. */
import assert from "node:assert/strict";
import http2 from "node:http2";
import { type AddressInfo, connect } from "node:net";
import test, { type TestContext } from "node:test";
import { destroyWhenLeft, endWhenIdle } from "../../../../gateway/api/door/idle-session.ts";

/** For those whose time is to run out. */
const DEADLINES = { keepAliveMs: 200, requestMs: 60_000, pingMs: 300 };

/** A server whose answers begin, and go on until their client goes. */
async function open(t: TestContext, deadlines = DEADLINES): Promise<{ port: number; ended: Promise<void> }> {
  const server = http2.createServer();
  const ended = new Promise<void>((resolve) => {
    server.on("session", (session) => {
      endWhenIdle(session, deadlines);
      session.on("error", () => undefined);
      session.once("close", () => resolve());
    });
  });
  server.on("sessionError", () => undefined);
  server.on("stream", (stream) => {
    stream.respond({ ":status": 200 });
    stream.write("first");
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => server.close());
  return { port: (server.address() as AddressInfo).port, ended };
}

test("a connection without a request is let go, one with a request stays while its client is there", async (t) => {
  // On a busy machine an answer to a ping, or the first request, may come late: a timer that was due meanwhile
  // is heard before the socket.
  const { port, ended } = await open(t, { ...DEADLINES, keepAliveMs: 1_000, pingMs: 60_000 });
  const client = http2.connect(`http://127.0.0.1:${port}`);
  const stream = client.request({ ":path": "/" });
  await new Promise((resolve) => stream.once("data", resolve));
  let pings = 0;
  await new Promise<void>((resolve) =>
    client.on("ping", () => {
      if (++pings === 3) resolve();
    }),
  );
  assert.equal(client.destroyed, false);
  stream.close();
  await ended;
  client.destroy();
});

for (const leaves of [true, false]) {
  const what = leaves ? "and then left" : "and stays";
  test(`a client that broke the protocol with a request open ${what} does not keep its connection`, async (t) => {
    const { port, ended } = await open(t);
    const socket = connect(port, "127.0.0.1");
    t.after(() => socket.destroy());
    // RFC 9113 §3.4 and §6: the preface, SETTINGS, HEADERS of stream 1, then DATA of no stream.
    const post = Buffer.concat([Buffer.of(0x83, 0x86, 0x84, 0x41, 9), Buffer.from("localhost")]);
    const headers = Buffer.concat([Buffer.of(0, 0, post.length, 1, 4, 0, 0, 0, 1), post]);
    const settings = Buffer.of(0, 0, 0, 4, 0, 0, 0, 0, 0);
    const data = Buffer.of(0, 0, 0, 0, 0, 0, 0, 0, 0);
    const preface = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    socket.write(Buffer.concat([preface, settings, headers, data]));
    await new Promise((resolve) => socket.once("data", resolve));
    if (leaves) socket.destroy();
    else socket.resume();
    await ended;
  });
}

test("a client that never ends its side of a closed connection does not keep it", async (t) => {
  const server = http2.createServer();
  const gone = new Promise<void>((resolve) => {
    server.on("connection", (socket) => {
      destroyWhenLeft(socket, DEADLINES.pingMs);
      socket.once("close", () => resolve());
    });
  });
  server.on("session", (session) => endWhenIdle(session, DEADLINES));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => server.close());
  const { port } = server.address() as AddressInfo;
  const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
  t.after(() => socket.destroy());
  socket.write(Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
  socket.write(Buffer.of(0, 0, 0, 4, 0, 0, 0, 0, 0));
  let ended = false;
  socket.on("end", () => {
    ended = true;
  });
  socket.on("error", () => undefined);
  socket.resume();
  await gone;
  assert.ok(ended, "it was closed in peace first");
});
