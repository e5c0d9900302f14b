import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { createServer as createHttpsServer } from "node:https";
import { createServer } from "node:net";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { promisify } from "node:util";
import { Credentials } from "../../../agent/identity/credentials.ts";
import { Renewal } from "../../../agent/identity/renewal.ts";
import { silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { temporaryFolder } from "../buffer/records/buffer-fixture.ts";

const run = promisify(execFile);

/** A key and a certificate of its own, as PEM. */
async function keyPair(folder: string, name: string): Promise<{ key: string; certificate: string }> {
  const [key, certificate] = [join(folder, `${name}.key`), join(folder, `${name}.crt`)];
  const curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"];
  await run("openssl", ["req", "-x509", ...curve, "-subj", "/CN=pi-1", "-keyout", key, "-out", certificate]);
  return { key: await readFile(key, "utf8"), certificate: await readFile(certificate, "utf8") };
}

/** A renewal at something that answers these, by method, and the credentials that it has. */
async function renewalAt(t: TestContext, answers: Readonly<Record<string, unknown>>) {
  const folder = await temporaryFolder(t);
  const { key, certificate } = await keyPair(folder, "gateway");
  const server = createHttpsServer({ key, cert: certificate }, (request, response) => {
    request.resume();
    response.end(JSON.stringify(answers[request.method ?? ""]));
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => server.close());
  const credentials = await Credentials.store(folder, {
    device: "pi-1",
    key: "own",
    certificate: "own",
    ca: "",
  });
  credentials.tls = () => ({ rejectUnauthorized: false });
  const address = { host: "127.0.0.1", port: (server.address() as { port: number }).port };
  const renewal = new Renewal({ address, credentials, log: silentLog, metrics: new Metrics() });
  return { renewal, credentials, other: await keyPair(folder, "other") };
}

test("an agent ends at once, also while a gateway that says nothing is being asked", async (t) => {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => server.close());
  const { port } = server.address() as { port: number };
  const credentials = new Credentials("none", { device: "pi-1", key: "", certificate: "", ca: "" });
  credentials.tls = () => ({});
  const address = { host: "127.0.0.1", port };
  const renewal = new Renewal({ address, credentials, log: silentLog, metrics: new Metrics() });
  const asked = once(server, "connection");
  await renewal.start();
  await asked;
  const beganMs = performance.now();
  await renewal.close();
  await renewal.close();
  assert.ok(performance.now() - beganMs < 5_000);
});

test("what is no certificate for the new key does not take the place of the one that works", async (t) => {
  const nowMs = Date.now();
  const answers = { GET: { renew: true, nowMs, notAfterMs: nowMs + 1 }, POST: {} as object };
  const { renewal, credentials, other } = await renewalAt(t, answers);
  await assert.rejects(renewal.renewIfDue(), { code: "GATEWAY_UNREACHABLE" });
  answers.POST = { certificate: other.certificate, notAfterMs: nowMs + 1 };
  await assert.rejects(renewal.renewIfDue(), { code: "GATEWAY_UNREACHABLE" });
  assert.equal(credentials.identity.certificate, "own");
});

test("a gateway that does not say when the certificate ends is not asked again at once", async (t) => {
  const { renewal } = await renewalAt(t, { GET: { renew: false } });
  await assert.rejects(renewal.renewIfDue(), { code: "GATEWAY_UNREACHABLE" });
});

test("a device that is not online yet when it starts is renewed soon after it is", async (t) => {
  const folder = await temporaryFolder(t);
  const { key, certificate } = await keyPair(folder, "gateway");
  const nowMs = Date.now();
  const status = { renew: false, nowMs, notAfterMs: nowMs + 86_400_000 };
  const server = createHttpsServer({ key, cert: certificate }, (_, response) => {
    response.end(JSON.stringify(status));
  });
  // No way to the gateway yet: whoever connects is cut off.
  let online = false;
  server.prependListener("connection", (socket) => {
    if (!online) socket.destroy();
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => server.close());
  const { port } = server.address() as { port: number };
  const credentials = new Credentials("none", { device: "pi-1", key: "", certificate: "", ca: "" });
  credentials.tls = () => ({ rejectUnauthorized: false });
  const address = { host: "127.0.0.1", port };
  const failed = new Promise<void>((resolve) => {
    const log = { ...silentLog, warn: () => resolve() };
    const renewal = new Renewal({ address, credentials, log, metrics: new Metrics() });
    t.after(() => renewal.close());
    void renewal.start();
  });
  await failed;
  online = true;
  await once(server, "request", { signal: AbortSignal.timeout(60_000) });
});
