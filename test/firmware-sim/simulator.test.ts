import assert from "node:assert/strict";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { pause } from "../../runtime/backoff.ts";
import { nodeFlags, scriptPath } from "../support/script.ts";

const MAIN = scriptPath("../../firmware-sim/main.ts", import.meta.url);
const NODE = [process.execPath, ...nodeFlags, MAIN] as [string, ...string[]];

async function until(holds: () => boolean, what: string, timeoutMs = 90_000): Promise<void> {
  const endMs = Date.now() + timeoutMs;
  while (!holds()) {
    assert.ok(Date.now() < endMs, `not within ${timeoutMs} ms: ${what}`);
    await pause(20);
  }
}

/** Processes whose command line holds `text`. */
function processesWith(text: string): number[] {
  return readdirSync("/proc")
    .filter((entry) => /^\d+$/.test(entry))
    .map(Number)
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(text);
      } catch {
        return false;
      }
    });
}

function writeConfig(t: TestContext, text: string): { folder: string; file: string } {
  const folder = mkdtempSync(join(tmpdir(), "hw-sim-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const file = join(folder, "sim.yaml");
  writeFileSync(file, text);
  return { folder, file };
}

function run(...args: string[]) {
  const [node, ...nodeArgs] = NODE;
  return spawnSync(node, [...nodeArgs, ...args], { encoding: "utf8" });
}

async function startSim(t: TestContext, file: string): Promise<{ sim: ChildProcess; controlPort: number }> {
  const [node, ...nodeArgs] = NODE;
  const sim = spawn(node, [...nodeArgs, "--config", file], { stdio: ["ignore", "ignore", "pipe"] });
  t.after(() => sim.kill("SIGKILL"));
  let log = "";
  sim.stderr.setEncoding("utf8").on("data", (text: string) => {
    log += text;
  });
  await until(() => log.includes('"running"') || sim.exitCode !== null, "the simulator's start");
  const line = log.split("\n").find((text) => text.includes('"running"'));
  assert.ok(line, log);
  return { sim, controlPort: JSON.parse(line).controlPort };
}

const BOARD_ONLY = "dataDir: truth\ncontrol: {port: 0}\nboard: {path: tty, hz: 50}\n";

test("a bad config is answered with path and reason, and exit code 2", (t) => {
  const { file } = writeConfig(t, "board: {path: tty, hertz: 3}\nsensors: {count: 0}\n");
  const { status, stderr } = run("--config", file);
  assert.equal(status, 2);
  assert.match(stderr, /board: unknown key "hertz"/);
  assert.match(stderr, /sensors\.count/);
  assert.equal(run("--config", join(file, "nothing")).status, 2);
  assert.equal(run("--wrong").status, 2);
  assert.equal(run().status, 2);
});

test("--check, --help and --version end at once", (t) => {
  const { file } = writeConfig(t, BOARD_ONLY);
  assert.equal(run("--config", file, "--check").status, 0);
  assert.match(run("--help").stdout, /--config FILE/);
  assert.match(run("--version").stdout, /^\d+\.\d+\.\d+\n$/);
});

test("the serial port vanishes with the simulator, also when it is killed", async (t) => {
  for (const signal of ["SIGTERM", "SIGKILL"] as const) {
    const { folder, file } = writeConfig(t, BOARD_ONLY);
    const { sim } = await startSim(t, file);
    await until(() => existsSync(join(folder, "tty")), "the link");
    assert.match(readlinkSync(join(folder, "tty")), /^\/dev\/pts\//);
    sim.kill(signal);
    await once(sim, "exit");
    await until(() => processesWith(join(folder, "tty")).length === 0, `no socat after ${signal}`);
    if (signal === "SIGTERM") assert.equal(existsSync(join(folder, "tty")), false);
  }
});

test("the control door answers, checks what it is asked, and refuses browsers", async (t) => {
  const { folder, file } = writeConfig(t, BOARD_ONLY);
  const { controlPort } = await startSim(t, file);
  const ask = async (path: string, init?: RequestInit) => {
    const response = await fetch(`http://127.0.0.1:${controlPort}${path}`, init);
    return {
      status: response.status,
      body: (await response.json()) as Record<string, Record<string, unknown>>,
    };
  };
  const fault = (body: unknown, headers = {}) =>
    ask("/faults", { method: "POST", headers, body: typeof body === "string" ? body : JSON.stringify(body) });
  assert.equal((await ask("/status")).body.board?.plugged, true);
  assert.equal((await fault({ fault: "unplug-board" })).body.board?.plugged, false);
  assert.equal(existsSync(join(folder, "tty")), false);
  assert.equal((await fault({ fault: "plug-board" })).status, 200);
  await until(() => existsSync(join(folder, "tty")), "the link again");
  for (const bad of ["", "[]", "{", '{"fault": "burn"}', '{"fault": "silence-sensor"}', " ".repeat(20_000)]) {
    assert.equal((await fault(bad)).status, 400, bad);
  }
  assert.equal((await fault({ fault: "stall-camera" })).status, 400);
  assert.equal((await fault({ fault: "plug-board" }, { origin: "http://evil.example" })).status, 403);
  assert.equal((await ask("/nothing")).status, 404);
  assert.equal((await ask("/stop-sending", { method: "POST" })).status, 200);
  assert.equal((await ask("/idle?seconds=5")).status, 200);
  assert.equal((await ask("/idle?seconds=x")).status, 400);
});

test("board, sensors and camera run together, and no ffmpeg outlives a kill", async (t) => {
  const { folder, file } = writeConfig(
    t,
    `${BOARD_ONLY}sensors: {url: "mqtt://127.0.0.1:9", count: 3}\ncamera: {port: 0, width: 320, height: 180, fps: 10}\n`,
  );
  const { sim, controlPort } = await startSim(t, file);
  const status = async () =>
    (await (await fetch(`http://127.0.0.1:${controlPort}/status`)).json()) as {
      camera: { port: number; pictures: number; stalled: boolean };
      sensors: { count: number; connected: number };
    };
  const { camera, sensors } = await status();
  assert.deepEqual([sensors.count, sensors.connected], [3, 0]);
  const pictures = () => readFileSync(join(folder, "truth", "camera.ndjson"), "utf8").split("\n").length - 1;
  await until(() => pictures() > 10, "pictures in the truth");
  await fetch(`http://127.0.0.1:${controlPort}/faults`, { method: "POST", body: '{"fault":"stall-camera"}' });
  assert.equal((await status()).camera.stalled, true);
  sim.kill("SIGKILL");
  await once(sim, "exit");
  await until(() => processesWith(`:${camera.port}/`).length === 0, "no ffmpeg");
});
