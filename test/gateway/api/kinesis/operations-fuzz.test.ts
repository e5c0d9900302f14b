/** Every operation against any value in any member, in JSON and in CBOR, over the real port. */
import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { encodeCbor } from "../../../../gateway/api/kinesis/wire/cbor.ts";
import { type Fixture, openFixture } from "../api-fixture.ts";
import { AWS_CBOR, AWS_JSON, assertAwsShaped, Complaints, HostileCaller } from "../hostile-calls.ts";
import { type Meaningful, oddInput, operationNames } from "./odd-inputs.ts";

const STREAM = "s";
const ARN = `arn:aws:kinesis:us-east-1:000000000000:stream/${STREAM}`;
const complaints = new Complaints();
let fixture: Fixture;
let caller: HostileCaller;

test.before(async () => {
  fixture = await openFixture({ log: complaints });
  caller = new HostileCaller(fixture.port);
});
test.after(async () => {
  caller.close();
  await fixture.close();
});

/** What stands in a stream that is really there, or in one that was. */
async function meaningfulNow(): Promise<Meaningful> {
  const { streams } = fixture;
  if (!streams.listStreams().includes(STREAM)) {
    await streams.createStream({ name: STREAM, shards: 2, retentionHours: 24 });
  }
  if (!streams.registeredReaders(STREAM).some(({ name }) => name === "reader")) {
    await streams.registerReader(STREAM, "reader", {});
  }
  const ask = async (operation: string, body: object): Promise<Record<string, string>> =>
    JSON.parse((await caller.signed(operation, JSON.stringify(body))).body.toString());
  const put = await ask("PutRecord", { StreamName: STREAM, PartitionKey: "k", Data: "AAAA" });
  const { ShardIterator } = await ask("GetShardIterator", {
    StreamName: STREAM,
    ShardId: put.ShardId,
    ShardIteratorType: "TRIM_HORIZON",
  });
  const { NextToken } = await ask("ListShards", { StreamName: STREAM, MaxResults: 1 });
  const { ConsumerDescription } = (await ask("DescribeStreamConsumer", {
    StreamARN: ARN,
    ConsumerName: "reader",
  })) as unknown as { ConsumerDescription: { ConsumerARN: string } };
  const consumerArn = ConsumerDescription.ConsumerARN;
  const shards = streams.describe(STREAM).shardList.map(({ shardId }) => shardId);
  const sequence = ["0", put.SequenceNumber, `${put.SequenceNumber!.slice(0, -3)}7`];
  return {
    StreamName: [STREAM, STREAM, "other", "absent"],
    StreamARN: [ARN, ARN, `${ARN}x`, ARN.replace("us-east-1", "eu-west-1")],
    ResourceARN: [ARN, consumerArn],
    ConsumerARN: [consumerArn, `${consumerArn.slice(0, -1)}0`],
    ConsumerName: ["reader", "another"],
    ShardId: shards,
    ShardToSplit: shards,
    ShardToMerge: shards,
    AdjacentShardToMerge: shards,
    ExclusiveStartShardId: shards,
    NewStartingHashKey: [String(2n ** 126n), String(2n ** 127n), "5"],
    ShardIterator: [ShardIterator],
    NextToken: [NextToken],
    StartingSequenceNumber: sequence,
    SequenceNumber: sequence,
    ShardIteratorType: [
      "TRIM_HORIZON",
      "LATEST",
      "AT_SEQUENCE_NUMBER",
      "AFTER_SEQUENCE_NUMBER",
      "AT_TIMESTAMP",
    ],
    Type: [
      "TRIM_HORIZON",
      "LATEST",
      "AT_SEQUENCE_NUMBER",
      "AT_TIMESTAMP",
      "AFTER_SHARD_ID",
      "FROM_TIMESTAMP",
    ],
    ScalingType: ["UNIFORM_SCALING"],
    StreamMode: ["PROVISIONED", "ON_DEMAND"],
    ShardCount: [1, 3],
    TargetShardCount: [1, 2, 3, 4],
    RetentionPeriodHours: [23, 24, 48, 9_000],
    MaxRecordSizeInKiB: [1_024, 10_240],
    Status: ["DISABLED", "ENABLED"],
    ExplicitHashKey: ["0", String(2n ** 128n - 1n), String(2n ** 128n)],
  };
}

const succeeded = new Set<string>();
const names = new Set<string>();
for (const form of ["JSON", "CBOR"] as const) {
  test(`any value in any member of any operation gets an answer of AWS's shape, in ${form}`, async () => {
    let calls = 0;
    for (const operation of operationNames) {
      const meaningful = await meaningfulNow();
      await fc.assert(
        fc.asyncProperty(oddInput(operation, meaningful), async (input) => {
          // The stream may have been deleted by one of these.
          const body = form === "JSON" ? JSON.stringify(input) : encodeCbor(input);
          const answer = await caller.signed(operation, body, form === "JSON" ? AWS_JSON : AWS_CBOR);
          const type = assertAwsShaped(answer, `${operation} ${JSON.stringify(input).slice(0, 500)}`);
          if (type === undefined) succeeded.add(operation);
          else names.add(type);
          calls++;
        }),
        { numRuns: 40 },
      );
    }
    assert.ok(calls > operationNames.length, `${calls} calls`);
    assert.deepEqual(complaints.errors, [], "nothing failed inside");
  });
}

test("most operations were reached behind their checks", (t) => {
  t.diagnostic(`${[...succeeded].sort().join(" ")}; ${[...names].sort().join(" ")}`);
  assert.ok(succeeded.size >= 20, [...succeeded].join(" "));
});
