/** The operations that change a stream: tags, settings, shards and consumers, in AWS's words. */
import assert from "node:assert/strict";
import test from "node:test";
import { type Fixture, HandClock, openFixture } from "../api-fixture.ts";
import { call } from "../sign.ts";

const clock = new HandClock();
let fixture: Fixture;

test.before(async () => {
  fixture = await openFixture({ clock });
});
test.after(() => fixture.close());

const ARN = "arn:aws:kinesis:us-east-1:000000000000:stream";
const MAX_HASH = 2n ** 128n - 1n;

// biome-ignore lint/suspicious/noExplicitAny: answers are JSON of many shapes
const ask = async (name: string, input: object): Promise<any> => {
  const answer = await call(fixture.origin, name, JSON.stringify(input));
  assert.equal(answer.status, 200, `${name}: ${answer.type} ${answer.message}`);
  return answer.json;
};
const refused = async (name: string, input: object): Promise<string> => {
  const answer = await call(fixture.origin, name, JSON.stringify(input));
  assert.notEqual(answer.status, 200, name);
  return `${answer.type}: ${answer.message}`;
};
const openOf = async (StreamName: string) => {
  const { Shards } = await ask("ListShards", { StreamName, ShardFilter: { Type: "AT_LATEST" } });
  return (Shards as { ShardId: string; HashKeyRange: Record<string, string> }[])
    .map((shard) => ({
      id: shard.ShardId,
      from: BigInt(shard.HashKeyRange.StartingHashKey!),
      to: BigInt(shard.HashKeyRange.EndingHashKey!),
    }))
    .sort((a, b) => (a.from < b.from ? -1 : 1));
};

test("tags of a stream: added, replaced, listed in pages, removed", async () => {
  await ask("CreateStream", { StreamName: "tagged", ShardCount: 1, Tags: { made: "here" } });
  await ask("AddTagsToStream", { StreamName: "tagged", Tags: { b: "2", a: "1", __proto__x: "p" } });
  await ask("TagResource", { ResourceARN: `${ARN}/tagged`, Tags: { a: "one", "ключ é": "" } });
  const first = await ask("ListTagsForStream", { StreamName: "tagged", Limit: 2 });
  assert.deepEqual(first, {
    HasMoreTags: true,
    Tags: [
      { Key: "__proto__x", Value: "p" },
      { Key: "a", Value: "one" },
    ],
  });
  const rest = await ask("ListTagsForStream", { StreamName: "tagged", ExclusiveStartTagKey: "a" });
  assert.deepEqual(
    rest.Tags.map((tag: { Key: string }) => tag.Key),
    ["b", "made", "ключ é"],
  );
  await ask("RemoveTagsFromStream", { StreamName: "tagged", TagKeys: ["b", "absent"] });
  await ask("UntagResource", { ResourceARN: `${ARN}/tagged`, TagKeys: ["ключ é", "__proto__x"] });
  assert.deepEqual(await ask("ListTagsForResource", { ResourceARN: `${ARN}/tagged` }), {
    Tags: [
      { Key: "a", Value: "one" },
      { Key: "made", Value: "here" },
    ],
  });
});

test("tags added at the same time are all kept", async () => {
  await ask("CreateStream", { StreamName: "crowd", ShardCount: 1 });
  await Promise.all(
    Array.from({ length: 12 }, (_, i) =>
      ask("AddTagsToStream", { StreamName: "crowd", Tags: { [`k${i}`]: "v" } }),
    ),
  );
  assert.equal((await ask("ListTagsForStream", { StreamName: "crowd" })).Tags.length, 12);
});

test("tags that AWS does not take are refused in its words", async () => {
  const add = (Tags: unknown, StreamName = "tagged") => refused("AddTagsToStream", { StreamName, Tags });
  const invalid = "ValidationException: 1 validation error detected: Value ";
  assert.equal(await add("x"), "SerializationException: Expected map or null");
  assert.equal(await add([]), "SerializationException: Start of list found where not expected");
  assert.equal(
    await add({ a: 1 }),
    "SerializationException: class com.amazon.coral.value.json.numbers.TruncatingBigNumber can not be converted to an String",
  );
  assert.equal(
    await add({}),
    `${invalid}'{}' at 'tags' failed to satisfy constraint: Member must have length greater than or equal to 1`,
  );
  assert.equal(
    await add({ "": "b" }),
    `${invalid}'{=b}' at 'tags' failed to satisfy constraint: Map keys must satisfy constraint: [Member must have length less than or equal to 128, Member must have length greater than or equal to 1]`,
  );
  assert.match(
    await add({ a: "v".repeat(257) }),
    /Map value must satisfy constraint: \[.*equal to 256, .*equal to 0\]/,
  );
  assert.match(await add({ a: null }), /Map value must satisfy constraint: \[Member must not be null\]/);
  assert.match(await add({ "a*": "b" }), /^InvalidArgumentException: Some tags contain invalid characters/);
  assert.match(await add({ "a%": "b" }), /^InvalidArgumentException: Failed to add tags to stream tagged/);
  assert.match(await add({ "aws:x": "b" }), /^InvalidArgumentException: .*reserved/);
  const many = Object.fromEntries(Array.from({ length: 49 }, (_, i) => [`t${i}`, "v"]));
  assert.match(await add(many), /^InvalidArgumentException: .*cannot have more than 50 tags/);
  assert.equal(
    await add({ a: "b" }, "none"),
    "ResourceNotFoundException: Stream none under account 000000000000 not found.",
  );
});

test("retention goes up and down between a day and a year", async () => {
  await ask("CreateStream", { StreamName: "kept", ShardCount: 1 });
  const hours = async () =>
    (await ask("DescribeStreamSummary", { StreamName: "kept" })).StreamDescriptionSummary
      .RetentionPeriodHours;
  const up = (RetentionPeriodHours: number) => ({ StreamName: "kept", RetentionPeriodHours });
  await ask("IncreaseStreamRetentionPeriod", up(8_760));
  assert.equal(await hours(), 8_760);
  await ask("DecreaseStreamRetentionPeriod", up(25));
  assert.equal(await hours(), 25);
  assert.equal(
    await refused("IncreaseStreamRetentionPeriod", up(24)),
    "InvalidArgumentException: Requested retention period (24 hours) for stream kept can not be shorter than existing retention period (25 hours). Use DecreaseRetentionPeriod API.",
  );
  assert.equal(
    await refused("DecreaseStreamRetentionPeriod", up(26)),
    "InvalidArgumentException: Requested retention period (26 hours) for stream kept can not be longer than existing retention period (25 hours). Use IncreaseRetentionPeriod API.",
  );
  assert.equal(
    await refused("IncreaseStreamRetentionPeriod", up(8_761)),
    "InvalidArgumentException: Maximum allowed retention period is 8760 hours. Requested retention period (8761 hours) is too long.",
  );
  assert.equal(
    await refused("DecreaseStreamRetentionPeriod", up(23)),
    "InvalidArgumentException: Minimum allowed retention period is 24 hours. Requested retention period (23 hours) is too short.",
  );
  assert.match(await refused("IncreaseStreamRetentionPeriod", up(0)), /^ValidationException/);
});

test("record size and capacity mode are changed and shown", async () => {
  await ask("CreateStream", {
    StreamName: "modes",
    StreamModeDetails: { StreamMode: "ON_DEMAND" },
    MaxRecordSizeInKiB: 2_048,
  });
  const summary = async () =>
    (await ask("DescribeStreamSummary", { StreamName: "modes" })).StreamDescriptionSummary;
  const before = await summary();
  assert.equal(before.StreamModeDetails.StreamMode, "ON_DEMAND");
  assert.equal(before.MaxRecordSizeInKiB, 2_048);
  assert.equal(before.OpenShardCount, 4);
  assert.match(
    await refused("UpdateShardCount", {
      StreamName: "modes",
      TargetShardCount: 5,
      ScalingType: "UNIFORM_SCALING",
    }),
    /^ValidationException: .*ON_DEMAND/,
  );
  await ask("UpdateStreamMode", {
    StreamARN: `${ARN}/modes`,
    StreamModeDetails: { StreamMode: "PROVISIONED" },
  });
  await ask("UpdateMaxRecordSize", { StreamARN: `${ARN}/modes`, MaxRecordSizeInKiB: 10_240 });
  const after = await summary();
  assert.equal(after.StreamModeDetails.StreamMode, "PROVISIONED");
  assert.equal(after.MaxRecordSizeInKiB, 10_240);
  assert.match(
    await refused("UpdateMaxRecordSize", { StreamARN: `${ARN}/modes`, MaxRecordSizeInKiB: 10_241 }),
    /less than or equal to 10240/,
  );
  const limits = await ask("DescribeLimits", {});
  assert.equal(limits.OnDemandStreamCount, 0);
  assert.ok(limits.OpenShardCount >= 4);
  assert.match(
    await refused("CreateStream", {
      StreamName: "x",
      ShardCount: 2,
      StreamModeDetails: { StreamMode: "ON_DEMAND" },
    }),
    /^ValidationException/,
  );
});

test("nothing is pretended that this gateway does not do", async () => {
  const settings = (Status: string) => ({ MinimumThroughputBillingCommitment: { Status } });
  assert.deepEqual(await ask("DescribeAccountSettings", {}), settings("DISABLED"));
  assert.deepEqual(await ask("UpdateAccountSettings", settings("DISABLED")), settings("DISABLED"));
  assert.match(await refused("UpdateAccountSettings", settings("ENABLED")), /^ValidationException/);
  assert.match(
    await refused("StartStreamEncryption", {}),
    /^UnknownOperationException: StartStreamEncryption is not offered by this gateway: /,
  );
  assert.match(
    await refused("CreateStream", { StreamName: "x", ShardCount: 1, WarmThroughputMiBps: 5 }),
    /^ValidationException: WarmThroughputMiBps is not offered/,
  );
});

test("shards are split and merged, and say where they came from", async () => {
  await ask("CreateStream", { StreamName: "tree", ShardCount: 1 });
  const put = async (key: string) =>
    (await ask("PutRecord", { StreamName: "tree", PartitionKey: key, Data: "AA==" })).SequenceNumber;
  const last = await put("a");
  const half = 2n ** 127n;
  await ask("SplitShard", {
    StreamName: "tree",
    ShardToSplit: "shardId-0",
    NewStartingHashKey: String(half),
  });
  await ask("MergeShards", {
    StreamARN: `${ARN}/tree`,
    ShardToMerge: "shardId-000000000001",
    AdjacentShardToMerge: "shardId-000000000002",
  });
  const { StreamDescription } = await ask("DescribeStream", { StreamName: "tree" });
  const [root, left, right, merged] = StreamDescription.Shards;
  assert.equal(StreamDescription.Shards.length, 4);
  assert.equal(root.ParentShardId, undefined);
  assert.ok(BigInt(root.SequenceNumberRange.EndingSequenceNumber) > BigInt(last));
  assert.equal(left.ParentShardId, "shardId-000000000000");
  assert.deepEqual(left.HashKeyRange, { StartingHashKey: "0", EndingHashKey: String(half - 1n) });
  assert.equal(right.ParentShardId, "shardId-000000000000");
  assert.deepEqual(right.HashKeyRange, { StartingHashKey: String(half), EndingHashKey: String(MAX_HASH) });
  assert.equal(merged.ParentShardId, "shardId-000000000001");
  assert.equal(merged.AdjacentParentShardId, "shardId-000000000002");
  assert.equal(merged.SequenceNumberRange.EndingSequenceNumber, undefined);
  // A closed shard's own numbers are places in it still.
  for (const StartingSequenceNumber of [last, root.SequenceNumberRange.EndingSequenceNumber]) {
    for (const ShardIteratorType of ["AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER"]) {
      const input = { StreamName: "tree", ShardId: root.ShardId, ShardIteratorType, StartingSequenceNumber };
      const { ShardIterator } = await ask("GetShardIterator", input);
      assert.ok(ShardIterator);
    }
  }
  const again = await put("a");
  assert.ok(BigInt(again) > 0n);
});

test("what cannot be split or merged is refused in AWS's words", async () => {
  await ask("CreateStream", { StreamName: "fixed", ShardCount: 3 });
  const split = (ShardToSplit: string, NewStartingHashKey: string, StreamName = "fixed") =>
    refused("SplitShard", { StreamName, ShardToSplit, NewStartingHashKey });
  const merge = (ShardToMerge: string, AdjacentShardToMerge: string, StreamName = "fixed") =>
    refused("MergeShards", { StreamName, ShardToMerge, AdjacentShardToMerge });
  const account = "under account 000000000000";
  assert.equal(
    await split("shard-0", "1"),
    `InvalidArgumentException: NewStartingHashKey 1 used in SplitShard() on shard shardId-000000000000 in stream fixed ${account} is not both greater than one plus the shard's StartingHashKey 0 and less than the shard's EndingHashKey 113427455640312821154458202477256070484.`,
  );
  assert.match(await split("shard-2", "9".repeat(39)), /is not both greater/);
  assert.equal(
    await split("shardId-5", "5"),
    `ResourceNotFoundException: Could not find shard shardId-000000000005 in stream fixed ${account}.`,
  );
  assert.equal(
    await split("2147483647", "5", "none"),
    `ResourceNotFoundException: Stream none ${account} not found.`,
  );
  assert.match(await split("shardId-0", "01"), /^ValidationException: .*newStartingHashKey/);
  for (const [one, other] of [
    ["shard-0", "shard-2"],
    ["shard-1", "shard-0"],
    ["shard-1", "shard-1"],
  ] as const) {
    assert.match(
      await merge(one, other),
      /^InvalidArgumentException: Shards shardId-.* are not an adjacent pair of shards eligible for merging$/,
    );
  }
  await ask("MergeShards", { StreamName: "fixed", ShardToMerge: "0", AdjacentShardToMerge: "1" });
  assert.equal(
    await split("shard-0", "5"),
    `InvalidArgumentException: Shard shardId-000000000000 in stream fixed ${account} has already been merged or split, and thus is not eligible for merging or splitting.`,
  );
});

test("UpdateShardCount makes ranges of equal width, up and down", async () => {
  await ask("CreateStream", { StreamName: "scaled", ShardCount: 2 });
  const scale = (TargetShardCount: number) => ({
    StreamName: "scaled",
    TargetShardCount,
    ScalingType: "UNIFORM_SCALING",
  });
  let before = 2;
  for (const target of [3, 6, 5, 5, 3]) {
    assert.deepEqual(await ask("UpdateShardCount", scale(target)), {
      CurrentShardCount: before,
      StreamARN: `${ARN}/scaled`,
      StreamName: "scaled",
      TargetShardCount: target,
    });
    const open = await openOf("scaled");
    assert.equal(open.length, target);
    assert.equal(open[0]!.from, 0n);
    assert.equal(open.at(-1)!.to, MAX_HASH);
    for (const { from, to } of open) {
      const off = (to - from + 1n) * BigInt(target) - 2n ** 128n;
      assert.ok(off < 2n ** 70n && off > -(2n ** 70n), `${target}: ${from} to ${to}`);
    }
    before = target;
  }
  assert.equal(
    await refused("UpdateShardCount", scale(7)),
    "LimitExceededException: UpdateShardCount cannot scale up over double your current open shard count. Current open shard count: 3, Target shard count: 7",
  );
  assert.match(await refused("UpdateShardCount", scale(1)), /below half your current open shard count/);
  assert.match(await refused("UpdateShardCount", scale(5_000)), /^LimitExceededException: .*4096/);
});

test("ListShards admits by filter, page after page", async () => {
  clock.aheadMs += 10_000;
  await ask("CreateStream", { StreamName: "filtered", ShardCount: 2 });
  clock.aheadMs += 10_000;
  const beforeMs = clock.nowUs() / 1000;
  clock.aheadMs += 10_000;
  await ask("UpdateShardCount", {
    StreamName: "filtered",
    TargetShardCount: 4,
    ScalingType: "UNIFORM_SCALING",
  });
  clock.aheadMs += 10_000;
  const list = async (Type: string, more: object = {}): Promise<number[]> => {
    const found: number[] = [];
    let page = await ask("ListShards", {
      StreamName: "filtered",
      MaxResults: 1,
      ShardFilter: { Type, ...more },
    });
    for (;;) {
      found.push(...page.Shards.map((shard: { ShardId: string }) => Number(shard.ShardId.slice(8))));
      if (page.NextToken === undefined) return found;
      page = await ask("ListShards", { NextToken: page.NextToken, MaxResults: 1 });
    }
  };
  const now = Math.floor(clock.nowUs() / 1_000_000);
  assert.deepEqual(await list("AT_LATEST"), [2, 3, 4, 5]);
  assert.deepEqual(await list("AT_TRIM_HORIZON"), [0, 1]);
  assert.deepEqual(await list("FROM_TRIM_HORIZON"), [0, 1, 2, 3, 4, 5]);
  assert.deepEqual(await list("AT_TIMESTAMP", { Timestamp: beforeMs / 1000 }), [0, 1]);
  assert.deepEqual(await list("AT_TIMESTAMP", { Timestamp: now }), [2, 3, 4, 5]);
  assert.deepEqual(await list("FROM_TIMESTAMP", { Timestamp: now }), [2, 3, 4, 5]);
  assert.deepEqual(await list("FROM_TIMESTAMP", { Timestamp: 0 }), [0, 1, 2, 3, 4, 5]);
  assert.deepEqual(await list("AFTER_SHARD_ID", { ShardId: "shardId-000000000003" }), [4, 5]);
});

test("consumers are registered, described, tagged, listed and deregistered", async () => {
  await ask("CreateStream", { StreamName: "heard", ShardCount: 1 });
  const StreamARN = `${ARN}/heard`;
  const made = await ask("RegisterStreamConsumer", { StreamARN, ConsumerName: "one", Tags: { a: "b" } });
  const arn = made.Consumer.ConsumerARN as string;
  assert.match(arn, /:stream\/heard\/consumer\/one:\d{10}$/);
  assert.equal(made.Consumer.ConsumerStatus, "ACTIVE");
  assert.match(
    await refused("RegisterStreamConsumer", { StreamARN, ConsumerName: "one" }),
    /^ResourceInUseException/,
  );
  await ask("RegisterStreamConsumer", { StreamARN, ConsumerName: "two" });
  const first = await ask("ListStreamConsumers", { StreamARN, MaxResults: 1 });
  assert.equal(first.Consumers[0].ConsumerName, "one");
  const second = await ask("ListStreamConsumers", { StreamARN, NextToken: first.NextToken });
  assert.deepEqual(
    second.Consumers.map((one: { ConsumerName: string }) => one.ConsumerName),
    ["two"],
  );
  assert.equal(second.NextToken, undefined);
  const byArn = await ask("DescribeStreamConsumer", { ConsumerARN: arn });
  const byName = await ask("DescribeStreamConsumer", { StreamARN, ConsumerName: "one" });
  assert.deepEqual(byArn, byName);
  assert.equal(byArn.ConsumerDescription.StreamARN, StreamARN);
  await ask("TagResource", { ResourceARN: arn, Tags: { c: "d" } });
  await ask("UntagResource", { ResourceARN: arn, TagKeys: ["a"] });
  assert.deepEqual(await ask("ListTagsForResource", { ResourceARN: arn }), {
    Tags: [{ Key: "c", Value: "d" }],
  });
  const summary = await ask("DescribeStreamSummary", { StreamName: "heard" });
  assert.equal(summary.StreamDescriptionSummary.ConsumerCount, 2);
  assert.match(await refused("DeleteStream", { StreamName: "heard" }), /^ResourceInUseException/);
  await ask("DeregisterStreamConsumer", { ConsumerARN: arn });
  assert.match(await refused("DescribeStreamConsumer", { ConsumerARN: arn }), /^ResourceNotFoundException/);
  assert.match(await refused("DescribeStreamConsumer", { ConsumerName: "x" }), /^InvalidArgumentException/);
  for (let i = 0; i < 19; i++) await ask("RegisterStreamConsumer", { StreamARN, ConsumerName: `more-${i}` });
  assert.match(
    await refused("RegisterStreamConsumer", { StreamARN, ConsumerName: "too-many" }),
    /^LimitExceededException/,
  );
  await ask("DeleteStream", { StreamName: "heard", EnforceConsumerDeletion: true });
  await ask("CreateStream", { StreamName: "heard", ShardCount: 1 });
  assert.deepEqual((await ask("ListStreamConsumers", { StreamARN })).Consumers, []);
});

test("tags for a consumer that is deregistered at the same moment are set, or the consumer is not found", async () => {
  await ask("CreateStream", { StreamName: "leaving", ShardCount: 1 });
  const StreamARN = `${ARN}/leaving`;
  const { Consumer } = await ask("RegisterStreamConsumer", { StreamARN, ConsumerName: "one" });
  const ResourceARN = Consumer.ConsumerARN;
  const tag = async () => {
    const { status, type } = await call(
      fixture.origin,
      "TagResource",
      JSON.stringify({ ResourceARN, Tags: { a: "b" } }),
    );
    return status === 200 ? "set" : type;
  };
  const deregistered = ask("DeregisterStreamConsumer", { ConsumerARN: ResourceARN });
  const outcomes = await Promise.all(Array.from({ length: 12 }, tag));
  await deregistered;
  for (const outcome of outcomes) assert.match(outcome, /^(set|ResourceNotFoundException)$/);
});

test("a closed shard ends with its children, and without an iterator, once all its records were given", async () => {
  await ask("CreateStream", { StreamName: "ends", ShardCount: 1 });
  await ask("PutRecord", { StreamName: "ends", PartitionKey: "a", Data: "AA==" });
  await ask("SplitShard", { StreamName: "ends", ShardToSplit: "0", NewStartingHashKey: "100" });
  for (const [ShardIteratorType, count] of [
    ["TRIM_HORIZON", 1],
    ["LATEST", 0],
  ] as const) {
    const { ShardIterator } = await ask("GetShardIterator", {
      StreamName: "ends",
      ShardId: "0",
      ShardIteratorType,
    });
    let read = await ask("GetRecords", { ShardIterator });
    assert.equal(read.Records.length, count);
    assert.equal(read.MillisBehindLatest, 0);
    if (count > 0) {
      assert.equal(read.ChildShards, undefined);
      read = await ask("GetRecords", { ShardIterator: read.NextShardIterator });
      assert.deepEqual(read.Records, []);
    }
    assert.equal(read.NextShardIterator, undefined);
    assert.deepEqual(
      read.ChildShards.map((child: { ShardId: string; ParentShards: string[] }) => [
        child.ShardId,
        child.ParentShards,
      ]),
      [
        ["shardId-000000000001", ["shardId-000000000000"]],
        ["shardId-000000000002", ["shardId-000000000000"]],
      ],
    );
  }
});
