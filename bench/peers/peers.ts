/** The peers of the stream log, each as its makers would run it for safety, and as fast as that allows. */
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { chmod, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { freePorts } from "../../test/support/program.ts";
import { call, type Endpoint, reading } from "../load/kinesis-requests.ts";
import { redisIdOf } from "../load/talks.ts";
import { type Peer, PeerAbsentError, startPeer } from "./server.ts";

const KINESALITE = "kinesalite@3.3.3";
const DEBIAN = {
  "nats-server": "/usr/sbin/nats-server",
  "redis-server": "/usr/bin/redis-server",
  mosquitto: "/usr/sbin/mosquitto",
};
type DebianPeer = keyof typeof DEBIAN;

/** Says what it installs, or how to; what stays missing is found out when it is started. */
export async function installPeers(folder: string, say: (line: string) => void): Promise<void> {
  if (!existsSync(kinesaliteScript(folder))) {
    say(`installing ${KINESALITE} into ${folder} (a peer to measure against, no part of Headwater)`);
    await mkdir(folder, { recursive: true });
    const npm = spawnSync("npm", [
      "install",
      "--prefix",
      folder,
      "--no-audit",
      "--no-fund",
      "--no-save",
      KINESALITE,
    ]);
    if (npm.status !== 0) say(`it could not be installed: ${String(npm.stderr).trim().slice(-200)}`);
  }
  const missing = Object.entries(DEBIAN)
    .filter(([, path]) => !existsSync(path))
    .map(([name]) => name);
  if (missing.length === 0) return;
  const command = `apt-get update && apt-get install -y --no-install-recommends ${missing.join(" ")}`;
  if (process.getuid?.() !== 0 || spawnSync("apt-get", ["--version"]).status !== 0) {
    say(`without ${missing.join(", ")} their rows stay empty; to have them: ${command}`);
    return;
  }
  say(`installing ${missing.join(", ")} (peers to measure against; their services stay off)`);
  await withServicesBlocked(() => {
    const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
    spawnSync("apt-get", ["-qq", "update"], { env });
    const apt = spawnSync(
      "apt-get",
      ["-qq", "-o", "DPkg::Lock::Timeout=120", "install", "-y", "--no-install-recommends", ...missing],
      { env },
    );
    if (apt.status !== 0) say(`they could not be installed: ${String(apt.stderr).trim().slice(-200)}`);
  });
}

/** invoke-rc.d(8): exit code 101 of this file forbids that a package starts its service. One that is there already stays. */
async function withServicesBlocked(install: () => void): Promise<void> {
  const policy = "/usr/sbin/policy-rc.d";
  if (existsSync(policy)) return install();
  await writeFile(policy, "#!/bin/sh\nexit 101\n");
  await chmod(policy, 0o755);
  try {
    install();
  } finally {
    await rm(policy, { force: true });
  }
}

const kinesaliteScript = (folder: string): string => join(folder, "node_modules", "kinesalite", "cli.js");

/** In memory, which is its default and its fastest. */
export async function startKinesalite(folder: string, dir: string): Promise<Peer & { endpoint: Endpoint }> {
  if (!existsSync(kinesaliteScript(folder))) throw new PeerAbsentError("kinesalite is not installed");
  const [port] = (await freePorts(1)) as [number];
  const peer = await startPeer(
    process.execPath,
    [kinesaliteScript(folder), "--port", String(port), "--createStreamMs", "0", "--shardLimit", "100"],
    port,
    dir,
  );
  const endpoint = { port, key: { id: "bench", secret: "bench" } };
  for (const [name, shards] of [
    ["bench", 4],
    ["pages", 1],
  ] as const)
    await call(endpoint, "CreateStream", { StreamName: name, ShardCount: shards });
  // A stream is there a moment after it was asked for.
  await new Promise((resolve) => setTimeout(resolve, 300));
  return { ...peer, endpoint };
}

/** File storage; it answers before it syncs, as is its default. */
export async function startJetStream(dir: string): Promise<Peer> {
  const [port] = (await freePorts(1)) as [number];
  const peer = await startDebian(
    "nats-server",
    ["-a", "127.0.0.1", "-p", String(port), "-js", "-sd", join(dir, "nats")],
    port,
    dir,
  );
  const config = JSON.stringify({
    name: "bench",
    subjects: ["bench.*"],
    storage: "file",
    retention: "limits",
    discard: "old",
    num_replicas: 1,
    max_msgs: -1,
    max_bytes: -1,
    max_consumers: -1,
    max_age: 0,
  });
  const answer = await talkOnce(
    port,
    `CONNECT {"verbose":false}\r\nSUB made 1\r\nPUB $JS.API.STREAM.CREATE.bench made ${config.length}\r\n${config}\r\n`,
    (text) => text.includes("\r\n{") && text.includes("MSG made"),
  );
  if (answer.includes('"error"')) throw new Error(answer.slice(-300));
  return peer;
}

/** Append-only file, synced before each answer. */
export async function startRedis(parent: string): Promise<Peer> {
  // A folder of its own: over that of an earlier one it would load for long.
  const dir = await mkdtemp(join(parent, "redis-"));
  const [port] = (await freePorts(1)) as [number];
  const args = [
    "--bind",
    "127.0.0.1",
    "--port",
    String(port),
    "--dir",
    dir,
    "--save",
    "",
    "--appendonly",
    "yes",
    "--appendfsync",
    "always",
  ];
  return startDebian("redis-server", args, port, dir);
}

/** Entries with ids of one length, so that a page's length is known before. */
export async function fillRedis(
  port: number,
  key: string,
  records: number,
  recordBytes: number,
): Promise<void> {
  for (let at = 0; at < records; at += 1_000) {
    const data = reading(recordBytes);
    const adds = Array.from({ length: Math.min(1_000, records - at) }, (_, i) => {
      const id = redisIdOf(at + i);
      return `*5\r\n$4\r\nXADD\r\n$${key.length}\r\n${key}\r\n$${id.length}\r\n${id}\r\n$1\r\nd\r\n$${data.length}\r\n${data}\r\n`;
    });
    await talkOnce(port, adds.join(""), (text) => text.split("\r\n").length - 1 >= adds.length * 2);
  }
}

/** Without persistence: what it acknowledges is in memory only. */
export async function startMosquitto(dir: string): Promise<Peer> {
  const [port] = (await freePorts(1)) as [number];
  const config = join(dir, "mosquitto.conf");
  const user = process.getuid?.() === 0 ? "user root\n" : "";
  await writeFile(
    config,
    `listener ${port} 127.0.0.1\nallow_anonymous true\npersistence false\nlog_dest none\nmax_inflight_messages 0\nmax_queued_messages 0\nset_tcp_nodelay true\n${user}`,
  );
  return startDebian("mosquitto", ["-c", config], port, dir);
}

function startDebian(name: DebianPeer, args: readonly string[], port: number, dir: string): Promise<Peer> {
  if (!existsSync(DEBIAN[name])) throw new PeerAbsentError(`${name} is not installed`);
  return startPeer(DEBIAN[name], args, port, dir);
}

/** Sends text and gathers the answer until it is whole. */
function talkOnce(port: number, text: string, whole: (answer: string) => boolean): Promise<string> {
  return new Promise((resolve, reject) => {
    let answer = "";
    const socket = connect(port, "127.0.0.1", () => socket.write(text, "latin1"));
    socket.setTimeout(10_000, () => socket.destroy(new Error("no answer in 10 s")));
    socket.once("error", reject);
    socket.on("data", (chunk) => {
      answer += chunk.toString("latin1");
      if (!whole(answer)) return;
      socket.destroy();
      resolve(answer);
    });
  });
}
