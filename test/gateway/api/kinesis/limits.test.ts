/** What a stream takes and gives: rates where `limits: aws` asks for them, sizes always. */
import assert from "node:assert/strict";
import test from "node:test";
import { encodeCbor } from "../../../../gateway/api/kinesis/wire/cbor.ts";
import { type Fixture, openFixture, StillClock } from "../api-fixture.ts";
import { AWS_CBOR, assertAwsShaped, HostileCaller } from "../hostile-calls.ts";
import { call } from "../sign.ts";

/** No time goes by: a slow disk or a busy machine gives back nothing of what was used up. */
const clock = new StillClock();
const MIB = 1_048_576;
let fixture: Fixture;
let caller: HostileCaller;

test.before(async () => {
  fixture = await openFixture({ clock });
  caller = new HostileCaller(fixture.port);
  await fixture.streams.createStream({ name: "free", shards: 1, retentionHours: 24 });
});
test.after(async () => {
  caller.close();
  await fixture.close();
});

// biome-ignore lint/suspicious/noExplicitAny: answers are JSON of many shapes
const ask = async (name: string, input: object): Promise<any> => {
  const answer = await call(fixture.origin, name, JSON.stringify(input));
  assert.equal(answer.status, 200, `${name}: ${answer.type} ${answer.message}`);
  return answer.json;
};
/** The error's name and text; "taken" when there is none. */
const outcome = async (name: string, input: object): Promise<string> => {
  const { status, type, message } = await call(fixture.origin, name, JSON.stringify(input));
  return status === 200 ? "taken" : `${type}: ${message}`;
};

test("with limits: aws a shard takes 1,000 records a second, and is read 5 times", async () => {
  await fixture.streams.createStream({ name: "held", shards: 1, retentionHours: 24, limits: "aws" });
  const Records = Array.from({ length: 500 }, (_, i) => ({ Data: "AA==", PartitionKey: `${i}` }));
  const put = () => ask("PutRecords", { StreamName: "held", Records });
  let failed = 0;
  let stored = 0;
  while (failed === 0) {
    const answer = await put();
    failed = answer.FailedRecordCount;
    stored += 500 - failed;
    for (const record of answer.Records as { ErrorCode?: string; SequenceNumber?: string }[]) {
      assert.notEqual(record.ErrorCode === undefined, record.SequenceNumber === undefined);
    }
    if (failed === 0) continue;
    const refusal = answer.Records.find((record: { ErrorCode?: string }) => record.ErrorCode !== undefined);
    assert.deepEqual(refusal, {
      ErrorCode: "ProvisionedThroughputExceededException",
      ErrorMessage: "Rate exceeded for shard shardId-000000000000 in stream held under account 000000000000.",
    });
  }
  assert.equal(stored, 1_000);
  const start = { StreamName: "held", ShardId: "0", ShardIteratorType: "TRIM_HORIZON" };
  const { ShardIterator } = await ask("GetShardIterator", start);
  assert.equal((await ask("GetRecords", { ShardIterator })).Records.length, stored);
  const reads = await Promise.all(
    Array.from({ length: 12 }, () => call(fixture.origin, "GetRecords", JSON.stringify({ ShardIterator }))),
  );
  const refused = reads.filter((answer) => answer.type === "ProvisionedThroughputExceededException");
  assert.equal(refused.length, 8, "it was read once before");
});

test("with limits: aws a shard gives 10 MiB once, however many ask for it at the same time", async () => {
  await fixture.streams.createStream({ name: "thick", shards: 1, retentionHours: 24 });
  const Data = Buffer.alloc(1_000_000).toString("base64");
  const Records = Array.from({ length: 4 }, (_, i) => ({ Data, PartitionKey: `${i}` }));
  for (let i = 0; i < 3; i++) await ask("PutRecords", { StreamName: "thick", Records });
  await fixture.streams.updateStream("thick", { limits: "aws" });
  const start = { StreamName: "thick", ShardId: "0", ShardIteratorType: "TRIM_HORIZON" };
  const { ShardIterator } = await ask("GetShardIterator", start);
  const answers = await Promise.all(
    Array.from({ length: 5 }, () => outcome("GetRecords", { ShardIterator, Limit: 10 })),
  );
  assert.deepEqual(answers.map((answer) => answer.replace(/:.*/, "")).sort(), [
    ...new Array<string>(4).fill("ProvisionedThroughputExceededException"),
    "taken",
  ]);
});

test("with limits: aws a put does not look at every shard, and goes by those that there are now", async (t) => {
  const { streams } = fixture;
  await streams.createStream({ name: "wide", shards: 64, retentionHours: 24, limits: "aws" });
  const described = t.mock.method(streams, "describe");
  const put = (hash: bigint) =>
    ask("PutRecord", { StreamName: "wide", PartitionKey: "k", Data: "AA==", ExplicitHashKey: `${hash}` });
  const width = (1n << 128n) / 64n;
  for (let i = 0n; i < 20n; i++) await put(i * width);
  assert.equal(described.mock.callCount(), 1);
  // As many shards as before, but others.
  await streams.splitShard("wide", "shardId-000000000003", 3n * width + width / 2n);
  await streams.mergeShards("wide", "shardId-000000000000", "shardId-000000000001");
  const before = described.mock.callCount();
  const merged = await put(width);
  assert.equal(merged.ShardId, "shardId-000000000066");
  assert.equal((await put(3n * width)).ShardId, "shardId-000000000064");
  assert.equal((await put(4n * width - 1n)).ShardId, "shardId-000000000065");
  assert.equal(described.mock.callCount(), before + 1);
  // Each counts for the shard that it went to.
  const Records = Array.from({ length: 500 }, () => ({
    Data: "AA==",
    PartitionKey: "k",
    ExplicitHashKey: `${width}`,
  }));
  const answers = [];
  for (let i = 0; i < 3; i++) answers.push(await ask("PutRecords", { StreamName: "wide", Records }));
  const refusal = answers[2].Records.at(-1);
  assert.match(refusal.ErrorMessage, /^Rate exceeded for shard shardId-000000000066 in stream wide/);
});

test("with limits: aws a shard gives 5 iterators a second, without them as many as are asked for", async () => {
  await fixture.streams.createStream({ name: "counted", shards: 2, retentionHours: 24, limits: "aws" });
  const iterators = async (StreamName: string, ShardId: string): Promise<number> => {
    const start = { StreamName, ShardId, ShardIteratorType: "LATEST" };
    const all = await Promise.all(Array.from({ length: 20 }, () => outcome("GetShardIterator", start)));
    for (const one of all) {
      assert.match(
        one,
        /^taken$|^ProvisionedThroughputExceededException: Rate exceeded for shard shardId-00000000000[01] in/,
      );
    }
    return all.filter((one) => one === "taken").length;
  };
  assert.deepEqual([await iterators("counted", "0"), await iterators("counted", "1")], [5, 5]);
  clock.aheadMs += 400;
  assert.equal(await iterators("counted", "0"), 2);
  assert.equal(await iterators("free", "0"), 20);
});

test("a record's partition key counts towards its size, and so do multi-byte characters", async () => {
  const put = (dataBytes: number, PartitionKey: string): Promise<string> =>
    outcome("PutRecord", {
      StreamName: "free",
      PartitionKey,
      Data: Buffer.alloc(dataBytes).toString("base64"),
    });
  assert.equal(await put(MIB - 1, "k"), "taken");
  assert.match(await put(MIB, "k"), /^InvalidArgumentException: Record 1 has 1048577 bytes of data and part/);
  assert.equal(await put(MIB - 256, "k".repeat(256)), "taken");
  assert.match(await put(MIB - 255, "k".repeat(256)), /^InvalidArgumentException/);
  assert.equal(await put(MIB - 3, "€"), "taken");
  assert.match(await put(MIB - 2, "€"), /^InvalidArgumentException/);
  assert.match(await put(MIB + 1, "k"), /^ValidationException: .* less than or equal to 1048576$/);
  const records = (sizes: number[]): object => ({
    StreamName: "free",
    Records: sizes.map((bytes) => ({ PartitionKey: "k", Data: Buffer.alloc(bytes) })),
  });
  for (const [sizes, taken] of [
    [[MIB - 1, 5, MIB - 1], true],
    [[5, MIB], false],
  ] as const) {
    const answer = await caller.signed("PutRecords", encodeCbor(records([...sizes])), AWS_CBOR);
    const type = assertAwsShaped(answer, "PutRecords in CBOR");
    assert.equal(type, taken ? undefined : "InvalidArgumentException");
  }
});

test("a stream that takes larger records takes them with their keys, and no more", async () => {
  await ask("CreateStream", { StreamName: "large", ShardCount: 1, MaxRecordSizeInKiB: 2_048 });
  const put = (bytes: number): Promise<string> =>
    outcome("PutRecords", {
      StreamName: "large",
      Records: [{ PartitionKey: "key", Data: Buffer.alloc(bytes).toString("base64") }],
    });
  assert.equal(await put(2 * MIB - 3), "taken");
  assert.match(await put(2 * MIB - 2), /^InvalidArgumentException/);
});

test("500 records whose keys are made of what divides JSON are no bulk", async () => {
  const Records = Array.from({ length: 500 }, (_, i) => ({
    Data: Buffer.alloc(600, i).toString("base64"),
    PartitionKey: ",[{".repeat(85),
  }));
  const { FailedRecordCount } = await ask("PutRecords", { Records, StreamName: "free", Unknown: "slow way" });
  assert.equal(FailedRecordCount, 0);
});
