/** What changing many shards costs. */
import assert from "node:assert/strict";
import test from "node:test";
import { LogConsumer } from "../../../../../gateway/streams/stores/local/log-consumer.ts";
import { Metadata } from "../../../../../gateway/streams/stores/local/metadata.ts";
import { openFixture } from "../../api-fixture.ts";
import { call } from "../../sign.ts";

test("UpdateShardCount looks at all shards a few times, however many there are and whatever the ratio", async (t) => {
  const { origin, streams, close } = await openFixture();
  t.after(close);
  await streams.createStream({ name: "s", shards: 64, retentionHours: 24 });
  const looks = t.mock.method(streams, "describe");
  for (const target of [128, 64, 96, 80, 64]) {
    looks.mock.resetCalls();
    const body = { StreamName: "s", TargetShardCount: target, ScalingType: "UNIFORM_SCALING" };
    const answer = await call(origin, "UpdateShardCount", JSON.stringify(body));
    assert.equal(answer.status, 200, answer.message);
    const lookedTimes = looks.mock.callCount();
    assert.ok(lookedTimes <= 3, `${lookedTimes} times for ${target}`);
    assert.equal(streams.settings("s").shards, target);
  }
});

test("UpdateShardCount is one write of the metadata, and one look of each consumer, whatever the ratio", async (t) => {
  const { origin, streams, close } = await openFixture();
  t.after(close);
  await streams.createStream({ name: "s", shards: 64, retentionHours: 24 });
  for (const name of ["a", "b", "c"]) await streams.openConsumer("s", name);
  const writes = t.mock.method(Metadata.prototype, "changeStream");
  const looks = t.mock.method(LogConsumer.prototype, "refresh");
  for (const target of [128, 64, 96, 80]) {
    writes.mock.resetCalls();
    looks.mock.resetCalls();
    const body = { StreamName: "s", TargetShardCount: target, ScalingType: "UNIFORM_SCALING" };
    const answer = await call(origin, "UpdateShardCount", JSON.stringify(body));
    assert.equal(answer.status, 200, answer.message);
    assert.deepEqual([writes.mock.callCount(), looks.mock.callCount()], [1, 3], `for ${target}`);
    const consumer = await streams.openConsumer("s", "a", { takeOver: true });
    assert.equal(consumer.shards.length, target);
  }
});

test("a reader at the end of a closed shard hears of its children without a look at all shards", async (t) => {
  const { origin, streams, close } = await openFixture();
  t.after(close);
  await streams.createStream({ name: "s", shards: 2, retentionHours: 24 });
  await streams.splitShard("s", "shardId-000000000000", 5n);
  const place = { StreamName: "s", ShardId: "shardId-000000000000", ShardIteratorType: "TRIM_HORIZON" };
  const { json } = await call(origin, "GetShardIterator", JSON.stringify(place));
  const looks = t.mock.method(streams, "describe");
  const end = await call(origin, "GetRecords", JSON.stringify(json));
  const { ChildShards } = end.json as { ChildShards: { ShardId: string }[] };
  assert.deepEqual(
    ChildShards.map(({ ShardId }) => ShardId),
    ["shardId-000000000002", "shardId-000000000003"],
  );
  assert.equal(looks.mock.callCount(), 0);
});
