/** What may happen while a device joins and stays: it is revoked, an answer is lost, strangers knock, the clock jumps. */
import assert from "node:assert/strict";
import { randomBytes, X509Certificate } from "node:crypto";
import { once } from "node:events";
import { mkdtemp } from "node:fs/promises";
import { connect as connectPlain, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { connect } from "node:tls";
import { makeKey, makeSigningRequest } from "../../../agent/identity/signing-request.ts";
import { Identity } from "../../../gateway/identity/identity.ts";
import { parseToken } from "../../../protocol/joining.ts";
import { type Clock, systemClock } from "../../../runtime/clock.ts";
import { type Log, silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { removeFolder } from "../../support/remove-folder.ts";

const DAY_MS = 86_400_000;
const KEY = makeKey();

async function started(
  t: TestContext,
  { clock = systemClock, log = silentLog }: { clock?: Clock; log?: Log } = {},
): Promise<Identity> {
  const dir = await mkdtemp(join(tmpdir(), "hw-identity-"));
  const identity = new Identity({
    dir,
    names: [],
    deviceDays: 90,
    lookMs: 3_600_000,
    clock,
    log,
    metrics: new Metrics(),
  });
  await identity.start();
  t.after(async () => {
    await identity.close();
    await removeFolder(dir);
  });
  return identity;
}

function signingRequest(): Buffer {
  return makeSigningRequest(KEY, "any");
}

function secretOf(token: string): Buffer {
  return parseToken(token).secret;
}

/** Also when it was reset, for which `once` of node:events would reject. */
function closed(socket: Socket): Promise<unknown> {
  return new Promise((resolve) => socket.once("close", resolve));
}

/** As Node's TLS shows it to the gateway. */
function serialOf(certificate: string): string {
  return new X509Certificate(certificate).serialNumber;
}

test("a device that is revoked while it joins again stays revoked, whenever that comes", async (t) => {
  const identity = await started(t);
  const request = signingRequest();
  for (let turns = 0; turns < 12; turns++) {
    const secret = secretOf(await identity.makeToken("pi-1", 60_000));
    await identity.join(secret, request);
    // The same key may ask again, as its answer may have been lost.
    const again = identity.join(secret, request).catch((error: { code: string }) => error);
    for (let i = 0; i < turns; i++) await new Promise((resolve) => setImmediate(resolve));
    await identity.revoke("pi-1");
    await again;
    assert.deepEqual(
      identity.devices().map(({ state }) => state),
      ["revoked"],
      `after ${turns} turns`,
    );
    await assert.rejects(identity.join(secret, request), { code: "TOKEN_UNKNOWN" });
  }
});

test("a token is taken back before anybody has joined with it", async (t) => {
  const identity = await started(t);
  const secret = secretOf(await identity.makeToken("pi-9", 60_000));
  await identity.revoke("pi-9");
  await assert.rejects(identity.join(secret, signingRequest()), { code: "TOKEN_UNKNOWN" });
  assert.deepEqual(identity.devices(), []);
  await assert.rejects(identity.revoke("pi-9"), { code: "DEVICE_UNKNOWN" });
});

test("a device whose renewal was answered into the void is told again that it is due", async (t) => {
  let aheadMs = 0;
  const clock = { ...systemClock, nowUs: () => systemClock.nowUs() + aheadMs * 1_000 };
  const identity = await started(t, { clock });
  const joined = await identity.join(secretOf(await identity.makeToken("pi-1", 60_000)), signingRequest());
  const serial = serialOf(joined.certificate);
  assert.equal(identity.certificate("pi-1", serial).isDue, false);
  aheadMs = 61 * DAY_MS;
  assert.equal(identity.certificate("pi-1", serial).isDue, true);
  // Its connection is cut before it has heard.
  const lost = await identity.renew("pi-1", serial, signingRequest());
  assert.deepEqual(identity.certificate("pi-1", serial), { notAfterMs: joined.notAfterMs, isDue: true });
  const renewed = await identity.renew("pi-1", serial, signingRequest());
  assert.equal(identity.certificate("pi-1", serialOf(renewed.certificate)).isDue, false);
  assert.throws(() => identity.certificate("pi-1", serialOf(lost.certificate)), { code: "DEVICE_UNKNOWN" });
});

test("strangers' thousands of joins are few lines in the log, and hide no token that was used twice", async (t) => {
  const lines: string[] = [];
  const log = { ...silentLog, warn: (_: object, message: string) => void lines.push(message) };
  const identity = await started(t, { log });
  const request = signingRequest();
  for (let i = 0; i < 50; i++)
    await assert.rejects(identity.join(randomBytes(20), request), { code: "TOKEN_UNKNOWN" });
  assert.equal(lines.length, 10);
  const secret = secretOf(await identity.makeToken("pi-1", 60_000));
  await identity.join(secret, request);
  await assert.rejects(identity.join(secret, makeSigningRequest(makeKey(), "thief")), { code: "TOKEN_USED" });
  assert.match(lines.at(-1)!, /TOKEN_USED/);
});

test("strangers who do not end their handshakes keep nobody out", async (t) => {
  const lines: string[] = [];
  const log = { ...silentLog, warn: (_: object, message: string) => void lines.push(message) };
  const identity = await started(t, { log });
  const { port } = await identity.listen({
    host: "127.0.0.1",
    port: 0,
    maxHandshakes: 3,
    take: (socket) => socket.end("in"),
  });
  const strangers = await Promise.all(
    Array.from({ length: 3 }, async () => {
      const socket = connectPlain(port, "127.0.0.1");
      socket.on("error", () => {});
      await once(socket, "connect");
      return socket;
    }),
  );
  const gone = strangers.map(closed);
  for (let i = 0; i < 3; i++) {
    const honest = connect({ host: "127.0.0.1", port, rejectUnauthorized: false });
    const [said] = await once(honest, "data");
    assert.equal(String(said), "in");
  }
  await Promise.race(gone);
  assert.match(lines[0]!, /too many/);
});

test("strangers' certificates are few lines in the log, and hide no device that was revoked", async (t) => {
  const lines: string[] = [];
  const log = { ...silentLog, warn: (_: object, message: string) => void lines.push(message) };
  const identity = await started(t, { log });
  const other = await started(t);
  const ofOther = await other.join(secretOf(await other.makeToken("pi-1", 60_000)), signingRequest());
  const mine = await identity.join(secretOf(await identity.makeToken("pi-1", 60_000)), signingRequest());
  await identity.revoke("pi-1");
  lines.length = 0;
  const { port } = await identity.listen({ host: "127.0.0.1", port: 0, take: (socket) => socket.destroy() });
  const knock = async (cert: string): Promise<void> => {
    const socket = connect({ host: "127.0.0.1", port, rejectUnauthorized: false, cert, key: KEY });
    socket.on("error", () => {});
    socket.resume();
    await closed(socket);
  };
  for (let i = 0; i < 20; i++) await knock(ofOther.certificate);
  assert.equal(lines.length, 10);
  await knock(mine.certificate);
  assert.equal(lines.length, 11);
  assert.match(lines.at(-1)!, /revoked/);
});
