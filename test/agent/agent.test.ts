import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { Aedes } from "aedes";
import mqtt from "mqtt";
import type { AgentStatus } from "../../agent/health.ts";
import { decodeFrames, type Frame } from "../../protocol/frame.ts";
import { parseTopic } from "../../protocol/topics.ts";
import { VERSION } from "../../runtime/version.ts";
import { freePorts } from "../support/program.ts";
import { nodeFlags, scriptPath } from "../support/script.ts";
import { temporaryFolder, texts } from "./buffer/records/buffer-fixture.ts";

const main = scriptPath("../../agent/main.ts", import.meta.url);

function run(t: TestContext, args: string[], environment: NodeJS.ProcessEnv = {}): ChildProcess {
  const child = spawn(process.execPath, [...nodeFlags, main, ...args], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, ...environment },
  });
  t.after(() => child.kill("SIGKILL"));
  return child;
}

async function output(child: ChildProcess): Promise<{ code: number | null; out: string; err: string }> {
  let [out, err] = ["", ""];
  child.stdout!.on("data", (bytes) => (out += bytes));
  child.stderr!.on("data", (bytes) => (err += bytes));
  const [code] = (await once(child, "close")) as [number | null];
  return { code, out, err };
}

/** Its log lines until one has this message. */
async function logged(child: ChildProcess, message: string): Promise<Record<string, unknown>> {
  let text = "";
  for await (const bytes of child.stderr!.iterator({ destroyOnReturn: false })) {
    text += bytes;
    for (const line of text.split("\n").slice(0, -1)) {
      const entry = line.startsWith("{") ? (JSON.parse(line) as Record<string, unknown>) : {};
      if (entry.msg === message) {
        child.stderr!.resume();
        return entry;
      }
    }
  }
  throw new Error(`ended without "${message}": ${text}`);
}

async function gateway(t: TestContext): Promise<{ port: number; frames: Frame[] }> {
  const broker = await Aedes.createBroker();
  const frames: Frame[] = [];
  const seen = new Set<string>();
  broker.authorizePublish = (_client, packet, done) => {
    const kind = parseTopic(packet.topic)?.kind;
    if (kind === "time") {
      const { id } = JSON.parse(String(packet.payload)) as { id: number };
      const payload = JSON.stringify({ type: "time", id, utcUs: Date.now() * 1_000 });
      const answer = { cmd: "publish", topic: packet.topic.replace(/time$/, "control"), payload } as const;
      broker.publish({ ...answer, qos: 0, retain: false, dup: false }, () => {});
    }
    if (kind === "frames") {
      for (const frame of decodeFrames(packet.payload as Buffer)) {
        const name = `${frame.epoch}/${frame.sequence}`;
        if (!seen.has(name)) frames.push(frame);
        seen.add(name);
      }
    }
    done(null);
  };
  const server = createServer((socket) => void broker.handle(socket)).listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(async () => {
    server.close();
    await new Promise<void>((resolve) => broker.close(resolve));
  });
  return { port: (server.address() as { port: number }).port, frames };
}

test("a bad config ends with exit code 2 and says where it is wrong", async (t) => {
  const folder = await temporaryFolder(t);
  const file = join(folder, "agent.yaml");
  await writeFile(file, "device: pi 1\nbufer: {}\nsources: [{name: a, type: serial}]\n");
  const bad = await output(run(t, ["--config", file, "--check"]));
  assert.equal(bad.code, 2);
  for (const part of ["device", "bufer", "sources[0].path"]) assert.ok(bad.err.includes(part), bad.err);
  await writeFile(file, "device: ${NAME}\n");
  assert.equal((await output(run(t, ["--config", file, "--check"]))).code, 2);
  assert.equal((await output(run(t, ["--config", file, "--check"], { NAME: "pi-1" }))).code, 0);
});

test("the command line explains itself", async (t) => {
  assert.equal((await output(run(t, ["--version"]))).out, `${VERSION}\n`);
  assert.ok((await output(run(t, ["--help"]))).out.includes("--config FILE"));
  const wrong = await output(run(t, ["--confg", "x"]));
  assert.equal(wrong.code, 2);
  assert.ok(wrong.err.includes("--config FILE"));
});

test("a device whose certificate nobody renews says so", async (t) => {
  const folder = await temporaryFolder(t);
  const [httpPort] = (await freePorts(1)) as [number];
  const identity = { version: 1, device: "pi-1", key: "", certificate: "", ca: "" };
  await writeFile(join(folder, "identity.json"), JSON.stringify(identity));
  const config = {
    device: "pi-1",
    dataDir: ".",
    gateway: { mqtt: "mqtts://127.0.0.1:1" },
    http: { port: httpPort },
    sources: [],
  };
  const file = join(folder, "agent.yaml");
  await writeFile(file, JSON.stringify(config));
  const message = "gateway.https is missing: this device's certificate is not renewed, and will run out";
  await logged(run(t, ["--config", file]), message);
});

test("what a sensor got acknowledged reaches the gateway once, over kills of the agent", async (t) => {
  const folder = await temporaryFolder(t);
  const { port, frames } = await gateway(t);
  const [sensorPort, httpPort] = (await freePorts(2)) as [number, number];
  const config = {
    device: "pi-1",
    dataDir: "data",
    gateway: { mqtt: `mqtt://127.0.0.1:${port}` },
    http: { port: httpPort },
    sources: [{ name: "local", type: "mqtt", port: sensorPort }],
  };
  const file = join(folder, "agent.yaml");
  await writeFile(file, JSON.stringify(config));
  const client = mqtt.connect(`mqtt://127.0.0.1:${sensorPort}`, { clientId: "s1", reconnectPeriod: 50 });
  t.after(() => client.endAsync(true));
  client.on("error", () => {});
  const count = 120;
  let agent = run(t, ["--config", file]);
  await logged(agent, "agent runs");
  for (let n = 0; n < count; n++) {
    await client.publishAsync("farm/counter", String(n), { qos: 1 });
    if (n % 40 !== 20) continue;
    setTimeout(() => agent.kill("SIGKILL"), 5);
    const killed = once(agent, "exit");
    const next = client.publishAsync("farm/counter", String(n + 0.5), { qos: 1 });
    await killed;
    agent = run(t, ["--config", file]);
    await logged(agent, "agent runs");
    await next;
  }
  const expected: number[] = [];
  for (let n = 0; n < count; n++) expected.push(n, ...(n % 40 === 20 ? [n + 0.5] : []));
  const values = (): number[] =>
    texts(frames, "sensors").map((text) => (JSON.parse(text) as { value: number }).value);
  while (values().length < expected.length) await new Promise((resolve) => setTimeout(resolve, 10));
  assert.deepEqual(values(), expected);
  const status = (await (await fetch(`http://127.0.0.1:${httpPort}/status.json`)).json()) as AgentStatus;
  assert.equal(status.device, "pi-1");
  assert.equal(status.sources[0]!.state, "running");
  assert.equal((await fetch(`http://127.0.0.1:${httpPort}/healthz`)).status, 200);
  const metrics = await (await fetch(`http://127.0.0.1:${httpPort}/metrics`)).text();
  assert.match(metrics, /^headwater_uplink_connected 1$/m);
  agent.kill("SIGTERM");
  const [code] = (await once(agent, "exit")) as [number | null];
  assert.equal(code, 0);
});

test("a port that is taken is a clear error", async (t) => {
  const folder = await temporaryFolder(t);
  const blocker = createServer().listen(0, "127.0.0.1");
  await once(blocker, "listening");
  t.after(() => blocker.close());
  const { port } = blocker.address() as { port: number };
  const file = join(folder, "agent.yaml");
  await writeFile(file, JSON.stringify({ device: "pi-1", dataDir: "data", http: { port } }));
  const ended = await output(run(t, ["--config", file]));
  assert.equal(ended.code, 1);
  assert.match(ended.err, /PORT_BUSY: another program listens on .*set another port/);
});

test("a data folder that is not for its user is a clear error", async (t) => {
  const config = join(await temporaryFolder(t), "agent.yaml");
  // Nobody makes folders there, not even root.
  await writeFile(config, "device: pi-1\ndataDir: /sys/headwater\nhttp: { port: 0 }\nsources: []\n");
  const { code, err } = await output(run(t, ["--config", config]));
  assert.equal(code, 1);
  assert.match(
    err,
    /DATA_FOLDER: \/sys\/headwater cannot be read and written by this user: E[A-Z]+ \(.*set another dataDir/,
  );
});
