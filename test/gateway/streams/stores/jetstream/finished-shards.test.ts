/** What a stage finds read, and what it finds gone, when it compares what it kept with what stands there. */

import assert from "node:assert/strict";
import { mock } from "node:test";
import { jetstreamManager } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import { compare, InputPositions, readBefore } from "../../../../../gateway/analytics/input-positions.ts";
import { readRanges } from "../../../../../gateway/delivery/range-reader.ts";
import { Waiting } from "../../../../../gateway/delivery/waiting.ts";
import { StreamTail } from "../../../../../gateway/streams/stores/jetstream/log/stream-tail.ts";
import type { ShardDescription, Streams } from "../../../../../gateway/streams/streams.ts";
import { systemClock } from "../../../../../runtime/clock.ts";
import { consume } from "../../../../contract/streams-reshard.ts";
import { clusterFact as fact, textsOf, until } from "./cluster-fact.ts";

const SECOND = 1 / 3_600;
const HALF = 2n ** 127n;
const idOf = (index: number): string => `shardId-${String(index).padStart(12, "0")}`;
const put = (streams: Streams, explicitHash: bigint) =>
  streams.append("s", [{ partitionKey: "k", data: Buffer.from("x"), explicitHash }]);

fact(
  "a stage that had read a shard before it was split is through with it, and with no more",
  async ({ open }) => {
    const [a, b] = [await open(), await open()];
    await a.createStream({ name: "s", shards: 2, retentionHours: 24 });
    await until(() => b.listStreams().includes("s"));
    for (const streams of [a, b]) {
      const consumer = await streams.openConsumer("s", streams === a ? "a" : "b");
      await put(a, 0n);
      const [last] = await put(a, HALF);
      await until(() => streams.shard("s", 1).latest === last!.offset + 1);
      await consume(streams, consumer);
      const input = new InputPositions(consumer.positions(), streams.describe("s").shardList);
      const open = streams.describe("s").shardList.filter(({ closedMs }) => closedMs === undefined);
      const { shardId, hashFrom, hashTo } = open.find((shard) => shard.hashFrom === 0n)!;
      // Records of other shards stand between its last one and the place where it ends.
      await put(a, HALF);
      await a.splitShard("s", shardId, hashFrom + (hashTo - hashFrom) / 2n + 1n);
      await until(() => !consumer.shards.includes(shardId));
      input.follow(consumer.positions(), streams.describe("s").shardList);
      await until(() => streams.describe("s").shards === a.describe("s").shards);
      // As when it starts anew, from its own file and the consumer's positions.
      const found = compare(input.all(), consumer.positions(), streams.describe("s").shardList);
      assert.deepEqual([found.skipped, found.lost, found.ranges], [0, 0, []]);
      await consumer.close();
    }
  },
);

fact("a new stage finds nothing read in shards that were closed with nothing in them", async ({ open }) => {
  const a = await open();
  await a.createStream({ name: "s", shards: 2, retentionHours: 24 });
  await a.splitShard("s", idOf(0), HALF / 2n);
  for (let i = 0; i < 3; i++) await put(a, HALF);
  await a.splitShard("s", idOf(2), HALF / 4n);
  for (const streams of [a, await open()]) {
    const consumer = await streams.openConsumer("s", streams === a ? "c" : "d");
    assert.equal(readBefore(consumer.positions(), streams.describe("s").shardList), false);
    const { shardList } = streams.describe("s");
    for (const shard of shardList) assert.ok(shard.trimHorizon <= shard.latest);
    await consumer.close();
  }
});

fact("a new stage finds nothing read in a closed shard whose records retention took", async ({ open }) => {
  const a = await open();
  await a.createStream({ name: "s", shards: 2, retentionHours: 3 * SECOND });
  const [first] = await put(a, 0n);
  await new Promise((resolve) => setTimeout(resolve, 1_500));
  await put(a, HALF);
  await a.splitShard("s", idOf(0), HALF / 2n);
  await until(() => a.shard("s", 1).trimHorizon > first!.offset);
  const consumer = await a.openConsumer("s", "c");
  assert.equal(readBefore(consumer.positions(), a.describe("s").shardList), false);
  await consumer.close();
});

fact(
  "what retention takes before a consumer's first checkpoint is told, also of a shard that was made later",
  async ({ open }) => {
    const a = await open();
    await a.createStream({ name: "s", shards: 1, retentionHours: 6 * SECOND });
    const consumer = await a.openConsumer("s", "c");
    await put(a, 0n);
    await a.splitShard("s", idOf(0), HALF);
    await put(a, 0n);
    await consumer.close();
    await until(() => a.shard("s", 1).trimHorizon === a.shard("s", 1).latest);
    const again = await a.openConsumer("s", "c");
    for (const index of [0, 1]) {
      const from = again.positions().get(idOf(index));
      assert.ok(from !== undefined, `${idOf(index)} of ${again.shards.join()}`);
      const read = await a.read("s", idOf(index), from, 1_000);
      assert.ok(read.parts.length === 0 && read.trimmed > 0, `${read.trimmed} before ${read.next}`);
      await again.checkpoint(new Map([[idOf(index), read.next]]));
    }
  },
);

fact(
  "a stage that had read all is told of nothing gone when retention takes it, and goes on",
  async ({ open }) => {
    const a = await open();
    await a.createStream({ name: "s", shards: 2, retentionHours: 6 * SECOND });
    const consumer = await a.openConsumer("s", "c");
    await put(a, 0n);
    await put(a, HALF);
    await consume(a, consumer);
    const positions = new Map(consumer.positions());
    await until(async () => (await textsOf(a)).length === 0);
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    for (const [shardId, from] of positions) {
      const read = await a.read("s", shardId, from, 1_000);
      assert.deepEqual([read.parts, read.trimmed], [[], 0]);
      positions.set(shardId, read.next);
    }
    await consumer.checkpoint(positions);
    for (const shard of a.describe("s").shardList) assert.ok(shard.trimHorizon <= shard.latest);
    await put(a, 0n);
    const read = await a.read("s", idOf(0), positions.get(idOf(0))!, 1_000);
    assert.deepEqual([read.parts.length, read.trimmed], [1, 0]);
  },
);

fact(
  "a shard that was closed while a gateway's clock was a year ahead expires with its records",
  async ({ open }) => {
    const yearUs = 365 * 86_400 * 1_000_000;
    const ahead = await open({ ...systemClock, nowUs: () => systemClock.nowUs() + yearUs });
    await ahead.createStream({ name: "s", shards: 1, retentionHours: 24 });
    await ahead.splitShard("s", idOf(0), HALF);
    await ahead.close();
    const right = await open();
    assert.deepEqual(
      right.describe("s").shardList.map(({ shardId }) => shardId),
      [idOf(1), idOf(2)],
    );
    // One that was closed now, by a clock that is right, is told of until retention is over.
    await right.splitShard("s", idOf(1), HALF / 2n);
    assert.equal(right.describe("s").shardList.length, 4);
  },
);

fact("what retention took before a delivery read it is counted once, and in records", async ({ open }) => {
  const a = await open();
  await a.createStream({ name: "s", shards: 2, retentionHours: 6 * SECOND });
  const consumer = await a.openConsumer("s", "c");
  await put(a, 0n);
  await consume(a, consumer);
  await until(async () => (await textsOf(a)).length === 0);
  // Those of the other shard lie between what it has read and what it will miss.
  for (let i = 0; i < 5; i++) await put(a, HALF);
  for (let i = 0; i < 3; i++) await put(a, 0n);
  await until(async () => (await textsOf(a)).length === 0);
  const waiting = new Waiting(a, consumer, systemClock);
  await put(a, 0n);
  assert.equal(await waiting.count(1_000_000), 8);
  const none = { add: () => undefined, drain: () => Promise.resolve() };
  assert.equal(await readRanges(a, "s", waiting.ranges(), none), 0, "again");
});

fact("what retention takes while a shard is read is told as trimmed", async ({ open, cluster, prefix }) => {
  const a = await open();
  await a.createStream({ name: "s", shards: 1, retentionHours: 24 });
  for (let i = 0; i < 10; i++) await put(a, 0n);
  // It has nothing of them in memory.
  const reader = await open();
  const { streamId, shardList } = reader.describe("s");
  const [{ trimHorizon, latest }] = shardList as [ShardDescription];
  const nc = await connect({ servers: cluster.servers });
  const { fetch } = StreamTail.prototype;
  let taken: Promise<unknown> | undefined;
  const fetched = mock.method(StreamTail.prototype, "fetch", async function (this: StreamTail, at: number) {
    taken ??= jetstreamManager(nc).then((jsm) => jsm.streams.purge(`${prefix}-${streamId}`, { keep: 3 }));
    await taken;
    return fetch.call(this, at);
  });
  try {
    const read = await reader.read("s", idOf(0), trimHorizon, 1_048_576);
    assert.equal(read.parts.length, 3);
    assert.equal(read.trimmed, read.parts[0]!.first - trimHorizon);
    assert.ok(read.trimmedRecords! > 0);
    assert.equal(read.next, latest);
  } finally {
    fetched.mock.restore();
    await nc.close();
  }
});
