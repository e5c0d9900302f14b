/** Bodies that nobody asked for, sent over HTTP/2 by a client that does not take its answers. */
import assert from "node:assert/strict";
import { once } from "node:events";
import type { Socket } from "node:net";
import test, { type TestContext } from "node:test";
import { FLAG, FRAME, frame, headerBlock, windowUpdate } from "../../../../bench/load/http2-frames.ts";
import { pause } from "../../../../runtime/backoff.ts";
import { bufferBytes, heldAtMost } from "../../../support/held-memory.ts";
import { openFixture } from "../api-fixture.ts";
import { NO_WINDOW, openRawHttp2, SETTINGS_ACK } from "../raw-http2.ts";

const STREAMS = 64;
/** As much as a stream's window allows without being widened. */
const BODY_BYTES = 1_000_000;
/** Of 64 MB that are sent. */
const MAX_HELD_BYTES = 16 * 1_048_576;

/** Of a POST; literals as in RFC 7541 §6.2.2, whose names stand in the static table. */
function postBlock(path: string, authority: string): Buffer {
  const literal = (name: number, text: string) =>
    Buffer.concat([Buffer.of(name, text.length), Buffer.from(text)]);
  return Buffer.concat([Buffer.of(0x83, 0x86), literal(4, path), literal(1, authority)]);
}

/** Also when the connection is gone. */
function send(socket: Socket, bytes: Buffer): Promise<void> {
  return new Promise((resolve) => socket.write(bytes, () => resolve()));
}

async function attack(t: TestContext, port: number, fields: Buffer): Promise<Socket> {
  const socket = await openRawHttp2(t, port, NO_WINDOW);
  socket.resume();
  await send(socket, SETTINGS_ACK);
  const piece = Buffer.alloc(16_384, "x");
  for (let i = 0; i < STREAMS; i++) {
    const stream = 2 * i + 1;
    await send(socket, frame(FRAME.headers, FLAG.endHeaders, stream, fields));
    for (let sent = 0; sent < BODY_BYTES; sent += piece.length) {
      await send(socket, frame(FRAME.data, 0, stream, piece.subarray(0, BODY_BYTES - sent)));
    }
  }
  return socket;
}

const REFUSED: Record<string, (authority: string) => Buffer> = {
  "calls that nobody signed": (authority) =>
    headerBlock(authority, { "x-amz-target": "Kinesis_20131202.PutRecords" }),
  "requests for nothing": (authority) => postBlock("/nothing", authority),
};

for (const [what, fieldsOf] of Object.entries(REFUSED)) {
  test(`bodies of ${what} are thrown away as they come`, async (t) => {
    const fixture = await openFixture();
    t.after(fixture.close);
    const before = bufferBytes();
    const socket = await attack(t, fixture.port, fieldsOf(`127.0.0.1:${fixture.port}`));
    // Behind all that was sent: its answer shows that this has been read.
    const heard: Buffer[] = [];
    socket.on("data", (chunk) => heard.push(chunk));
    await send(socket, frame(FRAME.ping, 0, 0, Buffer.from("all sent")));
    while (!Buffer.concat(heard).includes("all sent")) await once(socket, "data");
    assert.ok(!socket.destroyed);
    await heldAtMost(MAX_HELD_BYTES, before);
    assert.equal((await fetch(`${fixture.origin}/healthz`)).status, 200);
  });
}

test("who asks for nothing to be read still gets the answer", async (t) => {
  const fixture = await openFixture();
  t.after(fixture.close);
  const socket = await openRawHttp2(t, fixture.port, NO_WINDOW);
  const heard: Buffer[] = [];
  socket.on("data", (chunk) => heard.push(chunk));
  const fields = headerBlock(`127.0.0.1:${fixture.port}`, {});
  await send(socket, SETTINGS_ACK);
  await send(socket, frame(FRAME.headers, FLAG.endHeaders, 1, fields));
  await send(socket, frame(FRAME.data, 0, 1, Buffer.alloc(10_000)));
  await pause(50);
  await send(socket, windowUpdate(1, 100_000));
  while (!Buffer.concat(heard).includes("__type")) await once(socket, "data");
});
