/** Certificates that the gateway was given, made by openssl as an operator makes them; and what `--check` says of them. */
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { after } from "node:test";
import {
  certificateDoubts,
  readGiven,
  ServerCertificateError,
} from "../../../gateway/identity/given-certificate.ts";
import { nodeFlags, scriptPath } from "../../support/script.ts";

const folder = mkdtempSync(join(tmpdir(), "headwater-given-"));
after(() => rmSync(folder, { recursive: true }));
const at = (name: string): string => join(folder, name);
const openssl = (...args: string[]): void =>
  void execFileSync("openssl", args, { cwd: folder, stdio: "pipe" });
const DAY_MS = 86_400_000;

for (const name of ["gw", "other"])
  openssl(
    ...["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"],
    ...["-keyout", `${name}.key`, "-out", `${name}.crt`, "-subj", "/CN=gw"],
    ...["-addext", "subjectAltName=DNS:gw.farm,IP:10.0.0.1"],
  );
openssl("ec", "-in", "gw.key", "-aes128", "-passout", "pass:abcd", "-out", "locked.key");
openssl("x509", "-in", "gw.crt", "-outform", "DER", "-out", "gw.der");
writeFileSync(at("empty.pem"), "");
writeFileSync(at("damaged.crt"), readFileSync(at("gw.crt"), "utf8").replace(/\nM.{20}/, "\nMAAAA"));
mkdirSync(at("folder.pem"));

/** What cannot be used: its option, its file and why. */
const UNUSABLE = [
  ["gw.crt", "other.key", "keyFile", /other\.key is not the key of .*gw\.crt$/],
  ["gw.crt", "nowhere.key", "keyFile", /nowhere\.key is not there$/],
  ["nowhere.crt", "gw.key", "certFile", /nowhere\.crt is not there$/],
  ["gw.key", "gw.crt", "certFile", /gw\.key holds no certificate, but a key$/],
  ["gw.crt", "other.crt", "keyFile", /other\.crt holds no private key, but a certificate$/],
  ["gw.crt", "locked.key", "keyFile", /locked\.key is locked with a passphrase/],
  ["gw.der", "gw.key", "certFile", /gw\.der holds no certificate in PEM, but perhaps one in DER/],
  ["empty.pem", "gw.key", "certFile", /empty\.pem holds no certificate: it is empty$/],
  ["damaged.crt", "gw.key", "certFile", /damaged\.crt holds a damaged certificate$/],
  ["gw.crt", "folder.pem", "keyFile", /folder\.pem is a folder/],
] as const;

test("a certificate that cannot be used is told by the file that is at fault, and why", async () => {
  for (const [cert, key, option, expected] of UNUSABLE)
    await assert.rejects(readGiven({ certFile: at(cert), keyFile: at(key) }), (error) => {
      assert.ok(error instanceof ServerCertificateError);
      assert.equal(error.option, option);
      assert.match(error.message, expected);
      return true;
    });
});

test("one that clients will refuse is told with the reason", async () => {
  const given = await readGiven({ certFile: at("gw.crt"), keyFile: at("gw.key") });
  const nowMs = Date.now();
  assert.deepEqual(certificateDoubts(given, ["gw.farm", "10.0.0.1"], nowMs), []);
  const doubts = (names: string[], later: number) =>
    certificateDoubts(given, names, nowMs + later).join("\n");
  assert.match(doubts([], 31 * DAY_MS), /^the certificate has expired \(.*\); .*renew it$/);
  assert.match(doubts([], -2 * DAY_MS), /^the certificate is good only from /);
  assert.match(
    doubts(["gw.farm", "gw.local", "10.0.0.2"], 0),
    /^the certificate is not for gw\.local, 10\.0\.0\.2 /,
  );
});

test("--check reads the certificate that the config names, and says what will fail", () => {
  const main = scriptPath("../../../gateway/main.ts", import.meta.url);
  const check = (tls: string) => {
    writeFileSync(at("gateway.yaml"), `tls: {${tls}}\n`);
    const run = spawnSync(process.execPath, [...nodeFlags, main, "--config", at("gateway.yaml"), "--check"]);
    return { status: run.status, out: String(run.stdout), said: String(run.stderr) };
  };
  const bad = check("certFile: gw.crt, keyFile: other.key");
  assert.equal(bad.status, 2, bad.said);
  assert.match(bad.said, /gateway\.yaml:\n {2}tls\.keyFile: .*other\.key is not the key of /);
  const strange = check("certFile: gw.crt, keyFile: gw.key, names: [gw.local]");
  assert.equal(strange.status, 0, strange.said);
  assert.match(strange.said, /^tls\.certFile: warning: the certificate is not for gw\.local of tls\.names/);
  assert.match(strange.out, / is good/);
  assert.deepEqual(check("certFile: gw.crt, keyFile: gw.key, names: [gw.farm]").said, "");
});
