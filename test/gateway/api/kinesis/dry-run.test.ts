/** Calls that only ask whether they would succeed. */
import assert from "node:assert/strict";
import test from "node:test";
import { encodeCbor } from "../../../../gateway/api/kinesis/wire/cbor.ts";
import { type Fixture, openFixture } from "../api-fixture.ts";
import { AWS_CBOR, AWS_JSON, assertAwsShaped, HostileCaller } from "../hostile-calls.ts";

const STREAM = "s";
let fixture: Fixture;
let caller: HostileCaller;

test.before(async () => {
  fixture = await openFixture();
  caller = new HostileCaller(fixture.port);
  await fixture.streams.createStream({ name: STREAM, shards: 1, retentionHours: 24 });
});
test.after(async () => {
  caller.close();
  await fixture.close();
});

const ask = async (operation: string, input: object): Promise<string> => {
  const json = assertAwsShaped(await caller.signed(operation, JSON.stringify(input), AWS_JSON), operation);
  const cbor = assertAwsShaped(await caller.signed(operation, encodeCbor(input), AWS_CBOR), operation);
  assert.equal(json, cbor, `${operation} in both forms`);
  return json ?? "taken";
};

test("a dry run stores nothing, reads nothing, subscribes to nothing, and says what would have come", async () => {
  const start = { StreamName: STREAM, ShardId: "0", ShardIteratorType: "TRIM_HORIZON" };
  const made = await caller.signed("GetShardIterator", JSON.stringify(start));
  const { ShardIterator } = JSON.parse(made.body.toString()) as { ShardIterator: string };
  const { createdMs } = await fixture.streams.registerReader(STREAM, "reader", {});
  const stream = `arn:aws:kinesis:us-east-1:000000000000:stream/${STREAM}`;
  const ConsumerARN = `${stream}/consumer/reader:${Math.floor(createdMs / 1_000)}`;
  const record = { PartitionKey: "k", Data: "AAAA" };
  const StartingPosition = { Type: "LATEST" };
  const calls: [string, object, object][] = [
    ["PutRecord", { StreamName: STREAM, ...record }, { PartitionKey: "" }],
    ["PutRecords", { StreamName: STREAM, Records: [record] }, { Records: [] }],
    ["GetShardIterator", start, { ShardId: "7" }],
    ["GetRecords", { ShardIterator }, { ShardIterator: "x" }],
    ["SubscribeToShard", { ConsumerARN, ShardId: "0", StartingPosition }, { ShardId: "7" }],
  ];
  for (const [operation, right, wrong] of calls) {
    assert.equal(await ask(operation, { ...right, DryRun: true }), "DryRunOperationException", operation);
    const refused = await ask(operation, { ...right, ...wrong });
    assert.notEqual(refused, "taken", operation);
    assert.equal(await ask(operation, { ...right, ...wrong, DryRun: true }), refused, operation);
    const absent = { ...right, StreamName: "absent", DryRun: true };
    if ("StreamName" in right) assert.equal(await ask(operation, absent), "ResourceNotFoundException");
    assert.equal(await ask(operation, { ...right, DryRun: "yes" }), "SerializationException");
  }
  assert.equal(fixture.streams.describe(STREAM).shardList[0]!.latest, 0, "nothing was stored");
  assert.equal(await ask("PutRecord", { StreamName: STREAM, ...record, DryRun: false }), "taken");
});
