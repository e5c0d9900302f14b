/** What may happen while a device joins: it is revoked, or nobody has heard of it. */
import "reflect-metadata";
import assert from "node:assert/strict";
import { webcrypto } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { Pkcs10CertificateRequestGenerator } from "@peculiar/x509";
import { Identity } from "../../../gateway/identity/identity.ts";
import { parseToken } from "../../../protocol/joining.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";

const KEY_KIND = { name: "ECDSA", namedCurve: "P-256" };

async function started(t: TestContext): Promise<Identity> {
  const dir = await mkdtemp(join(tmpdir(), "hw-identity-"));
  const identity = new Identity({
    dir,
    names: [],
    deviceDays: 90,
    lookMs: 3_600_000,
    clock: systemClock,
    log: silentLog,
    metrics: new Metrics(),
  });
  await identity.start();
  t.after(async () => {
    await identity.close();
    await rm(dir, { recursive: true, force: true });
  });
  return identity;
}

async function signingRequest(): Promise<Buffer> {
  const keys = await webcrypto.subtle.generateKey(KEY_KIND, true, ["sign", "verify"]);
  const signingAlgorithm = { name: "ECDSA", hash: "SHA-256" };
  const { rawData } = await Pkcs10CertificateRequestGenerator.create({
    name: "CN=any",
    keys,
    signingAlgorithm,
  });
  return Buffer.from(rawData);
}

test("a device that is revoked while it joins again stays revoked, whenever that comes", async (t) => {
  const identity = await started(t);
  const request = await signingRequest();
  for (let turns = 0; turns < 12; turns++) {
    const { secret } = parseToken(await identity.makeToken("pi-1", 60_000));
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
  const { secret } = parseToken(await identity.makeToken("pi-9", 60_000));
  await identity.revoke("pi-9");
  await assert.rejects(identity.join(secret, await signingRequest()), { code: "TOKEN_UNKNOWN" });
  assert.deepEqual(identity.devices(), []);
  await assert.rejects(identity.revoke("pi-9"), { code: "DEVICE_UNKNOWN" });
});
