import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, lstatSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import { connectAsync } from "mqtt";
import { type Browser, chromium, type Page } from "playwright-core";
import { pause } from "../../runtime/backoff.ts";
import { freePorts } from "../support/program.ts";

/** Compiled, this file is one folder deeper. */
const ROOT = fileURLToPath(
  new URL(import.meta.url.endsWith(".js") ? "../../../" : "../../", import.meta.url),
);
const FLAGS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-background-networking"];
const PORTS = 7;
/** Places in the row. */
const BROKER = 3;
const CAMERA = 5;
const SENSOR = "pi-1/greenhouse/temperature";

/** Seven ports in a row that nobody listens on. */
async function freeRow(): Promise<number> {
  for (;;) {
    const [base] = (await freePorts(1)) as [number];
    const taken = await Promise.all(Array.from({ length: PORTS }, (_, i) => listens(base + i)));
    if (base <= 65_000 && !taken.includes(true)) return base;
  }
}

function listens(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}

interface Demo {
  readonly process: ChildProcess;
  readonly dir: string;
  readonly base: number;
  said(): string;
  /** Waits until the pattern is among what it said. */
  says(pattern: RegExp, withinMs?: number): Promise<RegExpExecArray>;
}

async function startDemo(t: TestContext): Promise<Demo> {
  const dir = mkdtempSync(join(tmpdir(), "headwater-demo-"));
  const base = await freeRow();
  const demo = spawn(
    process.execPath,
    [join(ROOT, "setup/demo.mjs"), "--dir", dir, "--ports", String(base)],
    { cwd: ROOT, stdio: ["ignore", "pipe", "pipe"] },
  );
  let text = "";
  for (const output of [demo.stdout, demo.stderr]) output.on("data", (chunk) => (text += chunk));
  t.after(async () => {
    if (demo.exitCode === null) {
      demo.kill("SIGTERM");
      await once(demo, "exit");
    }
    rmSync(dir, { recursive: true, force: true });
  });
  const says = async (pattern: RegExp, withinMs = 30_000): Promise<RegExpExecArray> => {
    const endMs = performance.now() + withinMs;
    for (;;) {
      const found = pattern.exec(text);
      if (found !== null) return found;
      assert.ok(performance.now() < endMs && demo.exitCode === null, `never said ${pattern}:\n${text}`);
      await pause(20);
    }
  };
  return { process: demo, dir, base, said: () => text, says };
}

/** The processes whose command line holds `part`. */
function processesWith(part: string): string[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .map((pid) => {
      try {
        return `${pid} ${readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ")}`;
      } catch {
        return "";
      }
    })
    .filter((line) => line.includes(part));
}

/** Asks from outside: inside, the page's own policy forbids to evaluate text. */
async function until(page: Page, expression: string, timeoutMs: number): Promise<number> {
  const startMs = performance.now();
  while (!(await page.evaluate(expression))) {
    assert.ok(performance.now() - startMs < timeoutMs, `not within ${timeoutMs} ms: ${expression}`);
    await pause(20);
  }
  return performance.now() - startMs;
}

async function publish(url: string, value: string): Promise<void> {
  const client = await connectAsync(url);
  await client.publishAsync("greenhouse/temperature", value, { qos: 1 });
  await client.endAsync();
}

/** The page writes as many decimals as the other readings have. */
const SHOWS = (value: string) =>
  `Number(document.querySelector("#chart-value").textContent || "NaN") === ${value}`;
const OFFERS = `[...document.querySelectorAll("#chart-sensor option")].some((o) => o.value === "${SENSOR}" || o.textContent === "${SENSOR}")`;
const PLAYS = `document.querySelector("#camera-video").currentTime > 1`;
const FILES = `document.querySelectorAll("#files tbody tr").length > 0`;
const WINDOWS = `document.querySelectorAll("#windows tbody tr").length > 0`;

test("the demo shows what is sent within a second, survives a kill, and leaves nothing behind", {
  timeout: 120_000,
}, async (t) => {
  const demo = await startDemo(t);
  const [, link] = await demo.says(/Console {4}(\S+)/);
  const browser: Browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: FLAGS });
  t.after(() => browser.close());
  const page = await browser.newPage({ viewport: { width: 1_360, height: 1_000 } });
  await page.goto(link!);
  await page.waitForSelector("#page:not([hidden])");

  const broker = `mqtt://127.0.0.1:${demo.base + BROKER}`;
  await publish(broker, "21.5");
  await until(page, OFFERS, 15_000);
  await page.selectOption("#chart-sensor", { label: SENSOR });
  await until(page, SHOWS("21.5"), 5_000);
  await publish(broker, "22.75");
  const shownMs = await until(page, SHOWS("22.75"), 1_000);
  t.diagnostic(`on the page ${Math.round(shownMs)} ms after the acknowledgement`);

  await until(page, PLAYS, 20_000);
  await until(page, FILES, 40_000);
  await until(page, WINDOWS, 40_000);

  const [, agentPid] = await demo.says(/agent (\d+)/);
  process.kill(Number(agentPid), "SIGKILL");
  await demo.says(/the agent runs again/, 15_000);
  await publish(broker, "23.5");
  await until(page, SHOWS("23.5"), 5_000);
  await page.close();

  demo.process.kill("SIGINT");
  const [code] = await once(demo.process, "exit");
  assert.equal(code, 0, demo.said());
  assert.deepEqual(processesWith(demo.dir), []);
  // ffmpeg knows no folder, but the camera's address.
  assert.deepEqual(processesWith(`127.0.0.1:${demo.base + CAMERA}/`), []);
  for (let i = 0; i < PORTS; i++) assert.equal(await listens(demo.base + i), false, `port ${demo.base + i}`);
  assert.equal(lstatSync(join(demo.dir, "sim/board.tty"), { throwIfNoEntry: false }), undefined);
  assert.equal(existsSync(join(demo.dir, "demo.pid")), false);
});

test("a second demo on the same ports says which port is taken, by whom, and what to do", async (t) => {
  const demo = await startDemo(t);
  await demo.says(/Console {4}/);
  const second = spawn(
    process.execPath,
    [join(ROOT, "setup/demo.mjs"), "--dir", demo.dir, "--ports", String(demo.base)],
    { cwd: ROOT, stdio: ["ignore", "ignore", "pipe"] },
  );
  let text = "";
  second.stderr.on("data", (chunk) => (text += chunk));
  const [code] = await once(second, "close");
  assert.equal(code, 1);
  assert.match(text, new RegExp(`port ${demo.base} is taken by .*process \\d+; the demo needs it for`));
  assert.match(text, /npm run demo -- --dir \S+ --ports \d+/);
});
