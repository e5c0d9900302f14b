/** The certificate authority: what it signs, and what it makes of bytes that are no signing request. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { generateKeyPairSync, X509Certificate } from "node:crypto";
import { mkdtemp, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import fc from "fast-check";
import { makeKey, makeSigningRequest } from "../../../agent/identity/signing-request.ts";
import {
  CertificateAuthority,
  CertificateAuthorityError,
  requestKeyHash,
  SigningRequestError,
} from "../../../gateway/identity/ca.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { removeFolder } from "../../support/remove-folder.ts";

async function folder(t: TestContext): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), "hw-ca-"));
  t.after(() => removeFolder(dir));
  return dir;
}

test("the authority is the same after a restart, and a damaged one is not replaced", async (t) => {
  const dir = await folder(t);
  const first = await CertificateAuthority.open(dir, systemClock);
  const second = await CertificateAuthority.open(dir, systemClock);
  assert.deepEqual(second.fingerprint, first.fingerprint);
  const issued = await second.issueDevice("pi-1", makeSigningRequest(makeKey(), "pi-1"), 90);
  const certificate = new X509Certificate(issued.pem);
  assert.ok(certificate.verify(new X509Certificate(first.certificatePem).publicKey));
  assert.equal(certificate.serialNumber, issued.serial);
  const file = join(dir, "ca.pem");
  const text = await readFile(file, "utf8");
  for (const damaged of [
    "",
    text.slice(0, text.length / 2),
    text.replace(/[A-Za-z0-9]{40}/, "A".repeat(40)),
  ]) {
    await writeFile(file, damaged);
    await assert.rejects(CertificateAuthority.open(dir, systemClock), CertificateAuthorityError);
  }
});

test("an authority that was made before the machine knew the time is good for as long as any other", async (t) => {
  const dir = await folder(t);
  await CertificateAuthority.open(dir, { ...systemClock, nowUs: () => 5_000_000 });
  const { certificatePem } = await CertificateAuthority.open(dir, systemClock);
  const leftDays = (Date.parse(new X509Certificate(certificatePem).validTo) - Date.now()) / 86_400_000;
  assert.ok(leftDays > 10 * 365, `${leftDays} days`);
});

test("the name in a request counts for nothing", async (t) => {
  const authority = await CertificateAuthority.open(await folder(t), systemClock);
  const issued = await authority.issueDevice("pi-1", makeSigningRequest(makeKey(), "gateway"), 90);
  assert.equal(new X509Certificate(issued.pem).subject, "CN=pi-1");
});

test("a request of another kind of key, or signed by another key, is refused", async (t) => {
  const dir = await folder(t);
  const requestOf = async (keyPem: string): Promise<Buffer> => {
    const file = join(dir, "key.pem");
    await writeFile(file, keyPem);
    return execFileSync("openssl", ["req", "-new", "-key", file, "-subj", "/CN=x", "-outform", "DER"]);
  };
  const pem = { type: "pkcs8", format: "pem" } as const;
  const rsa = generateKeyPairSync("rsa", { modulusLength: 2_048 }).privateKey.export(pem).toString();
  const p384 = generateKeyPairSync("ec", { namedCurve: "P-384" }).privateKey.export(pem).toString();
  const p256 = await requestOf(makeKey());
  assert.match(await requestKeyHash(p256), /^[0-9a-f]{64}$/);
  for (const other of [await requestOf(rsa), await requestOf(p384)])
    await assert.rejects(requestKeyHash(other), SigningRequestError);
  const forged = Buffer.from(p256);
  forged[forged.length - 1]! ^= 1;
  await assert.rejects(requestKeyHash(forged), SigningRequestError);
});

test("changed bytes are refused, or are still the request of the very same key", async () => {
  const good = makeSigningRequest(makeKey(), "pi-1");
  const whose = await requestKeyHash(good);
  const flipped = fc
    .tuple(fc.nat(good.length - 1), fc.integer({ min: 1, max: 255 }), fc.nat(good.length))
    .map(([at, bits, end]) => {
      const bytes = Buffer.from(good);
      bytes[at]! ^= bits;
      return bytes.subarray(0, end === 0 ? good.length : end);
    });
  await fc.assert(
    fc.asyncProperty(fc.oneof(flipped, fc.uint8Array({ maxLength: 300 })), async (bytes) => {
      const hash = await requestKeyHash(bytes).catch((error: unknown) => error);
      assert.ok(hash === whose || hash instanceof SigningRequestError, String(hash));
    }),
    { numRuns: 400 },
  );
});
