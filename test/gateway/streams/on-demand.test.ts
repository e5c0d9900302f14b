/** On-demand scaling: what it decides, that it comes to rest, and that it loses nothing on a real log. */
import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { SHARD_BYTES_PER_SECOND } from "../../../gateway/streams/limits.ts";
import { OnDemand } from "../../../gateway/streams/on-demand.ts";
import {
  decide,
  futileSplits,
  SCALING_RULES,
  type ShardLoad,
} from "../../../gateway/streams/on-demand-policy.ts";
import { equalRanges } from "../../../gateway/streams/shard-map.ts";
import {
  BadReshardError,
  partitionHash,
  type ShardDescription,
  type StreamDescription,
  type Streams,
} from "../../../gateway/streams/streams.ts";
import { forEachRecord } from "../../../protocol/record-batch.ts";
import type { Clock } from "../../../runtime/clock.ts";
import { silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { makeLocalPlace } from "./stores/local/local-place.ts";

interface Key {
  readonly hash: bigint;
  readonly recordsPerSecond: number;
  readonly bytes: number;
}

type Shard = { -readonly [K in keyof ShardDescription]: ShardDescription[K] };

/** A stream that exists as numbers only: as much traffic as its keys make, on a clock that is turned. */
class ModelStream {
  nowMs = 0;
  keys: readonly Key[] = [];
  changes = 0;
  readonly shards: Shard[] = [];
  readonly clock: Clock = { nowUs: () => this.nowMs * 1_000, monotonicMs: () => this.nowMs };
  readonly metrics = new Metrics();
  readonly onDemand: OnDemand;

  constructor(shards: number) {
    for (const range of equalRanges(shards)) this.#open(range.hashFrom, range.hashTo, []);
    const streams: Pick<Streams, "listStreams" | "settings" | "describe" | "splitShard" | "mergeShards"> = {
      listStreams: () => ["s"],
      settings: () => this.#describe(),
      describe: () => this.#describe(),
      splitShard: async (_, shardId, at) => this.#split(shardId, at),
      mergeShards: async (_, one, other) => this.#merge(one, other),
    };
    this.onDemand = new OnDemand({ streams, clock: this.clock, log: silentLog, metrics: this.metrics });
  }

  get open(): Shard[] {
    return this.shards.filter((shard) => shard.closedMs === undefined);
  }

  async run(seconds: number): Promise<void> {
    for (let i = 0; i < seconds; i++) {
      this.nowMs += 1_000;
      const open = this.open;
      for (const { hash, recordsPerSecond, bytes } of this.keys) {
        const shard = open.find(({ hashFrom, hashTo }) => hashFrom <= hash && hash <= hashTo)!;
        shard.appendedRecords += recordsPerSecond;
        shard.latest += recordsPerSecond;
        shard.storedBytes += recordsPerSecond * bytes;
      }
      await this.onDemand.look();
    }
  }

  /** The highest share of what a shard takes, by the keys as they are. */
  busiest(): { utilisation: number; shard: Shard } {
    const all = this.open.map((shard) => {
      const keys = this.keys.filter(({ hash }) => shard.hashFrom <= hash && hash <= shard.hashTo);
      const records = keys.reduce((sum, key) => sum + key.recordsPerSecond, 0);
      const bytes = keys.reduce((sum, key) => sum + key.recordsPerSecond * key.bytes, 0);
      return { shard, utilisation: Math.max(records / 1_000, bytes / SHARD_BYTES_PER_SECOND) };
    });
    return all.reduce((most, one) => (one.utilisation > most.utilisation ? one : most));
  }

  #describe(): StreamDescription {
    const facts = { streamId: "id", mode: "on-demand", shards: this.open.length };
    return { ...facts, shardList: this.shards } as unknown as StreamDescription;
  }

  #open(hashFrom: bigint, hashTo: bigint, parents: string[]): void {
    const index = this.shards.length;
    this.shards.push({
      shardId: `shardId-${index}`,
      index,
      hashFrom,
      hashTo,
      createdMs: this.nowMs,
      parents,
      closedMs: undefined,
      trimHorizon: 0,
      latest: 0,
      storedBytes: 0,
      appendedRecords: 0,
    });
  }

  #split(shardId: string, at: bigint): void {
    const shard = this.open.find((one) => one.shardId === shardId);
    if (shard === undefined || at <= shard.hashFrom || at > shard.hashTo)
      throw new BadReshardError("s", "split");
    shard.closedMs = this.nowMs;
    this.changes++;
    this.#open(shard.hashFrom, at - 1n, [shardId]);
    this.#open(at, shard.hashTo, [shardId]);
  }

  #merge(oneId: string, otherId: string): void {
    const [one, other] = [oneId, otherId].map((id) => this.open.find(({ shardId }) => shardId === id));
    if (one === undefined || other === undefined || one.hashTo + 1n !== other.hashFrom) {
      throw new BadReshardError("s", "merge");
    }
    one.closedMs = other.closedMs = this.nowMs;
    this.changes++;
    this.#open(one.hashFrom, other.hashTo, [oneId, otherId]);
  }
}

function spread(keys: number, recordsPerSecond: number, bytes = 200): Key[] {
  return Array.from({ length: keys }, (_, i) => ({
    hash: partitionHash(`key-${i}`),
    recordsPerSecond: recordsPerSecond / keys,
    bytes,
  }));
}

test("traffic of 16 shards is given its shards within a minute or two, and they go again in an hour", async () => {
  const stream = new ModelStream(4);
  stream.keys = spread(1_000, 9_000);
  await stream.run(90);
  assert.ok(stream.busiest().utilisation <= 0.9, `${stream.busiest().utilisation} of a shard`);
  assert.ok(stream.open.length >= 12 && stream.open.length <= 32, `${stream.open.length} shards`);
  const grown = stream.changes;
  stream.keys = spread(1_000, 10);
  await stream.run(14 * 60);
  assert.equal(stream.changes, grown, "it does not shrink at once");
  await stream.run(3 * 3_600);
  assert.equal(stream.open.length, SCALING_RULES.minShards);
  assert.match(await stream.metrics.render(), /headwater_stream_open_shards\{stream="s"\} 4/);
  assert.match(
    await stream.metrics.render(),
    /headwater_reshards_total\{stream="s",kind="split",reason="records"\}/,
  );
  assert.match(
    await stream.metrics.render(),
    /headwater_reshards_total\{stream="s",kind="merge",reason="cold"\}/,
  );
});

test("few large records scale by their bytes", async () => {
  const stream = new ModelStream(4);
  stream.keys = spread(500, 800, 10_240);
  await stream.run(60);
  assert.ok(stream.open.length >= 10, `${stream.open.length} shards`);
  assert.match(await stream.metrics.render(), /kind="split",reason="bytes"/);
});

test("a single hot key is not split for ever", async () => {
  const stream = new ModelStream(4);
  stream.keys = [{ hash: partitionHash("hot"), recordsPerSecond: 5_000, bytes: 200 }];
  await stream.run(6 * 3_600);
  const kept = stream.changes;
  assert.ok(kept <= 3 * SCALING_RULES.maxFutileSplits, `${kept} changes`);
  await stream.run(6 * 3_600);
  assert.equal(stream.changes, kept);
  assert.ok(stream.open.length <= 4 + SCALING_RULES.maxFutileSplits);
});

test("steady traffic, however it is spread: it comes to rest, and no shard that could be split is overloaded", async () => {
  const keys = fc.array(
    fc.record({
      hash: fc.bigInt({ min: 0n, max: 2n ** 128n - 1n }),
      recordsPerSecond: fc.integer({ min: 0, max: 600 }),
      bytes: fc.integer({ min: 1, max: 4_000 }),
    }),
    { maxLength: 60 },
  );
  await fc.assert(
    fc.asyncProperty(keys, fc.integer({ min: 1, max: 24 }), async (traffic, shards) => {
      const stream = new ModelStream(shards);
      stream.keys = traffic;
      await stream.run(3_600 + 60 * 60);
      const settled = stream.changes;
      await stream.run(3_600);
      assert.equal(stream.changes, settled, "it still changes after two hours");
      assert.ok(stream.open.length >= Math.min(shards, SCALING_RULES.minShards));
    }),
    { numRuns: 12 },
  );
});

test("the decision is the hottest shard's, never a merge while there is one to split, and never beyond the limits", () => {
  const load = fc.record({ bytesPerSecond: fc.nat(4_000_000), recordsPerSecond: fc.nat(4_000) });
  const measured = fc.record({
    recent: fc.option(load, { nil: undefined }),
    highest: fc.option(fc.double({ min: 0, max: 2, noNaN: true }), { nil: undefined }),
    futileSplits: fc.nat(4),
  });
  fc.assert(
    fc.property(fc.array(measured, { minLength: 1, maxLength: 20 }), fc.nat(20), (all, maxShards) => {
      const ranges = equalRanges(all.length);
      const shards: ShardLoad[] = all.map((one, i) => ({ shardId: String(i), ...ranges[i]!, ...one }));
      const rules = { ...SCALING_RULES, maxShards };
      const decision = decide(shards, rules);
      assert.deepEqual(decide([...shards].reverse(), rules)?.kind, decision?.kind);
      if (decision?.kind === "split") {
        const shard = shards[Number(decision.shardId)]!;
        assert.ok(shards.length < maxShards && decision.utilisation > rules.splitAbove);
        assert.ok(decision.startingHash > shard.hashFrom && decision.startingHash <= shard.hashTo);
        assert.ok(shard.futileSplits < rules.maxFutileSplits);
      } else if (decision?.kind === "merge") {
        assert.ok(shards.length > rules.minShards && decision.utilisation < rules.mergeBelow);
        assert.equal(Number(decision.adjacentShardId), Number(decision.shardId) + 1);
      }
    }),
  );
});

test("a split is futile for the child that gets nearly everything", () => {
  const busy = { bytesPerSecond: 0, recordsPerSecond: 1_900 };
  const idle = { bytesPerSecond: 0, recordsPerSecond: 100 };
  assert.deepEqual(futileSplits(1, busy, idle), { one: 2, other: 0 });
  assert.deepEqual(futileSplits(1, busy, busy), { one: 0, other: 0 });
  assert.deepEqual(futileSplits(1, { ...idle, recordsPerSecond: 0 }, { ...idle, recordsPerSecond: 0 }), {
    one: 0,
    other: 0,
  });
});

test("a real stream grows under load and shrinks without, and each key keeps its order", async () => {
  const place = await makeLocalPlace();
  const streams = await place.open();
  let nowMs = 0;
  const clock: Clock = { nowUs: () => nowMs * 1_000, monotonicMs: () => nowMs };
  const onDemand = new OnDemand({ streams, clock, log: silentLog, metrics: place.metrics });
  try {
    await streams.createStream({ name: "s", shards: 4, retentionHours: 24, mode: "on-demand" });
    await streams.createStream({ name: "fixed", shards: 4, retentionHours: 24 });
    const keys = Array.from({ length: 50 }, (_, i) => `key-${i}`);
    const put = (stream: string, n: number) =>
      streams.append(
        stream,
        keys.map((partitionKey) => ({ partitionKey, data: Buffer.from(String(n)) })),
      );
    const openShards = (stream: string): number =>
      streams.describe(stream).shardList.filter((shard) => shard.closedMs === undefined).length;
    let sent = 0;
    // 50 keys, 100 times a second: 5,000 records/s, so that 4 shards are not enough.
    for (let second = 0; second < 40; second++) {
      nowMs += 1_000;
      const puts: Promise<unknown>[] = [];
      for (let i = 0; i < 100; i++) puts.push(put("s", sent++), put("fixed", sent));
      await Promise.all([onDemand.look(), ...puts]);
    }
    const grown = openShards("s");
    assert.ok(grown > 6, `${grown} shards`);
    assert.equal(openShards("fixed"), 4);
    for (let minute = 0; minute < 60; minute++) {
      nowMs += 60_000;
      await onDemand.look();
    }
    assert.equal(openShards("s"), 4);

    const consumer = await streams.openConsumer("s", "test");
    const seen = new Map<string, number>();
    while (consumer.shards.some((shardId) => !atTip(shardId))) {
      const ends = new Map<string, number>();
      for (const shardId of consumer.shards) {
        let at = consumer.positions().get(shardId)!;
        for (let read = await streams.read("s", shardId, at, 1_048_576); read.next > at; ) {
          for (const part of read.parts) {
            for (const run of part.runs) {
              forEachRecord(run, (payload) => {
                const expected = seen.get(run.key) ?? 0;
                assert.equal(Number(payload.toString()), expected, run.key);
                seen.set(run.key, expected + 1);
              });
            }
          }
          at = read.next;
          read = await streams.read("s", shardId, at, 1_048_576);
        }
        ends.set(shardId, at);
      }
      await consumer.checkpoint(ends);
    }
    function atTip(shardId: string): boolean {
      const shard = streams.describe("s").shardList.find((one) => one.shardId === shardId)!;
      return consumer.positions().get(shardId) === shard.latest;
    }
    assert.deepEqual([...new Set(seen.values())], [40 * 100]);
  } finally {
    await onDemand.close();
    await streams.close();
    await place.remove();
  }
});

test("a change that gets no answer does not hold up a gateway that closes", {
  timeout: 60_000,
}, async (t) => {
  const range = equalRanges(1)[0]!;
  const shard = { ...range, shardId: "shardId-0", index: 0, createdMs: 0, parents: [], closedMs: undefined };
  const counts = { trimHorizon: 0, latest: 0, storedBytes: 0, appendedRecords: 0 };
  let nowMs = 0;
  const described = (): StreamDescription => {
    const busy = { ...counts, latest: nowMs * 2, appendedRecords: nowMs * 2 };
    const shardList = [{ ...shard, ...busy }];
    return { streamId: "id", mode: "on-demand", shardList } as unknown as StreamDescription;
  };
  const asked = t.mock.fn(() => new Promise<void>(() => undefined));
  const streams = {
    listStreams: () => ["s"],
    settings: described,
    describe: described,
    splitShard: asked,
    mergeShards: asked,
  };
  // A second of it is a look of the timer.
  const clock = { nowUs: () => nowMs * 1_000, monotonicMs: () => nowMs };
  const onDemand = new OnDemand({ streams, clock, log: silentLog, metrics: new Metrics() });
  for (; nowMs < 10_000; nowMs += 1_000) await onDemand.look();
  onDemand.start();
  while (asked.mock.callCount() === 0) await new Promise((resolve) => setTimeout(resolve, 50));
  const fromMs = performance.now();
  await onDemand.close();
  assert.ok(performance.now() - fromMs < 10_000);
});
