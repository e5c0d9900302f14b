/** Random splits, merges, appends, reads and reopenings, held against a plain model. */
import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import type { LocalStreams } from "../../../gateway/streams/stores/local/local.ts";
import {
  type Consumer,
  MAX_HASH,
  partitionHash,
  type ReshardStep,
} from "../../../gateway/streams/streams.ts";
import { makeFrame, readAll } from "../../contract/stream-records.ts";
import { makeLocalPlace } from "./stores/local/local-place.ts";

const KEYS = Array.from({ length: 12 }, (_, i) => `k${i}`);

type Step =
  | { readonly do: "append" | "frame"; readonly keys: readonly number[]; readonly wait: boolean }
  | { readonly do: "split"; readonly which: number; readonly at: number }
  | { readonly do: "merge"; readonly which: number }
  | { readonly do: "reshard"; readonly at: readonly number[] }
  | { readonly do: "consume"; readonly shards: number; readonly records: number }
  | { readonly do: "reopen" };

const natural = fc.nat({ max: 1_000_000 });
const keys = fc.array(fc.nat({ max: KEYS.length - 1 }), { minLength: 1, maxLength: 8 });
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 5, arbitrary: fc.record({ do: fc.constantFrom("append", "frame"), keys, wait: fc.boolean() }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant("split"), which: natural, at: natural }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("merge"), which: natural }) },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant("reshard"),
      at: fc.array(fc.integer({ min: 1, max: 12 }), { minLength: 1, maxLength: 8 }),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant("consume"),
      shards: fc.integer({ min: 1, max: 4 }),
      records: fc.integer({ min: 1, max: 5 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("reopen") }) },
) as fc.Arbitrary<Step>;

/** Open shards by rising range, and every record in the order of appending. */
class Model {
  open = [{ index: 0, from: 0n, to: MAX_HASH }];
  nextIndex = 1;
  readonly appended: Array<{ key: string; text: string; shard: number }> = [];
  readonly consumed: string[] = [];

  shardOf(key: string): number {
    const hash = partitionHash(key);
    return this.open.find(({ from, to }) => from <= hash && hash <= to)!.index;
  }

  split(place: number, at: bigint): void {
    const { from, to } = this.open[place]!;
    const low = { index: this.nextIndex++, from, to: at - 1n };
    this.open.splice(place, 1, low, { index: this.nextIndex++, from: at, to });
  }

  /** With the one behind it. */
  merge(place: number): void {
    const [low, high] = [this.open[place]!, this.open[place + 1]!];
    this.open.splice(place, 2, { index: this.nextIndex++, from: low.from, to: high.to });
  }

  append(keyIndexes: readonly number[]): string[] {
    return keyIndexes.map((i) => {
      const key = KEYS[i]!;
      const text = `${key}=${this.appended.length}`;
      this.appended.push({ key, text, shard: this.shardOf(key) });
      return text;
    });
  }
}

class Run {
  readonly #model = new Model();
  readonly #reopen: () => Promise<LocalStreams>;
  #streams!: LocalStreams;
  #consumer!: Consumer;
  #sequence = 0n;
  #waiting: Promise<unknown>[] = [];

  constructor(reopen: () => Promise<LocalStreams>) {
    this.#reopen = reopen;
  }

  async start(): Promise<void> {
    this.#streams = await this.#reopen();
    await this.#streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
    this.#consumer = await this.#streams.openConsumer("s", "c");
  }

  async take(one: Step): Promise<void> {
    if (one.do === "append" || one.do === "frame") return this.#append(one.do, one.keys, one.wait);
    if (one.do === "split") return this.#split(one.which, one.at);
    if (one.do === "merge") return this.#merge(one.which);
    if (one.do === "reshard") return this.#reshard(one.at);
    if (one.do === "consume") return void (await this.#consume(one.shards, one.records));
    await this.#settle();
    this.#streams = await this.#reopen();
    this.#consumer = await this.#streams.openConsumer("s", "c");
  }

  async #append(how: "append" | "frame", keyIndexes: readonly number[], wait: boolean): Promise<void> {
    const texts = this.#model.append(keyIndexes);
    const entries = texts.map((text) => ({ partitionKey: text.split("=")[0]!, data: Buffer.from(text) }));
    const stored =
      how === "append"
        ? this.#streams.append("s", entries)
        : this.#streams.appendFrame(makeFrame("s", ++this.#sequence, texts));
    this.#waiting.push(stored);
    if (wait) await this.#settle();
  }

  async #split(which: number, at: number): Promise<void> {
    const { open } = this.#model;
    const place = which % open.length;
    const { index, from, to } = open[place]!;
    // One hash cannot be shared out.
    if (from === to) return;
    const startingHash = from + 1n + ((to - from - 1n) * BigInt(at)) / 1_000_000n;
    await this.#streams.splitShard("s", shardId(index), startingHash);
    this.#model.split(place, startingHash);
  }

  async #merge(which: number): Promise<void> {
    const { open } = this.#model;
    if (open.length === 1) return;
    const place = which % (open.length - 1);
    const [low, high] = [open[place]!, open[place + 1]!];
    await this.#streams.mergeShards("s", shardId(high.index), shardId(low.index));
    this.#model.merge(place);
  }

  /** Each place becomes a border, or is one no more. */
  async #reshard(places: readonly number[]): Promise<void> {
    const { open } = this.#model;
    const steps: ReshardStep[] = [];
    for (const place of places) {
      const at = (MAX_HASH / 13n) * BigInt(place);
      const there = open.findIndex(({ from, to }) => from <= at && at <= to);
      const what = open[there]!.from === at ? "merge" : "split";
      steps.push({ do: what, at });
      if (what === "split") this.#model.split(there, at);
      else this.#model.merge(there - 1);
    }
    await this.#streams.reshard("s", steps);
  }

  /** Some records of some of the shards that may be read, then one checkpoint over all of them. */
  async #consume(shards: number, records: number): Promise<boolean> {
    await this.#settle();
    const moved = new Map<string, number>();
    let progressed = false;
    for (const [id, from] of [...this.#consumer.positions()].reverse().slice(0, shards)) {
      const found = (await readAll(this.#streams, "s", id, from)).slice(0, records);
      this.#model.consumed.push(...found.map(({ text }) => text));
      const { ended } = await this.#streams.read("s", id, from + found.length, 1);
      moved.set(id, from + found.length);
      if (found.length > 0 || ended) progressed = true;
    }
    await this.#consumer.checkpoint(moved);
    return progressed;
  }

  async #settle(): Promise<void> {
    await Promise.all(this.#waiting);
    this.#waiting = [];
  }

  async end(): Promise<void> {
    await this.#settle();
    const model = this.#model;
    const { shardList } = this.#streams.describe("s");
    const open = shardList
      .filter(({ closedMs }) => closedMs === undefined)
      .map(({ index, hashFrom, hashTo }) => ({ index, from: hashFrom, to: hashTo }))
      .sort((a, b) => (a.from < b.from ? -1 : 1));
    assert.deepEqual(open, model.open);
    for (const shard of shardList) {
      const texts = (await readAll(this.#streams, "s", shard.shardId)).map(({ text }) => text);
      assertSameByKey(
        texts,
        model.appended.filter((record) => record.shard === shard.index).map(({ text }) => text),
      );
    }
    while (await this.#consume(Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY));
    assertSameByKey(
      model.consumed,
      model.appended.map(({ text }) => text),
    );
  }
}

/** The same records, those of each key in the same order. */
function assertSameByKey(found: readonly string[], expected: readonly string[]): void {
  assert.equal(found.length, expected.length);
  for (const key of KEYS) {
    const of = (texts: readonly string[]) => texts.filter((text) => text.startsWith(`${key}=`));
    assert.deepEqual(of(found), of(expected));
  }
}

function shardId(index: number): string {
  return `shardId-${String(index).padStart(12, "0")}`;
}

test("through any splits and merges nothing is lost, doubled or out of order", {
  timeout: 120_000,
}, async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 40 }), async (steps) => {
      const place = await makeLocalPlace();
      let streams: LocalStreams | undefined;
      try {
        const run = new Run(async () => {
          await streams?.close();
          streams = await place.open({ segmentBytes: 2_000 });
          return streams;
        });
        await run.start();
        for (const one of steps) await run.take(one);
        await run.end();
      } finally {
        await streams?.close();
        await place.remove();
      }
    }),
    { numRuns: 25 },
  );
});
