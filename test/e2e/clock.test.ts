import assert from "node:assert/strict";
import { appendFile, mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { connectAsync } from "mqtt";
import type { AgentStatus } from "../../agent/status/agent-status.ts";
import { deliveredLines } from "../support/delivered.ts";
import { JumpingClock } from "../support/jumping-clock.ts";
import { eventually, freePorts, Program } from "../support/program.ts";
import { removeFolder } from "../support/remove-folder.ts";

const PATIENCE_MS = 60_000;
const EACH = 5;
/** What is promised of times. */
const WITHIN_MS = 1_000;

/** When a record was made, in truth. */
interface Moment {
  readonly fromMs: number;
  readonly toMs: number;
}

/** A device whose clock is in 1970, and a gateway that knows the time. */
class Rig {
  readonly dir: string;
  readonly clock: JumpingClock;
  readonly truth = new Map<number, Moment>();
  readonly #ports: readonly number[];
  readonly #programs: Program[] = [];

  constructor(dir: string, ports: readonly number[]) {
    this.dir = dir;
    this.clock = new JumpingClock(dir);
    this.#ports = ports;
  }

  static async make(t: TestContext): Promise<Rig> {
    const dir = await mkdtemp(join(tmpdir(), "headwater-clock-"));
    const rig = new Rig(dir, await freePorts(5));
    t.after(async () => {
      for (const program of rig.#programs) await program.kill();
      await rig.clock.close();
      await removeFolder(dir);
    });
    const [http, mqtt, rtsp, status, broker] = rig.#ports;
    await writeFile(rig.#path("meter.log"), "");
    await writeFile(
      rig.#path("gateway.yaml"),
      `
dataDir: gateway-data
http: { port: ${http} }
mqtt: { port: ${mqtt} }
rtsp: { port: ${rtsp} }
streams: [{ name: sensors, shards: 2 }]
delivery: [{ name: sensors, stream: sensors, bufferSeconds: 1, destination: { type: files, path: delivered } }]
`,
    );
    await writeFile(
      rig.#path("agent.yaml"),
      `
device: pi-1
dataDir: agent-data
http: { port: ${status} }
gateway: { mqtt: "mqtt://127.0.0.1:${mqtt}" }
sources:
  - { name: meter, type: file, path: meter.log, stream: sensors, format: json-lines, pollMs: 50 }
  - { name: local, type: mqtt, port: ${broker} }
`,
    );
    await rig.clock.setTo1970();
    return rig;
  }

  #path(name: string): string {
    return join(this.dir, name);
  }

  async start(name: "agent" | "gateway"): Promise<Program> {
    const environment = name === "agent" ? this.clock.environment : {};
    const program = new Program(name, this.#path(`${name}.yaml`), this.#path(`${name}.log`), [], environment);
    this.#programs.push(program);
    await program.ready;
    return program;
  }

  async status(): Promise<AgentStatus> {
    return (await (await fetch(`http://127.0.0.1:${this.#ports[3]}/status.json`)).json()) as AgentStatus;
  }

  /** Some lines of a file and some messages, all of them stored when it resolves. */
  async say(): Promise<void> {
    const stored = async () => (await this.status()).sources.reduce((sum, { records }) => sum + records, 0);
    const before = await stored();
    const fromMs = Date.now();
    const first = this.truth.size;
    const numbers = Array.from({ length: 2 * EACH }, (_, i) => first + i);
    const lines = numbers.slice(0, EACH).map((n) => `${JSON.stringify({ sensor: "meter", n })}\n`);
    await appendFile(this.#path("meter.log"), lines.join(""));
    const client = await connectAsync(`mqtt://127.0.0.1:${this.#ports[4]}`);
    for (const n of numbers.slice(EACH)) {
      await client.publishAsync("farm/silo", JSON.stringify({ n }), { qos: 1 });
    }
    await client.endAsync();
    await eventually("all is stored", PATIENCE_MS, async () =>
      (await stored()) >= before + 2 * EACH ? true : undefined,
    );
    for (const n of numbers) this.truth.set(n, { fromMs, toMs: Date.now() });
  }

  async delivered(): Promise<Array<Record<string, unknown>>> {
    return eventually("all is delivered", PATIENCE_MS, async () => {
      const lines = (await deliveredLines(this.#path("delivered"))).map(({ json }) => json);
      return lines.length >= this.truth.size ? lines : undefined;
    });
  }
}

async function check(rig: Rig, sources: ReadonlyArray<string | undefined>): Promise<void> {
  const lines = await rig.delivered();
  assert.equal(lines.length, rig.truth.size);
  for (const line of lines) {
    const { fromMs, toMs } = rig.truth.get(Number(line.n))!;
    const timeMs = Date.parse(String(line.time));
    const said = `${JSON.stringify(line)} was made ${new Date(fromMs).toISOString()}`;
    assert.ok(timeMs >= fromMs - WITHIN_MS && timeMs <= toMs + WITHIN_MS, said);
    assert.ok(sources.includes(line.timeSource as string | undefined), said);
  }
  for (const sensor of ["meter", "farm/silo"]) {
    const times = lines.filter((line) => line.sensor === sensor).map(({ time }) => String(time));
    assert.deepEqual(times, times.toSorted(), "times rise within a sensor");
  }
}

const LEFT_OUT = JumpingClock.missing();

test("a boot in 1970 and the jump to today, killed in between: every time is within a second of the truth", {
  skip: LEFT_OUT,
  timeout: 300_000,
}, async (t) => {
  const rig = await Rig.make(t);
  const agent = await rig.start("agent");
  await rig.say();
  assert.equal((await rig.status()).clock.known, false);
  await agent.kill();
  await rig.start("agent");
  await rig.say();
  assert.equal((await rig.status()).clock.known, false);
  await rig.clock.setOffset(0);
  await rig.say();
  await rig.start("gateway");
  await eventually("the time is known", PATIENCE_MS, async () =>
    (await rig.status()).clock.known ? true : undefined,
  );
  await rig.say();
  // Where NTP keeps this machine's clock the agent has that, and records say nothing.
  await check(rig, ["gateway", undefined]);
});

test("a clock that stays in 1970: the gateway says what time it is, also to the next start", {
  skip: LEFT_OUT,
  timeout: 300_000,
}, async (t) => {
  const rig = await Rig.make(t);
  const agent = await rig.start("agent");
  await rig.say();
  const gateway = await rig.start("gateway");
  await eventually("the time is known", PATIENCE_MS, async () =>
    (await rig.status()).clock.known ? true : undefined,
  );
  await rig.say();
  await gateway.kill();
  await agent.kill();
  await rig.start("agent");
  await rig.say();
  const askedMs = Date.now();
  const { known, by, boundMs, time } = (await rig.status()).clock;
  assert.deepEqual([known, by], [true, "gateway"]);
  const offMs = WITHIN_MS + boundMs!;
  const saidMs = Date.parse(time!);
  assert.ok(boundMs! < 60_000 && saidMs > askedMs - offMs && saidMs < Date.now() + offMs);
  await rig.start("gateway");
  await check(rig, ["gateway"]);
});
