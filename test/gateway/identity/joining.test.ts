/** Joining over real sockets: what a token is good for, and what a certificate lets a device do and not do. */
import assert from "node:assert/strict";
import { type EventEmitter, once } from "node:events";
import { readFile, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { connect, createServer, type TLSSocket } from "node:tls";
import mqtt, { type IClientOptions, type MqttClient } from "mqtt";
import { Credentials, type DeviceIdentity, tlsOptions } from "../../../agent/identity/credentials.ts";
import { callGateway } from "../../../agent/identity/gateway-call.ts";
import { Renewal } from "../../../agent/identity/renewal.ts";
import { STATUS_PATH, type StatusAnswer } from "../../../protocol/joining.ts";
import { topicOf } from "../../../protocol/topics.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { eventually } from "../../support/program.ts";
import { JoiningRig } from "./joining-rig.ts";

/** mqtt.js' types of events are not those of node:events. */
function heard(client: MqttClient, event: "connect" | "close"): Promise<unknown> {
  return once(client as unknown as EventEmitter, event);
}

function client(rig: JoiningRig, options: IClientOptions): MqttClient {
  return mqtt.connect(`mqtts://127.0.0.1:${rig.port("mqtts")}`, {
    protocolVersion: 4,
    reconnectPeriod: 0,
    connectTimeout: 5_000,
    ...options,
  });
}

function as(identity: DeviceIdentity, more: IClientOptions = {}): IClientOptions {
  return { ...(tlsOptions(identity) as IClientOptions), ...more };
}

/** How an attempt to connect ends: "in", or that it did not get in. */
async function attempt(rig: JoiningRig, options: IClientOptions): Promise<string> {
  const one = client(rig, options);
  const out = new Promise<string>((resolve) => {
    one.on("error", (error) => resolve(`out: ${error.message}`));
    one.on("close", () => resolve("out: closed"));
  });
  const how = await Promise.race([out, heard(one, "connect").then(() => "in")]);
  one.on("error", () => {});
  await one.endAsync(true);
  return how;
}

test("a device joins with a token, and its first record is on the gateway's disk", async (t) => {
  const rig = await JoiningRig.start(t);
  const token = await rig.token("pi-1");
  const ran = await rig.join(token);
  assert.equal(ran.code, 0, ran.errors);
  assert.match(ran.output, /joined as pi-1; certificate until/);
  assert.match(ran.output, /first record sent to sensors, and acknowledged/);
  assert.match(ran.output, /the gateway counts 1 record of pi-1/);
  const config = await readFile(`${ran.folder}.yaml`, "utf8");
  assert.match(config, /device: pi-1/);
  assert.match(config, new RegExp(`mqtt: mqtts://127.0.0.1:${rig.port("mqtts")}`));
  const identity = join(rig.dir, "data", "identity.json");
  assert.equal((await stat(identity)).mode & 0o777, 0o600);
  assert.match((await rig.devices("list")).output, /pi-1 +(connected|away)/);
  const secret = token.split(".").at(-2)!;
  const key = (JSON.parse(await readFile(identity, "utf8")) as DeviceIdentity).key.split("\n")[1]!;
  const everything = [
    ...rig.logged,
    await readFile(join(rig.dir, "gateway", "identity", "tokens.json"), "utf8"),
  ].join("\n");
  assert.ok(!everything.includes(secret) && !everything.includes(key));
  for (const file of ["ca.pem", "tokens.json", "devices.json"])
    assert.equal((await stat(join(rig.dir, "gateway", "identity", file))).mode & 0o777, 0o600, file);
  assert.equal((await stat(join(rig.dir, "gateway", "control.sock"))).mode & 0o777, 0o600);
});

test("a token is good once, for its time, and for no other gateway", async (t) => {
  const rig = await JoiningRig.start(t);
  const token = await rig.token("pi-1");
  assert.equal((await rig.join(token)).code, 0);
  // The same device may ask again, as its answer may have been lost; another key may not.
  const again = await rig.join(token);
  assert.equal(again.code, 1);
  assert.match(again.errors, /^TOKEN_USED: /);
  const short = await rig.token("pi-2", "--hours", "0.0003");
  await new Promise((resolve) => setTimeout(resolve, 1_200));
  assert.match((await rig.join(short)).errors, /^TOKEN_EXPIRED: /);
  const parts = (await rig.token("pi-3")).split(".");
  const wrong = [parts[0], parts[1], Buffer.alloc(20, 7).toString("base64url"), parts[3]].join(".");
  assert.match((await rig.join(wrong)).errors, /^TOKEN_UNKNOWN: /);
  assert.match((await rig.join("hw1.pi-3.cut")).errors, /^JOIN_TOKEN_MALFORMED: /);
  assert.match(
    (await rig.join(parts.join("."), { gateway: "127.0.0.1:1" })).errors,
    /^GATEWAY_UNREACHABLE: /,
  );
});

test("a gateway with another CA never sees the token", async (t) => {
  const rig = await JoiningRig.start(t);
  const other = await JoiningRig.start(t);
  const token = await rig.token("pi-1");
  const ran = await rig.join(token, { gateway: `127.0.0.1:${other.port("https")}` });
  assert.equal(ran.code, 1);
  assert.match(ran.errors, /^GATEWAY_NOT_TRUSTED: /);
  assert.ok(!other.logged.some((line) => line.includes("refused")));
  assert.equal((await rig.join(token)).code, 0, "the token was not spent");
  const identity = await rig.joined("pi-2");
  // Nor does a device that joined talk to another gateway.
  const address = { host: "127.0.0.1", port: other.port("https") };
  await assert.rejects(callGateway(address, { tls: tlsOptions(identity) }, "GET", STATUS_PATH), {
    code: "GATEWAY_UNREACHABLE",
  });
});

test("a device whose clock is in 1970 joins, and is told so", async (t) => {
  const rig = await JoiningRig.start(t);
  const clock = { nowUs: () => 60_000_000, monotonicMs: () => performance.now() };
  const ran = await rig.join(await rig.token("pi-1"), { clock });
  assert.equal(ran.code, 0, ran.errors);
  assert.match(ran.output, /clock is \d+ days off/);
});

test("over TLS nobody gets in without a certificate of this gateway, or a password", async (t) => {
  const rig = await JoiningRig.start(t);
  const other = await JoiningRig.start(t);
  const mine = await rig.joined("pi-1");
  const stranger = await other.joined("pi-1");
  assert.equal(await attempt(rig, as(mine)), "in");
  assert.match(await attempt(rig, { rejectUnauthorized: false, username: "pi-1" }), /^out/);
  assert.match(await attempt(rig, { ...as(stranger), ca: mine.ca }), /^out/);
  assert.match(await attempt(rig, as(mine, { username: "pi-2" })), /^out/);
});

test("a device publishes as itself alone", async (t) => {
  const rig = await JoiningRig.start(t);
  const identity = await rig.joined("pi-1");
  await rig.joined("pi-2");
  const one = client(rig, as(identity, { clientId: "any" }));
  one.on("error", () => {});
  await heard(one, "connect");
  const status = { version: "1", buffer: {}, sources: [], residentBytes: 1 };
  const closed = heard(one, "close");
  one.publish(topicOf("pi-2", "status"), JSON.stringify(status), { qos: 1 }, () => {});
  await closed;
  await one.endAsync(true);
  // Nor does it end another's connection by taking its client id.
  const second = client(rig, as(identity, { clientId: "headwater-pi-2" }));
  await heard(second, "connect");
  assert.ok(second.connected);
  await second.endAsync(true);
});

test("two clients of one device that name no id do not end one another's connections", async (t) => {
  const rig = await JoiningRig.start(t, "", "rules: [{topic: plant, stream: sensors}]");
  const identity = await rig.joined("pi-1");
  const [one, two] = [
    client(rig, as(identity, { clientId: "" })),
    client(rig, as(identity, { clientId: "" })),
  ];
  await Promise.all([heard(one, "connect"), heard(two, "connect")]);
  await two.publishAsync("plant", "1", { qos: 1 });
  await one.publishAsync("plant", "1", { qos: 1 });
  await Promise.all([one.endAsync(), two.endAsync()]);
});

test("a revoked device is cut off at once, and refused at every door from then on", async (t) => {
  const rig = await JoiningRig.start(t);
  const identity = await rig.joined("pi-1");
  const address = { host: "127.0.0.1", port: rig.port("https") };
  const trust = { tls: tlsOptions(identity) };
  const status = (await callGateway(address, trust, "GET", STATUS_PATH)) as StatusAnswer;
  assert.equal(status.device, "pi-1");
  const open = await rig.token("pi-1");
  const one = client(rig, as(identity));
  one.on("error", () => {});
  await heard(one, "connect");
  const closed = heard(one, "close");
  assert.equal((await rig.devices("revoke", "pi-1")).code, 0);
  await closed;
  await one.endAsync(true);
  assert.match((await rig.devices("list")).output, /pi-1 +revoked/);
  assert.match(await attempt(rig, as(identity)), /^out/);
  await assert.rejects(callGateway(address, trust, "GET", STATUS_PATH), { code: "GATEWAY_UNREACHABLE" });
  const rtsp = connect({ ...tlsOptions(identity), host: "127.0.0.1", port: rig.port("rtsps") }) as TLSSocket;
  rtsp.on("error", () => {});
  await once(rtsp, "close");
  assert.match((await rig.join(open)).errors, /^TOKEN_UNKNOWN: /);
  assert.match((await rig.devices("revoke", "pi-9")).errors, /^DEVICE_UNKNOWN: /);
  // A new token is a new beginning; the old certificate stays worthless.
  const anew = await rig.joined("pi-1");
  assert.equal(await attempt(rig, as(anew)), "in");
  assert.match(await attempt(rig, as(identity)), /^out/);
});

test("an agent that runs takes what a new join left at its next connection, if it is its own", async (t) => {
  const rig = await JoiningRig.start(t);
  const before = await rig.joined("pi-1");
  const running = (await Credentials.open(join(rig.dir, "data")))!;
  assert.equal(running.tls().cert, before.certificate);
  const anew = await rig.joined("pi-1");
  assert.notEqual(anew.certificate, before.certificate);
  assert.equal(running.tls().cert, anew.certificate);
  const file = join(rig.dir, "data", "identity.json");
  for (const other of [JSON.stringify({ version: 1, ...before, device: "pi-2" }), "{", "null", ""]) {
    await writeFile(file, other);
    assert.equal(running.tls().cert, anew.certificate);
  }
  await rm(file);
  assert.equal(running.tls().cert, anew.certificate);
});

test("a device's certificate is none of a server", async (t) => {
  const rig = await JoiningRig.start(t);
  const identity = await rig.joined("pi-1");
  const server = createServer({ key: identity.key, cert: `${identity.certificate}${identity.ca}` });
  server.on("tlsClientError", () => {});
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => server.close());
  const { port } = server.address() as { port: number };
  const gateway = `127.0.0.1:${port}`;
  const ran = await rig.join(await rig.token("pi-2"), { gateway });
  assert.match(ran.errors, /^GATEWAY_NOT_TRUSTED: .*not a server's/);
  await assert.rejects(
    callGateway({ host: "127.0.0.1", port }, { tls: tlsOptions(identity) }, "GET", STATUS_PATH),
    { code: "GATEWAY_UNREACHABLE" },
  );
});

/** No disk takes so long for a join. */
const LONG_DAYS = 0.01;

/**
 * A device that is connected, with a certificate that ends soon by the system's clock, which OpenSSL goes by.
 * One that a slow disk lets end before is followed by one that lasts longer.
 */
async function connectedForAWhile(t: TestContext) {
  for (let days = 0.0001; ; days *= 4) {
    const rig = await JoiningRig.start(t, `, deviceDays: ${days}`);
    const ran = await rig.join(await rig.token("pi-1"));
    if (ran.code !== 0) {
      assert.ok(days < LONG_DAYS, ran.errors);
      continue;
    }
    const { identity } = (await Credentials.open(join(rig.dir, "data")))!;
    const one = client(rig, as(identity));
    one.on("error", () => {});
    const closed = new Promise<boolean>((resolve) => one.once("close", () => resolve(false)));
    const isIn = new Promise<boolean>((resolve) => one.once("connect", () => resolve(true)));
    if (await Promise.race([isIn, closed])) return { rig, identity, one, closed };
    assert.ok(days < LONG_DAYS, "it is not let in");
    await one.endAsync(true);
  }
}

test("a connection ends with its certificate, which is refused from then on", async (t) => {
  const { rig, identity, one, closed } = await connectedForAWhile(t);
  await closed;
  await one.endAsync(true);
  assert.ok(rig.logged.some((line) => line.includes("its certificate has ended")));
  await eventually("it is not let in", 60_000, async () =>
    (await attempt(rig, as(identity))) === "in" ? undefined : true,
  );
  assert.ok(rig.logged.some((line) => line.includes("certificate expired")));
});

test("a certificate is renewed over a connection that the old one proves", async (t) => {
  let aheadMs = 0;
  const clock = { ...systemClock, nowUs: () => systemClock.nowUs() + aheadMs * 1_000 };
  const rig = await JoiningRig.start(t, ", deviceDays: 90", "", clock);
  const identity = await rig.joined("pi-1");
  const credentials = (await Credentials.open(join(rig.dir, "data")))!;
  const address = { host: "127.0.0.1", port: rig.port("https") };
  const renewal = new Renewal({ address, credentials, log: silentLog, metrics: new Metrics() });
  // It is due in its last third.
  aheadMs = 61 * 86_400_000;
  await renewal.start();
  t.after(() => renewal.close());
  await eventually("a new certificate", 60_000, async () =>
    credentials.identity.certificate === identity.certificate ? undefined : true,
  );
  assert.notEqual(credentials.identity.key, identity.key);
  const kept = (await Credentials.open(join(rig.dir, "data")))!;
  assert.deepEqual(kept.identity, credentials.identity);
  assert.equal(await attempt(rig, as(credentials.identity)), "in");
});
