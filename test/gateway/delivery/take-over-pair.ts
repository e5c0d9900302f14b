/** One delivery on two gateways in front of one cluster, into one folder, each in a process that can be killed or paused. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { CutStep } from "../../../gateway/delivery/cutter.ts";
import type { Streams } from "../../../gateway/streams/streams.ts";
import { nodeFlags, scriptPath } from "../../support/script.ts";
import type { Ground } from "../streams/stores/jetstream/cluster-fact.ts";
import { countInOrder, files, lines, numbered, until } from "./delivery-rig.ts";

export const BATCH = 20;
export const WITHIN_MS = 120_000;

export class Front {
  readonly said: string[] = [];
  readonly #child: ChildProcess;
  readonly gone: Promise<unknown>;

  constructor(args: readonly string[]) {
    const script = scriptPath("./take-over-gateway.ts", import.meta.url);
    this.#child = spawn(process.execPath, [...nodeFlags, script, ...args], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    this.gone = once(this.#child, "exit");
    createInterface({ input: this.#child.stdout! }).on("line", (line) => this.said.push(line));
  }

  /** How often it told a step, or something that begins so. */
  count(what: string): number {
    return this.said.filter((line) => line.startsWith(what)).length;
  }

  says(what: string, times = 1): Promise<void> {
    return until(`a gateway says "${what}"`, () => this.count(what) >= times, WITHIN_MS);
  }

  /** It sends itself the signal right after the next such step. */
  async arm(step: CutStep, signal: "SIGKILL" | "SIGSTOP"): Promise<void> {
    this.#child.stdin!.write(`${step} ${signal}\n`);
    await this.says("armed");
  }

  wake(): void {
    this.#child.kill("SIGCONT");
  }

  async kill(): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.gone;
  }
}

/** Two gateways with folders of their own, and a third through which records come. */
export class Pair {
  readonly streams: Streams;
  readonly dir: string;
  readonly out: string;
  readonly #ground: Ground;
  readonly #fronts: Front[] = [];
  appended = 0;

  private constructor(ground: Ground, streams: Streams, dir: string) {
    this.#ground = ground;
    this.streams = streams;
    this.dir = dir;
    this.out = join(dir, "out");
  }

  static async with(ground: Ground, body: (pair: Pair) => Promise<void>): Promise<void> {
    const streams = await ground.open();
    await streams.createStream({ name: "s", shards: 3, retentionHours: 24 });
    const pair = new Pair(ground, streams, await mkdtemp(join(tmpdir(), "headwater-take-over-")));
    try {
      await body(pair);
    } catch (error) {
      for (const [i, front] of pair.#fronts.entries()) console.error(`gateway ${i}:`, front.said.slice(-20));
      throw error;
    } finally {
      await Promise.all(pair.#fronts.map((front) => front.kill()));
      await rm(pair.dir, { recursive: true, force: true });
    }
  }

  async start(which: "a" | "b"): Promise<Front> {
    const { cluster, prefix } = this.#ground;
    const bufferBytes = which === "a" ? "600" : "1000";
    const args = [cluster.servers.join(","), prefix, join(this.dir, which), this.out, bufferBytes];
    const front = new Front(args);
    this.#fronts.push(front);
    await front.says("ready");
    return front;
  }

  async append(batches: number, records = BATCH): Promise<void> {
    for (let i = 0; i < batches; i++) {
      await this.streams.append("s", numbered(this.appended, records));
      this.appended += records;
    }
  }

  /** Each record is in one object, and those of a key in their order. */
  async judge(): Promise<void> {
    const isThere = async (): Promise<boolean> => (await lines(this.out)).length >= this.appended;
    await until("all is delivered", isThere, WITHIN_MS);
    const all = await lines(this.out);
    assert.equal(all.length - new Set(all).size, 0, "records were delivered twice");
    assert.equal(countInOrder(all), this.appended);
    const names = [...(await files(this.out)).keys()];
    assert.equal(new Set(names.map((name) => name.slice(-22))).size, names.length, "two objects of one cut");
    assert.deepEqual(
      names.filter((name) => name.endsWith(".tmp")),
      [],
    );
  }
}
