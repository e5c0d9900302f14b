/** A device has its certificate renewed when it is due, and not again and again. */
import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { mkdtemp, readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { Credentials } from "../../../agent/identity/credentials.ts";
import { callGateway } from "../../../agent/identity/gateway-call.ts";
import { makeKey, makeSigningRequest } from "../../../agent/identity/signing-request.ts";
import { Identity } from "../../../gateway/identity/identity.ts";
import { CERTIFICATE_PATH, JOIN_VERSION, parseToken } from "../../../protocol/joining.ts";
import type { Clock } from "../../../runtime/clock.ts";
import { silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { removeFolder } from "../../support/remove-folder.ts";
import { JoiningRig } from "./joining-rig.ts";

const DAY_MS = 86_400_000;
const AN_HOUR = 12;
const REQUEST = makeSigningRequest(makeKey(), "any");

/** A device that has joined just now, and hands to turn. */
async function joinedDevice(t: TestContext) {
  const dir = await mkdtemp(join(tmpdir(), "hw-pace-"));
  const hands = { utcMs: Date.UTC(2026, 0, 1), monotonicMs: 0 };
  const clock: Clock = { nowUs: () => hands.utcMs * 1_000, monotonicMs: () => hands.monotonicMs };
  const metrics = new Metrics();
  const identity = new Identity({
    ...{ dir, names: [], deviceDays: 90, lookMs: 3_600_000 },
    ...{ clock, log: silentLog, metrics },
  });
  await identity.start();
  t.after(async () => {
    await identity.close();
    await removeFolder(dir);
  });
  const { secret } = parseToken(await identity.makeToken("pi-1", 60_000));
  const { certificate } = await identity.join(secret, REQUEST);
  const pass = (ms: number): void => {
    hands.utcMs += ms;
    hands.monotonicMs += ms;
  };
  const counted = async (answer: string): Promise<number> => {
    const { values } = await metrics.counter("headwater_identity_certificates_total", "certificates").get();
    return values.find(({ labels }) => labels.kind === "renewal" && labels.answer === answer)?.value ?? 0;
  };
  const list = (): Promise<string> => readFile(join(dir, "devices.json"), "utf8");
  return { identity, serial: serialOf(certificate), pass, counted, list };
}

function serialOf(certificate: string): string {
  return new X509Certificate(certificate).serialNumber;
}

test("before the last third of its life a certificate is not renewed, and nothing is written", async (t) => {
  const { identity, serial, pass, counted, list } = await joinedDevice(t);
  const before = await list();
  pass(60 * DAY_MS - 1_000);
  await assert.rejects(identity.renew("pi-1", serial, REQUEST), {
    code: "CERTIFICATE_NOT_DUE",
    message: /of pi-1 is not renewed before 2026-03-02T00:00:00/,
  });
  assert.equal(await counted("refused"), 1);
  assert.equal(await list(), before);
  pass(1_000);
  const renewed = await identity.renew("pi-1", serial, REQUEST);
  await assert.rejects(identity.renew("pi-1", serialOf(renewed.certificate), REQUEST), {
    code: "CERTIFICATE_NOT_DUE",
  });
});

test("a device whose answers are lost is heard again, but not more often than a few times an hour", async (t) => {
  const { identity, serial, pass, counted, list } = await joinedDevice(t);
  pass(61 * DAY_MS);
  let newest = "";
  const renew = async (): Promise<void> => {
    newest = serialOf((await identity.renew("pi-1", serial, REQUEST)).certificate);
  };
  for (let i = 0; i < AN_HOUR; i++) await renew();
  const before = await list();
  for (let i = 0; i < 100; i++) await assert.rejects(renew(), { code: "RENEWALS_TOO_MANY" });
  assert.equal(await list(), before);
  assert.deepEqual([await counted("given"), await counted("refused")], [AN_HOUR, 100]);
  // Some minutes later it is heard once more, and so on until one arrives.
  for (let i = 0; i < 20; i++) {
    pass(3_600_000 / AN_HOUR + 1);
    await renew();
    await assert.rejects(renew(), { code: "RENEWALS_TOO_MANY" });
  }
  assert.equal(identity.certificate("pi-1", newest).isDue, false);
  // The one that arrived has its own allowance.
  pass(61 * DAY_MS);
  const first = newest;
  for (let i = 0; i < AN_HOUR; i++) await identity.renew("pi-1", first, REQUEST);
  await assert.rejects(identity.renew("pi-1", first, REQUEST), { code: "RENEWALS_TOO_MANY" });
});

test("a revoked device is told that it is unknown, before anything is signed", async (t) => {
  const { identity, serial, pass } = await joinedDevice(t);
  pass(61 * DAY_MS);
  await identity.revoke("pi-1");
  await assert.rejects(identity.renew("pi-1", serial, Buffer.from("no request")), { code: "DEVICE_UNKNOWN" });
});

test("over HTTPS a device that asks too early is told so", async (t) => {
  const rig = await JoiningRig.start(t);
  await rig.joined("pi-1");
  const credentials = (await Credentials.open(join(rig.dir, "data")))!;
  const address = { host: "127.0.0.1", port: rig.port("https") };
  const trust = { tls: credentials.tls(), signal: new AbortController().signal };
  const body = { version: JOIN_VERSION, request: REQUEST.toString("base64") };
  await assert.rejects(callGateway(address, trust, "POST", CERTIFICATE_PATH, body), {
    code: "CERTIFICATE_NOT_DUE",
    // As any answer below 500 is.
    retryable: false,
  });
});
