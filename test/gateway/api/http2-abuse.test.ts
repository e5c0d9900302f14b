/** What hostile HTTP/2 clients do to a port: it must cost them their connection and us next to nothing. */
import assert from "node:assert/strict";
import type { Socket } from "node:net";
import test, { type TestContext } from "node:test";
import { FLAG, FRAME, frame, settings } from "../../../bench/load/http2-frames.ts";
import { FrontDoor } from "../../../gateway/api/door/front-door.ts";
import { type Fixture, openFixture } from "./api-fixture.ts";
import { openRawHttp2 } from "./raw-http2.ts";

const CONTINUATION = 9;
const SECONDS = 5;

/** `:method GET`, `:scheme http`, `:path /` of the static table, and `:authority localhost` (RFC 7541). */
const GET_ROOT = Buffer.concat([Buffer.of(0x82, 0x86, 0x84, 0x41, 9), Buffer.from("localhost")]);

async function open(t: TestContext): Promise<Fixture> {
  const fixture = await openFixture();
  t.after(() => fixture.close());
  return fixture;
}

/** Sends until the server hangs up, or for SECONDS. @returns how many frames it took */
async function flood(socket: Socket, burst: (n: number) => Buffer, maxBursts: number): Promise<number> {
  const endMs = performance.now() + SECONDS * 1_000;
  let closed = false;
  socket.once("close", () => {
    closed = true;
  });
  let sent = 0;
  for (; sent < maxBursts && !closed && performance.now() < endMs; sent++) {
    if (!socket.write(burst(sent))) {
      await Promise.race([
        new Promise<void>((resolve) => socket.once("drain", resolve)),
        new Promise<void>((resolve) => socket.once("close", () => resolve())),
        new Promise<void>((resolve) => setTimeout(resolve, 500).unref()),
      ]);
      if (socket.writableLength > 16 * 1_048_576) break;
    } else await new Promise<void>((resolve) => setImmediate(resolve));
  }
  return sent;
}

async function staysWell(fixture: Fixture, before: NodeJS.MemoryUsage): Promise<void> {
  // Milliseconds, where nothing else goes on here; a minute of waiting frames would be thirty million.
  const signal = AbortSignal.timeout(30_000);
  assert.equal((await fetch(`${fixture.origin}/healthz`, { signal })).status, 200);
  const grownMiB = (process.memoryUsage().rss - before.rss) / 1_048_576;
  assert.ok(grownMiB < 150, `${Math.round(grownMiB)} MiB more`);
}

test("of requests that are reset at once only the first thousand or so are looked at", async (t) => {
  let requests = 0;
  const door = new FrontDoor(
    "127.0.0.1",
    0,
    (_, reply) => {
      requests++;
      reply.on("error", () => undefined);
      reply.end();
    },
    () => undefined,
  );
  await door.start();
  t.after(() => door.close());
  const socket = await openRawHttp2(t, door.address.port);
  socket.resume();
  let stream = -1;
  // HEADERS with END_STREAM and END_HEADERS, then RST_STREAM with CANCEL.
  const resetAtOnce = (): Buffer => {
    stream += 2;
    const both = FLAG.endStream | FLAG.endHeaders;
    const head = frame(FRAME.headers, both, stream, GET_ROOT);
    return Buffer.concat([head, frame(FRAME.reset, 0, stream, Buffer.of(0, 0, 0, 8))]);
  };
  await flood(socket, () => Buffer.concat(Array.from({ length: 100 }, resetAtOnce)), 200);
  await new Promise((resolve) => setTimeout(resolve, 200));
  assert.ok(requests > 0 && requests < 3_000, `${requests} of 20,000`);
});

for (const [what, one] of [
  ["SETTINGS", settings([])],
  ["PING", frame(FRAME.ping, 0, 0, Buffer.alloc(8))],
] as const) {
  test(`${what} whose answers nobody reads do not pile up`, async (t) => {
    const fixture = await open(t);
    const socket = await openRawHttp2(t, fixture.port);
    socket.pause();
    const before = process.memoryUsage();
    const burst = Buffer.concat(Array.from({ length: 1_000 }, () => one));
    const sent = await flood(socket, () => burst, 3_000);
    t.diagnostic(`stopped after ${sent * 1_000}`);
    await staysWell(fixture, before);
  });
}

test("headers without end are refused", async (t) => {
  const fixture = await open(t);
  const socket = await openRawHttp2(t, fixture.port);
  socket.resume();
  const before = process.memoryUsage();
  // RFC 7541 §6.2.2: a literal without indexing; HEADERS without END_HEADERS, then CONTINUATION for ever.
  const field = Buffer.concat([Buffer.of(0, 1), Buffer.from("a"), Buffer.of(100), Buffer.alloc(100, 0x61)]);
  const fields = Buffer.concat(Array.from({ length: 100 }, () => field));
  const next = (n: number): Buffer =>
    n === 0 ? frame(FRAME.headers, 0, 1, GET_ROOT) : frame(CONTINUATION, 0, 1, fields);
  const sent = await flood(socket, next, 20_000);
  t.diagnostic(`closed after ${sent} frames`);
  assert.ok(sent < 20_000, "200 MB of headers were taken");
  await staysWell(fixture, before);
});
