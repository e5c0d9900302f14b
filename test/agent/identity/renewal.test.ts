import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:net";
import test from "node:test";
import { Credentials } from "../../../agent/identity/credentials.ts";
import { Renewal } from "../../../agent/identity/renewal.ts";
import { silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";

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
