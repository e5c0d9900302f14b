/** Lists of shards that begin behind a shard, however that one is written; and those of a moment. */
import assert from "node:assert/strict";
import test from "node:test";
import type { Placed } from "../../../../../gateway/streams/streams.ts";
import { openFixture, StillClock } from "../../api-fixture.ts";
import { call } from "../../sign.ts";

test("lists begin behind the shard that is named, in each of the ways in which Kinesis takes it", async (t) => {
  const { origin, streams, close } = await openFixture();
  t.after(close);
  await streams.createStream({ name: "s", shards: 12, retentionHours: 24 });
  const numbers = (shards: readonly { ShardId: string }[]): number[] =>
    shards.map(({ ShardId }) => Number(ShardId.slice("shardId-".length)));
  const list = async (input: object): Promise<number[]> => {
    const found: number[] = [];
    let answer = await call(
      origin,
      "ListShards",
      JSON.stringify({ StreamName: "s", MaxResults: 2, ...input }),
    );
    for (;;) {
      assert.equal(answer.status, 200, answer.message);
      const page = answer.json as { Shards: { ShardId: string }[]; NextToken?: string };
      found.push(...numbers(page.Shards));
      if (page.NextToken === undefined) return found;
      answer = await call(origin, "ListShards", JSON.stringify({ NextToken: page.NextToken, MaxResults: 2 }));
    }
  };
  const described = async (ExclusiveStartShardId: string): Promise<number[]> => {
    const answer = await call(
      origin,
      "DescribeStream",
      JSON.stringify({ StreamName: "s", ExclusiveStartShardId }),
    );
    assert.equal(answer.status, 200, answer.message);
    return numbers(
      (answer.json as { StreamDescription: { Shards: { ShardId: string }[] } }).StreamDescription.Shards,
    );
  };
  const after = (type: string) => ({ ShardFilter: { Type: "AFTER_SHARD_ID", ShardId: type } });
  for (const name of ["shardId-000000000008", "shardId-8", "8", "shardId-00008"]) {
    assert.deepEqual(await list({ ExclusiveStartShardId: name }), [9, 10, 11], name);
    assert.deepEqual(await list(after(name)), [9, 10, 11], name);
    assert.deepEqual(await described(name), [9, 10, 11], name);
  }
  assert.deepEqual(await list({ ExclusiveStartShardId: "9", ...after("10") }), [11]);
  assert.deepEqual(await list({ ExclusiveStartShardId: "10", ...after("9") }), [11]);
  assert.deepEqual(await list({ ExclusiveStartShardId: "shardId-99" }), []);

  for (const [operation, input] of [
    ["ListShards", { ExclusiveStartShardId: "last" }],
    ["ListShards", after("shardId-last")],
    ["DescribeStream", { ExclusiveStartShardId: "2147483648" }],
  ] as const) {
    const answer = await call(origin, operation, JSON.stringify({ StreamName: "s", ...input }));
    assert.match(`${answer.type}: ${answer.message}`, /^ResourceNotFoundException: Could not find shard /);
  }
});

/** How many hashes the shards of a moment have together; those that two of them have count twice. */
async function coveredBy(origin: string, nowMs: number, filter: object): Promise<bigint> {
  const body = JSON.stringify({ StreamName: "s", ShardFilter: filter });
  const answer = await call(origin, "ListShards", body, {}, undefined, new Date(nowMs));
  assert.equal(answer.status, 200, answer.message);
  const { Shards } = answer.json as {
    Shards: { HashKeyRange: { StartingHashKey: string; EndingHashKey: string } }[];
  };
  return Shards.reduce(
    (sum, { HashKeyRange: range }) => sum + BigInt(range.EndingHashKey) - BigInt(range.StartingHashKey) + 1n,
    0n,
  );
}

test("the shards of any moment cover each hash once, also when some were resharded within the second that made them", async (t) => {
  const clock = new StillClock();
  const { origin, streams, close } = await openFixture({ clock });
  t.after(close);
  const nowMs = (): number => clock.nowUs() / 1_000;
  const covered = (filter: object): Promise<bigint> => coveredBy(origin, nowMs(), filter);
  await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
  clock.aheadMs += 10;
  await streams.splitShard("s", "shardId-000000000000", 2n ** 127n);
  await streams.splitShard("s", "shardId-000000000001", 2n ** 126n);
  const reshardedMs = nowMs();
  clock.aheadMs += 10_000;
  for (const afterMs of [-5, 0, 1, 500, 1_500, 2_500, 9_000]) {
    const Timestamp = (reshardedMs + afterMs) / 1_000;
    assert.equal(await covered({ Type: "AT_TIMESTAMP", Timestamp }), 2n ** 128n, `${afterMs} ms`);
  }
  for (const afterMs of [0, 1, 500, 1_500, 2_500]) {
    clock.aheadMs += reshardedMs + 24 * 3_600_000 + afterMs - nowMs();
    assert.equal(await covered({ Type: "AT_TRIM_HORIZON" }), 2n ** 128n, `${afterMs} ms`);
  }
});

test("the shards of any moment cover each hash once, also where the clock was set back between two splits", async (t) => {
  const clock = new StillClock();
  const { origin, streams, close } = await openFixture({ clock });
  t.after(close);
  const nowMs = (): number => clock.nowUs() / 1_000;
  await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
  clock.aheadMs += 100_000;
  await streams.splitShard("s", "shardId-000000000000", 2n ** 127n);
  const splitMs = nowMs();
  clock.aheadMs -= 60_000;
  await streams.splitShard("s", "shardId-000000000001", 2n ** 126n);
  clock.aheadMs += 120_000;
  const listed = async (Type: string, afterMs: number): Promise<number[]> => {
    const Timestamp = Math.floor(splitMs + afterMs) / 1_000;
    const body = JSON.stringify({ StreamName: "s", ShardFilter: { Type, Timestamp } });
    const answer = await call(origin, "ListShards", body, {}, undefined, new Date(nowMs()));
    assert.equal(answer.status, 200, answer.message);
    const { Shards } = answer.json as { Shards: { ShardId: string }[] };
    return Shards.map(({ ShardId }) => Number(ShardId.slice(-12)));
  };
  assert.deepEqual(await listed("AT_TIMESTAMP", -70_000), [0]);
  assert.deepEqual(await listed("AT_TIMESTAMP", -30_000), [0]);
  assert.deepEqual(await listed("AT_TIMESTAMP", 1_000), [2, 3, 4]);
  // What the shard in between took bears times from when it took over.
  assert.deepEqual(await listed("FROM_TIMESTAMP", -30_000), [0, 1, 2, 3, 4]);
});

test("the shards of any moment cover each hash once, also where one of two that were merged had records to the last, or the clock was set back", async (t) => {
  const clock = new StillClock();
  const { origin, streams, close } = await openFixture({ clock });
  t.after(close);
  const nowMs = (): number => clock.nowUs() / 1_000;
  await streams.createStream({ name: "s", shards: 2, retentionHours: 24 });
  clock.aheadMs += 10;
  const mergedMs = nowMs();
  const merge = streams.mergeShards("s", "shardId-000000000000", "shardId-000000000001");
  clock.aheadMs += 50;
  const late = streams.append("s", [{ partitionKey: "k", explicitHash: 0n, data: Buffer.from("late") }]);
  await Promise.all([merge, late]);
  clock.aheadMs -= 40;
  await streams.splitShard("s", "shardId-000000000002", 2n ** 127n);
  clock.aheadMs += 10_000;
  for (const afterMs of [-5, 0, 1, 10, 11, 30, 50, 51, 1_500, 9_000]) {
    const filter = { Type: "AT_TIMESTAMP", Timestamp: (mergedMs + afterMs) / 1_000 };
    assert.equal(await coveredBy(origin, nowMs(), filter), 2n ** 128n, `${afterMs} ms`);
  }
});

test("the shards of the trim horizon cover each hash once, also where of two that were merged one alone has records left", async (t) => {
  const hourMs = 3_600_000;
  for (const { why, aheadMs, waitMs, retentionHours } of [
    { why: "the retention was raised", aheadMs: 0, waitMs: 13 * hourMs, retentionHours: 48 },
    {
      why: "they were merged by a clock that was ahead",
      aheadMs: 10 * hourMs,
      waitMs: 0,
      retentionHours: 24,
    },
  ]) {
    const clock = new StillClock();
    const { origin, streams, close } = await openFixture({ clock });
    t.after(close);
    const put = (hash: bigint) =>
      streams.append("s", [{ partitionKey: "k", explicitHash: hash, data: Buffer.from("r") }]);
    await streams.createStream({ name: "s", shards: 2, retentionHours: 24 });
    await put(2n ** 127n);
    clock.aheadMs += aheadMs;
    await streams.mergeShards("s", "shardId-000000000000", "shardId-000000000001");
    clock.aheadMs += waitMs - aheadMs;
    // In one segment with the record before, which stays as long as this one.
    await put(0n);
    clock.aheadMs += waitMs;
    await streams.enforceRetention();
    await streams.updateStream("s", { retentionHours });
    const covered = await coveredBy(origin, clock.nowUs() / 1_000, { Type: "AT_TRIM_HORIZON" });
    assert.equal(covered, 2n ** 128n, why);
  }
});

test("whoever begins at a time misses no record that came while a shard was being closed", async (t) => {
  const clock = new StillClock();
  const { origin, streams, close } = await openFixture({ clock });
  t.after(close);
  const ask = async (operation: string, input: object): Promise<unknown> => {
    const at = new Date(clock.nowUs() / 1_000);
    const answer = await call(origin, operation, JSON.stringify(input), {}, undefined, at);
    assert.equal(answer.status, 200, answer.message);
    return answer.json;
  };
  /** As a reader does that begins at this time: the shards of then, each from then on. */
  const textsSince = async (arrivalMs: number): Promise<string[]> => {
    const Timestamp = arrivalMs / 1_000;
    const ShardFilter = { Type: "AT_TIMESTAMP", Timestamp };
    const { Shards } = (await ask("ListShards", { StreamName: "s", ShardFilter })) as {
      Shards: { ShardId: string }[];
    };
    const texts: string[] = [];
    for (const { ShardId } of Shards) {
      const begin = { StreamName: "s", ShardId, ShardIteratorType: "AT_TIMESTAMP", Timestamp };
      const { Records } = (await ask("GetRecords", (await ask("GetShardIterator", begin)) as object)) as {
        Records: { Data: string }[];
      };
      texts.push(...Records.map(({ Data }) => Buffer.from(Data, "base64").toString()));
    }
    return texts;
  };
  const put = (text: string) => streams.append("s", [{ partitionKey: "k", data: Buffer.from(text) }]);
  await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
  const split = streams.splitShard("s", "shardId-000000000000", 2n ** 127n);
  clock.aheadMs += 50;
  const late = put("before the switch");
  await split;
  const [{ shardId, arrivalMs }] = (await late) as [Placed];
  assert.equal(shardId, "shardId-000000000000");
  assert.deepEqual(await textsSince(arrivalMs), ["before the switch"]);
});
