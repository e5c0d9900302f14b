/** The Debian packages: built, installed by dpkg into a scratch root, and their programs started from there. */
import assert from "node:assert/strict";
import { type ChildProcess, execFile, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readdir, readFile, readlink, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { parse, stringify } from "yaml";
import { VERSION } from "../../runtime/version.ts";
import { freePorts } from "../support/program.ts";
import { removeFolder } from "../support/remove-folder.ts";

const run = promisify(execFile);
const compiled = import.meta.url.endsWith(".js");
const root = fileURLToPath(new URL(compiled ? "../../../" : "../../", import.meta.url));
const dist = join(root, "dist");
const here = { x64: "amd64", arm64: "arm64", arm: "armhf" }[process.arch as string];
/** systemd kills a program that has not drained by then; see the units. */
const DRAIN_MS = 10_000;
/** What systemd starts at boot. */
const WANTS = "etc/systemd/system/multi-user.target.wants";
/** A busy machine builds slowly. */
const BUILD_MS = 300_000;

function skipped(): string | false {
  if (spawnSync("dpkg-deb", ["--version"]).status !== 0) return "there is no dpkg-deb here";
  if (process.getuid?.() !== 0) return "dpkg gives files to root, which only root may do";
  if (!existsSync(join(dist, "agent/main.js"))) return "the programs are not built";
  return here === undefined && `there are no packages for ${process.arch}`;
}

const skip = skipped();
let folder = "";

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "headwater-packages-"));
});
after(() => removeFolder(folder));

async function build(out: string, ...more: string[]): Promise<string> {
  const script = join(root, "setup/package.mjs");
  const { stdout } = await run(process.execPath, [script, "--dist", dist, "--out", out, ...more]);
  return stdout;
}

/** A root folder as an empty Debian has it, with the package in it. */
async function install(file: string, name: string): Promise<string> {
  const target = join(folder, name);
  for (const part of ["info", "updates", "triggers"])
    await mkdir(join(target, "var/lib/dpkg", part), { recursive: true });
  await writeFile(join(target, "var/lib/dpkg/status"), "");
  await run("dpkg", [`--root=${target}`, "--force-depends", "--force-script-chrootless", "--install", file]);
  return target;
}

interface Service {
  readonly process: ChildProcess;
  /** The next message to the service manager. */
  next(): Promise<string>;
  readonly log: () => string;
}

/** Starts an installed program as its unit does: with a socket that systemd would listen on. */
async function start(t: TestContext, target: string, program: string, config: string): Promise<Service> {
  const socket = join(folder, `${program}.notify`);
  const listener = `
    $| = 1; socket(my $in, AF_UNIX, SOCK_DGRAM, 0) or die; bind($in, pack_sockaddr_un($ARGV[0])) or die;
    print "bound\\n"; while (defined recv($in, my $m, 4096, 0)) { $m =~ s/\\n/|/g; print "$m\\n" }`;
  const manager = spawn("perl", ["-MSocket", "-e", listener, socket], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  t.after(() => manager.kill("SIGKILL"));
  const lines = createInterface(manager.stdout!)[Symbol.asyncIterator]();
  const next = async (): Promise<string> => (await lines.next()).value as string;
  assert.equal(await next(), "bound");
  const child = spawn(join(target, "usr/bin", `headwater-${program}`), ["--config", config], {
    env: {
      PATH: process.env.PATH,
      HEADWATER_DEVICE: "host-1",
      NOTIFY_SOCKET: socket,
      WATCHDOG_USEC: "3000000",
    },
    cwd: folder,
    stdio: ["ignore", "ignore", "pipe"],
  });
  t.after(() => child.kill("SIGKILL"));
  let log = "";
  child.stderr.on("data", (chunk: Buffer) => {
    log += chunk.toString();
  });
  // A program that ends before it is ready says nothing more; nobody waits for it then.
  // Long after what it said last was heard, also where others have the processor.
  child.once("exit", () => setTimeout(() => manager.kill("SIGKILL"), 10_000).unref());
  return { process: child, next, log: () => log };
}

async function stop({ process: child, next, log }: Service): Promise<void> {
  const began = performance.now();
  const gone = once(child, "exit");
  child.kill("SIGTERM");
  let message = await next();
  while (message === "WATCHDOG=1") message = await next();
  assert.equal(message, "STOPPING=1|STATUS=draining", log());
  const [code] = (await gone) as [number | null];
  assert.equal(code, 0, log());
  assert.ok(performance.now() - began < DRAIN_MS);
}

/** The installed config, with another place for data and free ports: a test must not take the real ones. */
async function moveAway(file: string, doors: readonly string[]): Promise<void> {
  const config = parse(await readFile(file, "utf8")) as Record<string, unknown> & {
    sources?: Array<{ port: number }>;
  };
  const ports = await freePorts(doors.length + 1);
  config.dataDir = join(folder, "data", doors.join("-"));
  for (const door of doors) config[door] = { host: "127.0.0.1", port: ports.pop() };
  if (config.sources?.[0] !== undefined) config.sources[0].port = ports.pop()!;
  delete config.delivery;
  await writeFile(file, stringify(config));
}

/** Each module is imported by itself: a file that the package lacks would show. */
async function loadAll(home: string, program: string): Promise<void> {
  const modules = (await readdir(join(home, program), { recursive: true }))
    .filter((name) => name.endsWith(".js") && !name.startsWith("console/"))
    // These run as soon as they are loaded.
    .filter((name) => name !== "main.js" && !name.endsWith("-program.js"));
  assert.ok(modules.length > 20);
  const imports = modules.map((name) => `await import(${JSON.stringify(join(home, program, name))});`);
  const script = join(folder, `load-${program}.mjs`);
  await writeFile(script, `${imports.join("\n")}\nprocess.exit(0);\n`);
  await run(process.execPath, [script], { cwd: folder });
}

test("the agent's package installs, starts, feeds its watchdog, drains and goes", {
  skip,
  timeout: BUILD_MS,
}, async (t) => {
  const out = join(folder, "agent-out");
  await build(out, "--program", "agent", "--arch", here!);
  const file = join(out, `headwater-agent_${VERSION}_${here}.deb`);
  const target = await install(file, "agent-root");
  const home = join(target, "usr/lib/headwater-agent");

  const packages = await readdir(join(home, "node_modules"));
  for (const absent of ["@duckdb", "mediabunny", "typescript", "esbuild", "@nats-io"])
    assert.equal(packages.includes(absent), false, absent);
  assert.deepEqual(await readdir(join(home, "node_modules/classic-level/prebuilds")), [
    `linux-${process.arch}`,
  ]);
  // Its records belong to the device's name, which is chosen after the installation.
  assert.equal(existsSync(join(target, WANTS, "headwater-agent.service")), false);
  assert.equal((await stat(join(target, "etc/headwater/agent.credentials"))).mode & 0o777, 0o700);
  const { stdout: conffiles } = await run("dpkg-query", [
    `--admindir=${join(target, "var/lib/dpkg")}`,
    "-W",
    "-f=${Conffiles}",
    "headwater-agent",
  ]);
  assert.match(conffiles, /\/etc\/headwater\/agent\.yaml/);
  await loadAll(home, "agent");

  const config = join(target, "etc/headwater/agent.yaml");
  await moveAway(config, ["http"]);
  const service = await start(t, target, "agent", config);
  assert.equal(await service.next(), "READY=1|STATUS=device host-1", service.log());
  for (let n = 0; n < 2; n++) assert.equal(await service.next(), "WATCHDOG=1", service.log());
  await stop(service);

  await run("dpkg", [`--root=${target}`, "--force-script-chrootless", "--purge", "headwater-agent"]);
  for (const gone of ["usr/lib/headwater-agent", "etc/headwater", "usr/bin/headwater-agent"])
    assert.equal(existsSync(join(target, gone)), false, gone);
});

test("the same build gives the same bytes", { skip, timeout: BUILD_MS }, async () => {
  const [one, other] = [join(folder, "one"), join(folder, "other")];
  for (const out of [one, other])
    await build(out, "--program", "agent", "--arch", "arm64,armhf", "--compress", "none");
  for (const architecture of ["arm64", "armhf"]) {
    const name = `headwater-agent_${VERSION}_${architecture}.deb`;
    assert.ok((await readFile(join(one, name))).equals(await readFile(join(other, name))), name);
  }
});

test("the gateway's package installs, starts, feeds its watchdog and drains", {
  skip,
  timeout: BUILD_MS,
}, async (t) => {
  const out = join(folder, "gateway-out");
  const said = await build(out, "--program", "gateway", "--arch", `armhf,${here}`, "--compress", "none");
  assert.match(said, /no headwater-gateway for armhf: DuckDB/);
  if (here === "armhf") return;
  const target = await install(join(out, `headwater-gateway_${VERSION}_${here}.deb`), "gateway-root");
  const home = join(target, "usr/lib/headwater-gateway");
  assert.ok((await readdir(join(home, "gateway/console"))).includes("index.html"));
  assert.equal((await readdir(join(home, "node_modules"))).includes("serialport"), false);
  assert.match(
    await readlink(join(target, WANTS, "headwater-gateway.service")),
    /headwater-gateway\.service$/,
  );
  await loadAll(home, "gateway");

  const config = join(target, "etc/headwater/gateway.yaml");
  await moveAway(config, ["http", "mqtt", "rtsp"]);
  const service = await start(t, target, "gateway", config);
  assert.match(await service.next(), /^READY=1\|STATUS=http:/, service.log());
  assert.equal(await service.next(), "WATCHDOG=1", service.log());
  const url = /http:\/\/\S+/.exec(service.log())?.[0].replace(/[",].*/, "");
  assert.equal((await fetch(`${url}/healthz`)).status, 200);
  await stop(service);
});
