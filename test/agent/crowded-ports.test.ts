/** An agent whose ports are crowded, or whose process has no file descriptor left: it goes on, and loses nothing. */
import assert from "node:assert/strict";
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { readdir, writeFile } from "node:fs/promises";
import { connect, createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Aedes } from "aedes";
import mqtt from "mqtt";
import { decodeFrames } from "../../protocol/frame.ts";
import { parseTopic } from "../../protocol/topics.ts";
import { freePorts } from "../support/program.ts";
import { nodeFlags, scriptPath } from "../support/script.ts";
import { temporaryFolder, texts } from "./buffer/records/buffer-fixture.ts";

const main = scriptPath("../../agent/main.ts", import.meta.url);
const linuxAlone = { skip: process.platform !== "linux" && "prlimit is Linux's", timeout: 120_000 };
/** Beyond the agent's own timers, the slowest of which looks every 5 s. */
const STARVED_MS = 6_000;
/** Fewer do not suffice to load the program. */
const MAX_DESCRIPTORS = 192;
const IDLE = 200;

interface Gateway {
  readonly port: number;
  readonly seen: Set<number>;
  /** How often it was told how the agent is. */
  statuses: number;
  /** Breaks all connections, as a restart would. */
  breakAll(): void;
}

async function gateway(t: TestContext): Promise<Gateway> {
  const broker = await Aedes.createBroker();
  const sockets = new Set<Socket>();
  const server: Server = createServer((socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
    void broker.handle(socket);
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  const breakAll = (): void => {
    for (const socket of sockets) socket.destroy();
  };
  const it: Gateway = {
    port: (server.address() as { port: number }).port,
    seen: new Set(),
    statuses: 0,
    breakAll,
  };
  broker.authorizePublish = (_client, packet, done) => {
    const kind = parseTopic(packet.topic)?.kind;
    if (kind === "status") it.statuses++;
    if (kind === "time") {
      const { id } = JSON.parse(String(packet.payload)) as { id: number };
      const payload = JSON.stringify({ type: "time", id, utcUs: Date.now() * 1_000 });
      const answer = { cmd: "publish", topic: packet.topic.replace(/time$/, "control"), payload } as const;
      broker.publish({ ...answer, qos: 0, retain: false, dup: false }, () => {});
    }
    if (kind === "frames")
      for (const text of texts(decodeFrames(packet.payload as Buffer))) it.seen.add(JSON.parse(text).n);
    done(null);
  };
  t.after(async () => {
    server.close();
    await new Promise<void>((resolve) => broker.close(resolve));
    breakAll();
  });
  return it;
}

interface Started {
  readonly child: ChildProcess;
  readonly sensor: number;
  readonly posts: number;
  readonly page: number;
}

/** @param limit descriptors that it may have; as many as this process may unless given */
async function agent(t: TestContext, gatewayPort: number, limit?: number): Promise<Started> {
  const folder = await temporaryFolder(t);
  const [sensor, posts, page] = (await freePorts(3)) as [number, number, number];
  const config = {
    device: "pi-1",
    dataDir: "data",
    gateway: { mqtt: `mqtt://127.0.0.1:${gatewayPort}` },
    http: { port: page },
    uplink: { statusSeconds: 0.1 },
    sources: [
      { name: "local", type: "mqtt", port: sensor },
      { name: "door", type: "http", port: posts },
    ],
  };
  const file = join(folder, "agent.yaml");
  await writeFile(file, JSON.stringify(config));
  const command = [process.execPath, ...nodeFlags, main, "--config", file];
  if (limit !== undefined) command.unshift("prlimit", `--nofile=${limit}:${limit}`);
  const child = spawn(command[0]!, command.slice(1), { stdio: ["ignore", "ignore", "inherit"] });
  t.after(() => child.kill("SIGKILL"));
  for (const port of [page, sensor, posts]) while (!(await takes(port))) await sleep(50);
  return { child, sensor, posts, page };
}

async function ask(port: number, path: string, body?: string): Promise<number | undefined> {
  const init =
    body === undefined ? {} : { method: "POST", body, headers: { "content-type": "application/json" } };
  try {
    const signal = AbortSignal.timeout(5_000);
    const answer = await fetch(`http://127.0.0.1:${port}${path}`, { ...init, signal });
    await answer.text();
    return answer.status;
  } catch {
    return undefined;
  }
}

async function takes(port: number): Promise<boolean> {
  const socket = connect(port, "127.0.0.1");
  const taken = await new Promise<boolean>((resolve) => {
    socket.once("connect", () => resolve(true));
    socket.once("error", () => resolve(false));
  });
  socket.destroy();
  return taken;
}

test(
  "an agent that has no descriptor left goes on, and has what comes and what it tells of itself",
  linuxAlone,
  async (t) => {
    const cloud = await gateway(t);
    const { child, sensor } = await agent(t, cloud.port);
    const client = await mqtt.connectAsync(`mqtt://127.0.0.1:${sensor}`, { clientId: "s1" });
    t.after(() => client.endAsync(true));
    await client.publishAsync("a/b", '{"n":0}', { qos: 1 });
    while (cloud.statuses < 3) await sleep(20);
    const limit = (soft: number): void => {
      execFileSync("prlimit", [`--pid=${child.pid}`, `--nofile=${soft}:`]);
    };
    const taken = new Set(await readdir(`/proc/${child.pid}/fd`));
    let spare = 0;
    while (taken.has(String(spare))) spare++;
    limit(spare);
    // What it closes is taken at once.
    const idle = Array.from({ length: IDLE }, () => connect(sensor, "127.0.0.1").on("error", () => {}));
    t.after(() => {
      for (const socket of idle) socket.destroy();
    });
    const before = cloud.statuses;
    const sent = [0];
    for (const untilMs = Date.now() + STARVED_MS; Date.now() < untilMs; await sleep(50)) {
      sent.push(sent.length);
      await client.publishAsync("a/b", JSON.stringify({ n: sent.at(-1) }), { qos: 1 });
    }
    limit(1_024);
    while (!sent.every((n) => cloud.seen.has(n))) await sleep(20);
    assert.ok(cloud.statuses > before + 10);
    assert.equal(child.exitCode, null);
  },
);

test("connections that say nothing leave an agent the descriptors that it needs", linuxAlone, async (t) => {
  const cloud = await gateway(t);
  const { child, sensor, posts, page } = await agent(t, cloud.port, MAX_DESCRIPTORS);
  const sockets: Socket[] = [];
  t.after(() => {
    for (const socket of sockets) socket.destroy();
  });
  // All that they lose is opened again, as what holds them would.
  const hold = (port: number): void => {
    const socket = connect(port, "127.0.0.1").on("error", () => {});
    sockets.push(socket);
  };
  for (let i = 0; i < IDLE; i++) hold([sensor, posts, page][i % 3]!);
  await sleep(500);

  const client = await mqtt.connectAsync(`mqtt://127.0.0.1:${sensor}`, { clientId: "s1" });
  t.after(() => client.endAsync(true));
  for (let n = 0; n < 20; n++) {
    await client.publishAsync("a/b", JSON.stringify({ n }), { qos: 1 });
    assert.equal(await ask(posts, "/records", JSON.stringify({ n: 100 + n })), 200);
    hold([sensor, posts, page][n % 3]!);
    // A new connection needs a descriptor of its own.
    if (n === 10) cloud.breakAll();
  }
  while (cloud.seen.size < 40) await sleep(20);
  assert.equal(await ask(page, "/healthz"), 200);
  const metrics = await (await fetch(`http://127.0.0.1:${page}/status.json`)).text();
  assert.match(metrics, /more than 96 connections on all ports/);
  assert.equal(child.exitCode, null);
});
