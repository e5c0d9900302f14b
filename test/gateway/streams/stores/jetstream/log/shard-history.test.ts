/** The shards of a stream over time, as every gateway builds them from the same maps. */
import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { equalRanges, partitionHash } from "../../../../../../gateway/streams/shard-map.ts";
import { Documents } from "../../../../../../gateway/streams/stores/jetstream/cluster/documents.ts";
import { Link } from "../../../../../../gateway/streams/stores/jetstream/cluster/link.ts";
import {
  rangeOf,
  ShardHistory,
  shardRecord,
} from "../../../../../../gateway/streams/stores/jetstream/log/shard-history.ts";
import { systemClock } from "../../../../../../runtime/clock.ts";
import { Metrics } from "../../../../../../runtime/metrics.ts";
import { clusterFact, textsOf, until } from "../cluster-fact.ts";

const SECOND = 1 / 3_600;

test("a history that took each map as it came routes as one that is made of the last, also of what is kept", () => {
  const step = fc.record({ split: fc.boolean(), which: fc.nat(), after: fc.integer({ min: 1, max: 5 }) });
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 4 }), fc.array(step, { maxLength: 25 }), (shards, steps) => {
      const first = equalRanges(shards).map((range, index) => shardRecord(index, range, 0));
      const history = new ShardHistory("s", { version: 1, shards: first });
      const all: Array<{ at: number; place: (hash: bigint) => number }> = [];
      // A map message holds no record that could be routed.
      const maps = new Set<number>();
      let at = 0;
      for (const { split, which, after } of steps) {
        at += after;
        const keptFrom = at - 12;
        const isExpired = ({ closedAt = Infinity }: { closedAt?: number }): boolean => closedAt <= keptFrom;
        const open = history.shards.filter(({ closedAt }) => closedAt === undefined);
        open.sort((a, b) => (rangeOf(a).hashFrom < rangeOf(b).hashFrom ? -1 : 1));
        const low = open[which % open.length]!;
        const high = open[(which % open.length) + 1];
        if (!split && high === undefined) continue;
        const { hashFrom, hashTo } = rangeOf(low);
        const content = split
          ? history.split(low.shardId, hashFrom + (hashTo - hashFrom) / 2n + 1n, at, isExpired)
          : history.merge(low.shardId, high!.shardId, at, isExpired);
        assert.ok(history.adopt(content, at));
        maps.add(at);
        assert.ok(history.shards.every((shard) => !isExpired(shard)));
        const fresh = new ShardHistory("s", history.content);
        const hash = partitionHash(`${at}`);
        for (let sequence = Math.max(1, keptFrom); sequence <= at + 2; sequence++) {
          if (maps.has(sequence)) continue;
          assert.equal(history.mapAt(sequence).shardOfHash(hash), fresh.mapAt(sequence).shardOfHash(hash));
        }
        // What was told once of a place is told for as long as it is kept.
        const now = history.current;
        all.push({ at: at + 1, place: (one) => now.shardOfHash(one) });
        for (const one of all.filter(({ at: then }) => then > keptFrom && !maps.has(then))) {
          assert.equal(history.mapAt(one.at).shardOfHash(hash), one.place(hash));
        }
      }
      const { index } = history.shards.at(-1)!;
      for (let i = 0; i <= index; i++) {
        const { shardId } = shardRecord(i, { hashFrom: 0n, hashTo: 1n }, 0);
        assert.equal(history.hasForgotten(shardId), !history.has(shardId));
      }
      assert.equal(history.hasForgotten(`shardId-${String(index + 1).padStart(12, "0")}`), false);
    }),
    { numRuns: 200 },
  );
});

test("a history of many splits reads the range of each shard once, and all maps share it", (t) => {
  const first = equalRanges(64).map((range, index) => shardRecord(index, range, 0));
  const history = new ShardHistory("s", { version: 1, shards: first });
  for (const [i, { shardId, hashTo }] of first.entries()) {
    history.adopt(history.split(shardId, BigInt(`0x${hashTo}`), i), 10 * (i + 1));
  }
  const reads = t.mock.method(globalThis, "BigInt");
  const fresh = new ShardHistory("s", history.content);
  assert.equal(reads.mock.callCount(), 2 * 3 * 64);
  reads.mock.restore();
  // Of each shard that is open at two places, the very same.
  const [before, after] = [fresh.mapAt(11).ranges, fresh.mapAt(641).ranges];
  assert.equal(before.length, 65);
  assert.equal(after.length, 128);
  assert.equal(after[0], before[0]);
});

clusterFact("shards that expired are forgotten, and a consumer that was at them goes on", async (ground) => {
  const { open, cluster, prefix } = ground;
  const [a, b] = [await open(), await open()];
  await a.createStream({ name: "s", shards: 1, retentionHours: 2 * SECOND });
  await until(() => b.listStreams().includes("s"));
  const consumer = await b.openConsumer("s", "c");
  const put = (text: string) =>
    a.append("s", [{ partitionKey: "k", data: Buffer.from(text), explicitHash: 0n }]);
  const [first] = await put("first");
  const idOf = (index: number): string => `shardId-${String(index).padStart(12, "0")}`;
  for (let i = 0; i < 5; i++) {
    await a.splitShard("s", idOf(i * 3), 2n ** 127n);
    await a.mergeShards("s", idOf(i * 3 + 1), idOf(i * 3 + 2));
  }
  await until(async () => (await textsOf(a)).length === 0);
  await new Promise((resolve) => setTimeout(resolve, 2_500));
  await b.splitShard("s", idOf(15), 2n ** 127n);
  const link = await Link.open({ servers: cluster.servers, clock: systemClock, metrics: new Metrics() });
  try {
    const list = await new Documents(link, prefix).get<{ streams: { s: { map: { shards: object[] } } } }>(
      "streams",
    );
    assert.equal(list.value!.streams.s.map.shards.length, 3);
  } finally {
    await link.close();
  }
  // From here on nothing goes any more, however long the rest takes.
  await a.updateStream("s", { retentionHours: 24 });
  const [last] = await put("last");
  assert.equal(last!.shardId, idOf(16));
  await until(() => a.describe("s").shardList.length === 3 && b.shard("s", 16).latest === last!.offset + 1);
  await consumer.checkpoint(new Map([[idOf(0), first!.offset + 1]]));
  await consumer.checkpoint(new Map([[idOf(15), b.shard("s", 15).latest]]));
  assert.deepEqual(consumer.shards, [idOf(16), idOf(17)]);
  await assert.rejects(consumer.checkpoint(new Map([[idOf(18), 1]])), { code: "SHARD_NOT_FOUND" });
  for (const streams of [a, b, await open()]) {
    await until(async () => (await textsOf(streams)).join() === "last");
  }
});
