/** The lists of tokens and devices as they may be found on disk: damaged, cut off, edited by hand. */
import assert from "node:assert/strict";
import { mkdir, mkdtemp, readFile, rmdir, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import fc from "fast-check";
import { DeviceRegistry, devicesIn } from "../../../gateway/identity/device-registry.ts";
import { TokenStore, tokensIn } from "../../../gateway/identity/tokens.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { removeFolder } from "../../support/remove-folder.ts";

async function folder(t: { after(work: () => Promise<void>): void }): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), "hw-lists-"));
  t.after(() => removeFolder(dir));
  return dir;
}

test("a token that is damaged is good no more, and hurts no other", async (t) => {
  const file = join(await folder(t), "tokens.json");
  const store = new TokenStore(file, systemClock);
  assert.equal(await store.start(), undefined);
  const one = await store.make("pi-1", 60_000);
  const two = await store.make("pi-2", 60_000);
  const text = await readFile(file, "utf8");
  const damaged = text.replace(/"hash":"([0-9a-f]{64})"/, (_, hash: string) => `"hash":"${hash.slice(2)}"`);
  await writeFile(file, damaged);
  const again = new TokenStore(file, systemClock);
  assert.deepEqual(await again.start(), { leftOut: 1, keptAt: `${file}.damaged` });
  assert.equal(await readFile(`${file}.damaged`, "utf8"), damaged);
  assert.throws(() => again.deviceOf(one), { code: "TOKEN_UNKNOWN" });
  assert.equal(again.deviceOf(two), "pi-2");
  assert.equal(await again.spend(two, "key"), "pi-2");
});

test("a token that a full disk kept from being spent is spent when it is used, also for the next start", async (t) => {
  const file = join(await folder(t), "tokens.json");
  const store = new TokenStore(file, systemClock);
  await store.start();
  const secret = await store.make("pi-1", 60_000);
  // Nothing can be written in its place.
  await mkdir(`${file}.tmp`);
  await assert.rejects(store.spend(secret, "key"));
  await rmdir(`${file}.tmp`);
  assert.equal(await store.spend(secret, "key"), "pi-1");
  const again = new TokenStore(file, systemClock);
  await again.start();
  await assert.rejects(again.spend(secret, "another key"), { code: "TOKEN_USED" });
});

test("a join that could not be written takes nothing from the device that is there", async (t) => {
  const file = join(await folder(t), "devices.json");
  const registry = new DeviceRegistry(file, systemClock);
  await registry.start();
  await registry.joined("pi-1", { serial: "01", notAfterMs: 5 });
  await mkdir(`${file}.tmp`);
  await assert.rejects(registry.joined("pi-1", { serial: "02", notAfterMs: 5 }));
  await assert.rejects(registry.joined("pi-2", { serial: "03", notAfterMs: 5 }));
  assert.deepEqual(
    [registry.admits("pi-1", "01"), registry.admits("pi-1", "02"), registry.list().length],
    [true, false, 1],
  );
  const revoked = [registry.joined("pi-1", { serial: "04", notAfterMs: 5 }), registry.revoke("pi-1")];
  for (const { status } of await Promise.allSettled(revoked)) assert.equal(status, "rejected");
  // What was revoked stays so, whatever the disk says.
  assert.equal(registry.admits("pi-1", "01"), false);
});

test("a certificate that a new join has ended renews nothing", async (t) => {
  const registry = new DeviceRegistry(join(await folder(t), "devices.json"), systemClock);
  await registry.start();
  await registry.joined("pi-1", { serial: "01", notAfterMs: 5 });
  await registry.joined("pi-1", { serial: "02", notAfterMs: 5 });
  await assert.rejects(registry.renewed("pi-1", "01", { serial: "03", notAfterMs: 9 }), {
    code: "DEVICE_UNKNOWN",
  });
  assert.deepEqual([registry.admits("pi-1", "02"), registry.admits("pi-1", "03")], [true, false]);
});

test("a list of devices that is damaged stops the start, and says where", async (t) => {
  const file = join(await folder(t), "devices.json");
  const registry = new DeviceRegistry(file, systemClock);
  await registry.start();
  await registry.joined("pi-1", { serial: "01", notAfterMs: 5 });
  const text = await readFile(file, "utf8");
  for (const [bad, reason] of [
    [text.replace('"serial":"01"', '"serial":1'), /DEVICE_REGISTRY.*the entry of pi-1 is damaged/],
    [text.slice(0, -10), /DEVICE_REGISTRY/],
    ["null", /it lists no devices/],
  ] as const) {
    await writeFile(file, bad);
    await assert.rejects(new DeviceRegistry(file, systemClock).start(), (error: Error & { code: string }) =>
      reason.test(`${error.code}: ${error.message}`),
    );
  }
  await writeFile(file, text);
  const again = new DeviceRegistry(file, systemClock);
  await again.start();
  assert.ok(again.admits("pi-1", "01"));
});

test("whatever stands in the files, it is read or refused, and what is read can be used", () => {
  const nearly = fc.record(
    {
      device: fc.oneof(fc.constant("pi-1"), fc.string(), fc.integer()),
      hash: fc.oneof(fc.stringMatching(/^[0-9a-f]{64}$/), fc.string(), fc.constant(null)),
      expiresMs: fc.oneof(fc.integer(), fc.string()),
      usedBy: fc.oneof(fc.string(), fc.integer()),
    },
    { requiredKeys: [] },
  );
  const text = fc.oneof(
    fc.string(),
    fc.json(),
    fc.array(fc.oneof(nearly, fc.anything())).map((tokens) => JSON.stringify({ tokens, devices: tokens })),
  );
  fc.assert(
    fc.property(text, (given) => {
      for (const { hash } of tokensIn(given).tokens) assert.equal(Buffer.from(hash, "hex").length, 32);
      try {
        for (const entry of Object.values(devicesIn(given))) assert.ok(entry.certificates.length > 0);
      } catch (error) {
        assert.ok(error instanceof Error && !(error instanceof TypeError), String(error));
      }
    }),
    { numRuns: 1_000 },
  );
});
