import assert from "node:assert/strict";
import test from "node:test";
import { newestRecords } from "../../../../../../gateway/api/console/newest-records.ts";
import { ConsoleState } from "../../../../../../gateway/api/console/state.ts";
import { offsetOf } from "../../../../../../gateway/streams/stores/jetstream/log/entry.ts";
import { RecordCounts } from "../../../../../../gateway/streams/stores/jetstream/log/record-counts.ts";
import type { Streams } from "../../../../../../gateway/streams/streams.ts";
import { clusterFact, until } from "../cluster-fact.ts";

test("records are counted by places that leave numbers out, however many there were", () => {
  const counts = new RecordCounts();
  for (let sequence = 3; sequence <= 30_000; sequence += 3) counts.note(offsetOf(sequence), 5);
  assert.equal(counts.records, 50_000);
  assert.equal(counts.countBefore(0), 0);
  assert.equal(counts.countBefore(offsetOf(30_000, 5)), 50_000);
  assert.equal(counts.countBefore(offsetOf(29_999)), 49_995);
  assert.equal(counts.countBefore(offsetOf(30_000, 2)), 49_997);
  assert.equal(counts.countBefore(offsetOf(29_880, 5)), 49_800);
  for (let sequence = 3; sequence < 30_000; sequence += 600) {
    const real = ((sequence - 3) / 3) * 5;
    assert.ok(Math.abs(counts.countBefore(offsetOf(sequence)) - real) < 2_000, `${sequence}`);
  }
});

clusterFact("what a consumer is behind is told in records", async ({ open }) => {
  const [a, b] = [await open(), await open()];
  await a.createStream({ name: "s", shards: 1, retentionHours: 24 });
  const shardId = "shardId-000000000000";
  const put = (count: number) =>
    a.append(
      "s",
      Array.from({ length: count }, (_, i) => ({ partitionKey: "k", data: Buffer.from(`${i}`) })),
    );
  const places: number[] = [];
  for (let i = 0; i < 30; i++) places.push((await put(7)).at(-1)!.offset + 1);
  for (const streams of [a, b]) {
    await until(() => streams.listStreams().includes("s"));
    await until(() => streams.describe("s").shardList[0]!.latest === places.at(-1));
    const { latest, trimHorizon, appendedRecords } = streams.describe("s").shardList[0]!;
    const between = (from: number, to: number) => streams.recordsBetween!("s", shardId, from, to);
    if (streams === a) assert.equal(appendedRecords, 210);
    assert.equal(between(latest, latest), 0);
    if (appendedRecords < 210) continue;
    assert.equal(between(trimHorizon, latest), 210);
    assert.equal(between(places[9]!, latest), 140);
    assert.equal(between(places[9]! - 2, places[10]!), 9);
  }
  // A gateway that came later knows the messages only.
  const c = await open();
  await put(7);
  await until(() => c.describe("s").shardList[0]!.appendedRecords === 7);
  const { latest, trimHorizon } = c.describe("s").shardList[0]!;
  assert.equal(c.recordsBetween!("s", shardId, trimHorizon, latest), 31 * 7);
});

clusterFact("the console shows the newest records, and counts records", async ({ open }) => {
  const before = await open();
  await before.createStream({ name: "s", shards: 2, retentionHours: 24 });
  const put = (streams: Streams, i: number) =>
    streams.append("s", [{ partitionKey: `k${i}`, data: Buffer.from(JSON.stringify({ i })) }]);
  for (let i = 1; i <= 60; i++) await put(before, i);
  // Also one that came later and knows the messages only.
  for (const streams of [before, await open()]) {
    await until(() => streams.listStreams().includes("s"));
    const newest = (await newestRecords(streams, "s", 20)).rows as { i: number }[];
    assert.deepEqual(
      newest.map(({ i }) => i),
      Array.from({ length: 20 }, (_, i) => 60 - i),
    );
  }
  let nowMs = 0;
  const clock = { nowUs: () => 0, monotonicMs: () => nowMs };
  const none = {
    devices: () => [],
    quarantine: () => [],
    status: () => [],
    recent: () => [],
    cameras: () => [],
  };
  const parts = { streams: before, ingest: none, delivery: none, analytics: none, video: none };
  const state = new ConsoleState(parts as unknown as ConstructorParameters<typeof ConsoleState>[0], clock);
  const consumer = await before.openConsumer("s", "c");
  await state.read();
  for (let i = 61; i <= 100; i++) await put(before, i);
  nowMs = 2_000;
  const { streams } = (await state.read()) as {
    streams: { shards: { recordsPerSecond: number; records: number }[]; consumers: { behind: number }[] }[];
  };
  const sum = (of: (shard: { recordsPerSecond: number; records: number }) => number) =>
    streams[0]!.shards.reduce((total, shard) => total + of(shard), 0);
  assert.equal(
    sum((shard) => shard.recordsPerSecond),
    20,
  );
  assert.equal(
    sum((shard) => shard.records),
    100,
  );
  assert.deepEqual(
    streams[0]!.consumers.map(({ behind }) => behind),
    [100],
  );
  await consumer.close();
});
