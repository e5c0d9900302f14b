/** One delivery on two gateways in front of one cluster, into one folder, each in a process that can be killed or paused. */
import assert from "node:assert/strict";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Streams } from "../../../gateway/streams/streams.ts";
import { ArmedProgram } from "../../support/armed-program.ts";
import { removeFolder } from "../../support/remove-folder.ts";
import { scriptPath } from "../../support/script.ts";
import type { Ground } from "../streams/stores/jetstream/cluster-fact.ts";
import { countInOrder, files, lines, numbered, until } from "./delivery-rig.ts";

export const BATCH = 20;
export const WITHIN_MS = 120_000;

/** Two gateways with folders of their own, and a third through which records come. */
export class Pair {
  readonly streams: Streams;
  readonly dir: string;
  readonly out: string;
  readonly #ground: Ground;
  readonly #fronts: ArmedProgram[] = [];
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
      await removeFolder(pair.dir);
    }
  }

  async start(which: "a" | "b"): Promise<ArmedProgram> {
    const { cluster, prefix } = this.#ground;
    const bufferBytes = which === "a" ? "600" : "1000";
    const args = [cluster.servers.join(","), prefix, join(this.dir, which), this.out, bufferBytes];
    const front = new ArmedProgram(scriptPath("./take-over-gateway.ts", import.meta.url), args);
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
