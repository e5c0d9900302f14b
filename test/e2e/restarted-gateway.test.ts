/** A gateway that is killed and comes back finds 500 agents that come back one after another, with all that they have. */
import assert from "node:assert/strict";
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import type { SwarmDrained, SwarmOrder, SwarmSample } from "../support/agent-swarm.ts";
import { freePorts, Program } from "../support/program.ts";
import { removeFolder } from "../support/remove-folder.ts";
import { nodeFlags, scriptPath } from "../support/script.ts";
import { storedRecords } from "../support/stored-records.ts";

const AGENTS = 500;
const SWARMS = 2;
const BACK_WITHIN_MS = 60_000;
const STREAM = "sensors";
const KEY = { accessKeyId: "HEADWATER1", secretAccessKey: "a secret of the test" };

class Swarm {
  readonly samples: SwarmSample[] = [];
  readonly drained: Promise<SwarmDrained>;
  readonly #child: ChildProcess;

  constructor(order: SwarmOrder) {
    const script = scriptPath("../support/agent-swarm.ts", import.meta.url);
    this.#child = fork(script, [JSON.stringify(order)], { execArgv: [...nodeFlags] });
    this.drained = new Promise((resolve, reject) => {
      this.#child.on("message", (message: SwarmSample | SwarmDrained) => {
        if (message.type === "sample") this.samples.push(message);
        else resolve(message);
      });
      this.#child.once("exit", (code, signal) => reject(new Error(`a swarm ended: ${signal ?? code}`)));
    });
    this.drained.catch(() => {});
  }

  finish(): Promise<SwarmDrained> {
    this.#child.send("finish");
    return this.drained;
  }

  async kill(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const gone = once(this.#child, "exit");
    this.#child.kill("SIGKILL");
    await gone;
  }
}

/** Resolves when so many agents are connected, by what they said after `sinceMs`. */
async function connected(
  swarms: readonly Swarm[],
  count: number,
  sinceMs: number,
  withinMs: number,
): Promise<number> {
  const end = Date.now() + withinMs;
  for (;;) {
    const last = swarms.map(({ samples }) => samples.at(-1)).filter((one) => (one?.atMs ?? 0) > sinceMs);
    const sum = last.reduce((all, one) => all + one!.connected, 0);
    if (last.length === swarms.length && sum === count) return Date.now();
    assert.ok(Date.now() < end, `${sum} of ${count} agents are connected after ${withinMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/**
 * What became more in each tenth of a second after `fromMs`, over all swarms. What came between two looks is spread
 * over the time between them: of a process that hung nobody knows when in that time its agents wanted to act.
 */
function tenths(swarms: readonly Swarm[], fromMs: number, value: (sample: SwarmSample) => number): number[] {
  const counts: number[] = [];
  for (const { samples } of swarms) {
    for (const [i, sample] of samples.entries()) {
      const before = samples[i - 1];
      if (before === undefined || sample.atMs <= fromMs) continue;
      const last = Math.floor((sample.atMs - fromMs) / 100);
      const first = Math.min(last, Math.max(0, Math.floor((before.atMs - fromMs) / 100) + 1));
      const share = Math.max(0, value(sample) - value(before)) / (last - first + 1);
      for (let tenth = first; tenth <= last; tenth++) counts[tenth] = (counts[tenth] ?? 0) + share;
    }
  }
  return Array.from(counts, (count) => count ?? 0);
}

async function workshop(
  t: TestContext,
): Promise<{ dir: string; gateway: () => Program; http: number; mqtt: number }> {
  const dir = await mkdtemp(join(tmpdir(), "headwater-farm-"));
  const [http, mqtt, rtsp] = (await freePorts(3)) as [number, number, number];
  const file = join(dir, "gateway.yaml");
  const config = {
    dataDir: "data",
    http: { port: http },
    mqtt: { port: mqtt },
    rtsp: { port: rtsp },
    accessKeys: [{ id: KEY.accessKeyId, secret: KEY.secretAccessKey }],
    streams: [{ name: STREAM, shards: 2 }],
    log: "warn",
  };
  await writeFile(file, JSON.stringify(config));
  const programs: Program[] = [];
  t.after(async () => {
    await Promise.all(programs.map((program) => program.kill()));
    await removeFolder(dir);
  });
  const gateway = (): Program => {
    const program = new Program("gateway", file, join(dir, "log"));
    programs.push(program);
    return program;
  };
  return { dir, gateway, http, mqtt };
}

test("500 agents come back to a restarted gateway one after another, with every record once", async (t) => {
  const { dir, gateway, http, mqtt } = await workshop(t);
  let program = gateway();
  await program.ready;
  const swarms = Array.from({ length: SWARMS }, (_, i) => {
    const count = AGENTS / SWARMS;
    const url = `mqtt://127.0.0.1:${mqtt}`;
    return new Swarm({
      dir: join(dir, "agents"),
      url,
      first: i * count,
      count,
      stream: STREAM,
      everyMs: 5_000,
    });
  });
  t.after(() => Promise.all(swarms.map((swarm) => swarm.kill())));
  await connected(swarms, AGENTS, 0, 240_000);

  await program.kill();
  const killedMs = Date.now();
  program = gateway();
  await program.ready;
  const readyMs = Date.now();
  const backMs = (await connected(swarms, AGENTS, readyMs, BACK_WITHIN_MS)) - readyMs;

  const tries = tenths(swarms, killedMs, ({ tries }) => tries);
  const back = tenths(swarms, readyMs, ({ connected }) => connected);
  const wanted = tenths(swarms, readyMs, ({ tries }) => tries);
  t.diagnostic(`the gateway was away for ${readyMs - killedMs} ms; all were back ${backMs} ms later`);
  t.diagnostic(`tries a tenth of a second after the kill: ${tries.map(Math.round).join(" ")}`);
  t.diagnostic(`connected a tenth of a second after it was ready: ${back.map(Math.round).join(" ")}`);
  // Spread out, by when they try: a gateway that hangs for a moment answers all of that moment at once.
  const most = Math.max(...wanted.map((_, i) => wanted.slice(i, i + 5).reduce((sum, one) => sum + one, 0)));
  assert.ok(most <= AGENTS / 2, `${Math.round(most)} agents tried within half a second`);

  const stored = await Promise.all(swarms.map((swarm) => swarm.finish()));
  const found = await storedRecords({ endpoint: `http://127.0.0.1:${http}`, credentials: KEY }, STREAM);
  let records = 0;
  for (const [device, count] of stored.flatMap((one) => Object.entries(one.stored))) {
    records += count;
    for (let number = 0; number < count; number++) {
      assert.equal(found.get(JSON.stringify({ device, number })), 1, `${device}/${number}`);
    }
  }
  assert.equal(found.size, records);
  t.diagnostic(`${records} records, each stored once`);
});
