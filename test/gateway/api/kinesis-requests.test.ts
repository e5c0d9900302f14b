/** What no SDK would send: wrong types, hostile values and plain nonsense, signed like any other call. */
import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import type { Log, LogFields } from "../../../runtime/log.ts";
import { type Fixture, KEY, openFixture } from "./api-fixture.ts";
import { call, sign } from "./sign.ts";

const errors: LogFields[] = [];
const log: Log = {
  debug() {},
  info() {},
  warn() {},
  error: (fields) => void errors.push(fields),
  child: () => log,
};
let fixture: Fixture;

test.before(async () => {
  fixture = await openFixture({ log });
  await fixture.streams.createStream({ name: "s", shards: 2, retentionHours: 24 });
});
test.after(() => fixture.close());

const byName = {
  StreamARN: "arn:aws:kinesis:us-east-1:000000000000:stream/s",
  ConsumerName: "r",
};

const refused = async (target: string, body: unknown): Promise<string> => {
  const text = typeof body === "string" ? body : JSON.stringify(body);
  const answer = await call(fixture.origin, target, text);
  assert.notEqual(answer.status, 200, `${target} ${text.slice(0, 200)}`);
  assert.match(answer.headers.get("x-amzn-requestid") ?? "", /^[0-9a-f-]{36}$/);
  assert.equal(answer.headers.get("content-type"), "application/x-amz-json-1.1");
  return `${answer.status} ${answer.type}: ${answer.message}`;
};

test("a member of the wrong type is a SerializationException in Kinesis' words", async () => {
  const s = (what: string): string => `400 SerializationException: ${what}`;
  const put = (Data: unknown) => refused("PutRecord", { StreamName: "s", PartitionKey: "k", Data });
  assert.equal(
    await refused("ListStreams", { Limit: "1" }),
    s("class java.lang.String can not be converted to an Integer"),
  );
  assert.equal(
    await refused("ListStreams", { Limit: true }),
    s("class java.lang.Boolean can not be converted to an Integer"),
  );
  assert.equal(
    await refused("DescribeStream", { StreamName: 5 }),
    s("class com.amazon.coral.value.json.numbers.TruncatingBigNumber can not be converted to an String"),
  );
  assert.equal(
    await refused("DescribeStream", { StreamName: [] }),
    s("Start of list found where not expected"),
  );
  assert.equal(
    await refused("DescribeStream", { StreamName: {} }),
    s("Start of structure or map found where not expected."),
  );
  assert.equal(await refused("PutRecords", { Records: 5 }), s("Expected list or null"));
  assert.equal(
    await put("abc"),
    s(
      "'abc' can not be converted to a Blob: Base64 encoded length is expected a multiple of 4 bytes but found: 3",
    ),
  );
  assert.equal(await put("ab*="), s("'ab*=' can not be converted to a Blob: Invalid Base64 character: '*'"));
  assert.equal(await put("ab=c"), s("'ab=c' can not be converted to a Blob: Invalid Base64 character: '='"));
  assert.equal(
    await put("+/=="),
    s("'+/==' can not be converted to a Blob: Invalid last non-pad Base64 character dectected"),
  );
  for (const body of ["", "{", "[]", "5", "null", "\u0000"])
    assert.match(await refused("ListStreams", body), /^400 SerializationException/);
});

test("a body that is not UTF-8 is refused, as its key would not be the one that was meant", async () => {
  const body = (key: string): Buffer =>
    Buffer.from(JSON.stringify({ StreamName: "s", PartitionKey: key, Data: "" }), "latin1");
  const records = (key: string): Buffer =>
    Buffer.from(JSON.stringify({ StreamName: "s", Records: [{ PartitionKey: key, Data: "" }] }), "latin1");
  for (const key of ["caf\xe9", "\xed\xa0\x80", "\xc0\x80", "\xff"]) {
    const one = await call(fixture.origin, "PutRecord", body(key));
    assert.equal(`${one.type}: ${one.message}`, "SerializationException: The body is not UTF-8.");
    const many = await call(fixture.origin, "PutRecords", records(key));
    assert.equal(`${many.type}: ${many.message}`, "SerializationException: The body is not UTF-8.");
  }
  assert.equal((await call(fixture.origin, "PutRecord", body("caf\xc3\xa9"))).status, 200);
});

test("every broken constraint is told, in Kinesis' words and order", async () => {
  assert.equal(
    await refused("GetRecords", { ShardIterator: "", Limit: 0 }),
    "400 ValidationException: 2 validation errors detected: Value '0' at 'limit' failed to satisfy constraint: Member must have value greater than or equal to 1; Value '' at 'shardIterator' failed to satisfy constraint: Member must have length greater than or equal to 1",
  );
  assert.equal(
    await refused("GetRecords", {}),
    "400 ValidationException: 1 validation error detected: Value null at 'shardIterator' failed to satisfy constraint: Member must not be null",
  );
  assert.match(
    await refused("PutRecords", { StreamName: "s", Records: [{ Data: "" }, null] }),
    /^400 ValidationException: 2 validation errors detected: Value null at 'records.1.member.partitionKey' failed .*Value null at 'records.2.member' failed/,
  );
  assert.match(
    await refused("CreateStream", { StreamName: "a/b", ShardCount: 0 }),
    /Value 'a\/b' at 'streamName' failed to satisfy constraint: Member must satisfy regular expression pattern: \[a-zA-Z0-9_.-\]\+$/,
  );
  assert.match(await refused("CreateStream", { StreamName: "x", ShardCount: 5000 }), /LimitExceeded/);
  assert.match(await refused("DescribeStream", {}), /ValidationException/);
});

test("names that mean no stream or shard of ours are not found", async () => {
  const iterator = (more: object) => refused("GetShardIterator", { ShardIteratorType: "LATEST", ...more });
  assert.equal(
    await iterator({ StreamName: "none", ShardId: "2147483647" }),
    "400 ResourceNotFoundException: Shard shardId-002147483647 in stream none under account 000000000000 does not exist",
  );
  assert.equal(
    await iterator({ StreamName: "s", ShardId: "shardId-5" }),
    "400 ResourceNotFoundException: Shard shardId-000000000005 in stream s under account 000000000000 does not exist",
  );
  assert.equal(
    await iterator({ StreamName: "s", ShardId: "2.14E4" }),
    "400 ResourceNotFoundException: Could not find shard 2.14E4 in stream s under account 000000000000.",
  );
  const arn = (region: string, account: string, name: string) => ({
    StreamARN: `arn:aws:kinesis:${region}:${account}:stream/${name}`,
  });
  assert.match(await refused("DescribeStream", arn("eu-west-1", "000000000000", "s")), /ResourceNotFound/);
  assert.match(await refused("DescribeStream", arn("us-east-1", "111111111111", "s")), /ResourceNotFound/);
  assert.match(
    await refused("DescribeStream", { StreamName: "t", ...arn("us-east-1", "000000000000", "s") }),
    /InvalidArgument/,
  );
  assert.match(
    await refused("PutRecord", { StreamName: "constructor", PartitionKey: "k", Data: "" }),
    /ResourceNotFound/,
  );
});

test("calls that name no operation, one that is not offered, or no key hear what is expected", async () => {
  assert.match(await refused("Nonsense", {}), /^400 UnknownOperationException/);
  assert.match(await refused("constructor", {}), /^400 UnknownOperationException/);
  assert.equal(
    await refused("GetResourcePolicy", {}),
    "400 UnknownOperationException: GetResourcePolicy is not offered by this gateway: who may do what is said by the keys' `allow` lists in gateway.yaml.",
  );
  const unsigned = await fetch(`${fixture.origin}/`, { method: "POST", body: "{}" });
  assert.equal(unsigned.status, 400);
  const missing = await fetch(`${fixture.origin}/`, {
    method: "POST",
    headers: { "x-amz-target": "Kinesis_20131202.ListStreams" },
    body: "{}",
  });
  assert.equal(((await missing.json()) as { __type: string }).__type, "MissingAuthenticationTokenException");
});

test("no body, however odd, gets anything but an answer of AWS's shape", async () => {
  const member = fc.constantFrom(
    "StreamName",
    "StreamARN",
    "Records",
    "Data",
    "PartitionKey",
    "ExplicitHashKey",
    "ShardId",
    "ShardIteratorType",
    "StartingSequenceNumber",
    "ShardIterator",
    "Limit",
    "Timestamp",
    "NextToken",
    "ShardFilter",
    "MaxResults",
    "ShardCount",
    "Tags",
    "TagKeys",
    "ResourceARN",
    "ConsumerARN",
    "ConsumerName",
    "RetentionPeriodHours",
    "TargetShardCount",
    "ScalingType",
    "ShardToSplit",
    "NewStartingHashKey",
    "StreamModeDetails",
    "__proto__",
  );
  const scalar = fc.oneof(
    fc.string({ unit: "binary", maxLength: 40 }),
    fc.constantFrom(
      "s",
      "AAAA",
      "TRIM_HORIZON",
      "AT_TIMESTAMP",
      "AT_SEQUENCE_NUMBER",
      "shardId-000000000000",
    ),
    fc.bigInt({ min: 0n, max: 2n ** 200n }).map(String),
    fc.double({ noNaN: true }),
    fc.integer(),
    fc.boolean(),
    fc.constant(null),
  );
  const value = fc.letrec((tie) => ({
    value: fc.oneof(
      { depthSize: "small", withCrossShrink: true },
      scalar,
      fc.array(tie("value"), { maxLength: 3 }),
      fc.dictionary(member, tie("value"), { maxKeys: 5 }),
    ),
  })).value;
  const target = fc.constantFrom(
    "DescribeStream",
    "DescribeStreamSummary",
    "GetRecords",
    "GetShardIterator",
    "ListShards",
    "ListStreams",
    "PutRecord",
    "PutRecords",
    "AddTagsToStream",
    "CreateStream",
    "DeregisterStreamConsumer",
    "IncreaseStreamRetentionPeriod",
    "ListStreamConsumers",
    "ListTagsForResource",
    "MergeShards",
    "RegisterStreamConsumer",
    "SplitShard",
    "TagResource",
    "UpdateAccountSettings",
    "UpdateMaxRecordSize",
    "UpdateShardCount",
    "UpdateStreamMode",
  );
  const body = fc.oneof(
    fc.dictionary(member, value, { maxKeys: 6 }).map((object) => JSON.stringify(object)),
    fc.json(),
    fc.string({ unit: "binary" }),
  );
  errors.length = 0;
  await fc.assert(
    fc.asyncProperty(target, body, async (name, text) => {
      const answer = await call(fixture.origin, name, text);
      assert.ok(answer.status === 200 || answer.status === 400, `${answer.status} ${answer.message}`);
      if (answer.status === 400) assert.match(answer.type, /^[A-Za-z]+Exception$/);
    }),
    { numRuns: 250 },
  );
  assert.deepEqual(errors, [], "nothing failed inside");
});

test("an unexpected fault is an InternalFailure, logged without anybody's secret", async (t) => {
  errors.length = 0;
  t.mock.method(fixture.streams, "listStreams", () => {
    throw new Error("the disk fell out");
  });
  assert.match(
    await refused("ListStreams", {}),
    /^500 InternalFailure: Internal failure; the gateway's log has /,
  );
  assert.equal(errors.length, 1);
  const logged = JSON.stringify(errors);
  assert.match(logged, /the disk fell out/);
  assert.ok(!logged.includes(KEY.secret));
});

test("a subscription that fails is logged under the id that its caller has", async (t) => {
  errors.length = 0;
  await fixture.streams.registerReader("s", "r", {});
  const { json } = await call(fixture.origin, "DescribeStreamConsumer", JSON.stringify(byName));
  const { ConsumerDescription } = json as { ConsumerDescription: { ConsumerARN: string } };
  t.mock.method(fixture.streams, "read", () => {
    throw new Error("the disk fell out");
  });
  const StartingPosition = { Type: "TRIM_HORIZON" };
  const body = JSON.stringify({
    ConsumerARN: ConsumerDescription.ConsumerARN,
    ShardId: "shardId-000000000000",
    StartingPosition,
  });
  const headers = await sign({
    headers: {
      host: new URL(fixture.origin).host,
      "content-type": "application/x-amz-json-1.1",
      "x-amz-target": "Kinesis_20131202.SubscribeToShard",
    },
    body,
  });
  const answer = await fetch(fixture.origin, { method: "POST", headers, body });
  assert.equal(answer.status, 200);
  assert.match(await answer.text(), /InternalFailureException/);
  assert.equal(errors.length, 1);
  assert.equal(errors[0]!.requestId, answer.headers.get("x-amzn-requestid"));
});
