/** Refusals word for word as AWS writes them: SDKs, tools and people look for these texts. */
import assert from "node:assert/strict";
import test from "node:test";
import { formatSequenceNumber } from "../../../../gateway/streams/streams.ts";
import { type Fixture, openFixture } from "../api-fixture.ts";
import { call } from "../sign.ts";

let fixture: Fixture;

test.before(async () => {
  fixture = await openFixture();
  await fixture.streams.createStream({ name: "s", shards: 2, retentionHours: 24 });
});
test.after(() => fixture.close());

const answer = async (target: string, body: unknown) => {
  const { status, type, message, json } = await call(fixture.origin, target, JSON.stringify(body));
  // biome-ignore lint/suspicious/noExplicitAny: answers are JSON of many shapes
  return { status, told: `${type}: ${message}`, json: json as any };
};
const refused = async (target: string, body: unknown): Promise<string> => {
  const { status, told } = await answer(target, body);
  assert.equal(status, 400, told);
  return told;
};
const broken = (...problems: string[]): string =>
  `ValidationException: ${problems.length} validation error${problems.length > 1 ? "s" : ""} detected: ${problems
    .map((problem) => problem.replace(": ", " failed to satisfy constraint: "))
    .map((problem) => `Value ${problem}`)
    .join("; ")}`;
const isNull = (path: string): string => `null at '${path}': Member must not be null`;

test("a value of the wrong type is named as AWS's own parser names it", async () => {
  const s = (what: string): string => `SerializationException: ${what}`;
  const number = "class com.amazon.coral.value.json.numbers.TruncatingBigNumber";
  assert.equal(
    await refused("DescribeStream", { StreamName: 23 }),
    s(`${number} can not be converted to an String`),
  );
  assert.equal(await refused("PutRecord", { Data: 34.56 }), s(`${number} can not be converted to a Blob`));
  const forced = (EnforceConsumerDeletion: unknown) => refused("DeleteStream", { EnforceConsumerDeletion });
  assert.equal(await forced(23), s(`${number} can not be converted to an Boolean`));
  assert.equal(await forced("maybe"), s("'MAYBE' can not be converted to an Boolean"));
  const at = (Timestamp: unknown) => refused("GetShardIterator", { Timestamp });
  assert.equal(await at("23"), s("class java.lang.String can not be converted to milliseconds since epoch"));
  assert.equal(await at(true), s("class java.lang.Boolean can not be converted to milliseconds since epoch"));
});

test("an integer beyond 32 bits is told as the largest or smallest of them", async () => {
  assert.equal(
    await refused("GetRecords", { Limit: 2 ** 31, ShardIterator: "x" }),
    broken("'2147483647' at 'limit': Member must have value less than or equal to 10000"),
  );
  assert.equal(
    await refused("GetRecords", { Limit: -(2 ** 40), ShardIterator: "x" }),
    broken("'-2147483648' at 'limit': Member must have value greater than or equal to 1"),
  );
});

test("a stream that is named in no way is told with everything else that is missing", async () => {
  assert.equal(await refused("DescribeStream", {}), broken(isNull("streamName")));
  assert.equal(await refused("AddTagsToStream", {}), broken(isNull("tags"), isNull("streamName")));
  assert.equal(
    await refused("GetShardIterator", {}),
    broken(isNull("shardId"), isNull("shardIteratorType"), isNull("streamName")),
  );
  const StreamARN = "arn:aws:kinesis:us-east-1:000000000000:stream/s";
  assert.equal(await refused("AddTagsToStream", { StreamARN }), broken(isNull("tags")));
  const byNameOnly = { StreamName: "s", MaxRecordSizeInKiB: 2_048 };
  assert.equal(await refused("UpdateMaxRecordSize", byNameOnly), broken(isNull("streamARN")));
});

test("what is missing is told in AWS's order", async () => {
  assert.equal(
    await refused("PutRecord", { ExplicitHashKey: "x", SequenceNumberForOrdering: "y" }),
    broken(
      "'y' at 'sequenceNumberForOrdering': Member must satisfy regular expression pattern: 0|([1-9]\\d{0,128})",
      isNull("partitionKey"),
      "'x' at 'explicitHashKey': Member must satisfy regular expression pattern: 0|([1-9]\\d{0,38})",
      isNull("data"),
      isNull("streamName"),
    ),
  );
  assert.equal(
    await refused("PutRecords", { Records: [{}] }),
    broken(isNull("records.1.member.partitionKey"), isNull("records.1.member.data"), isNull("streamName")),
  );
  assert.equal(
    await refused("MergeShards", {}),
    broken(isNull("shardToMerge"), isNull("adjacentShardToMerge"), isNull("streamName")),
  );
  assert.equal(
    await refused("SplitShard", {}),
    broken(isNull("newStartingHashKey"), isNull("streamName"), isNull("shardToSplit")),
  );
});

test("the texts of a map or a list are told together, with all that holds for them", async () => {
  const add = (Tags: unknown) => refused("AddTagsToStream", { StreamName: "s", Tags });
  const remove = (TagKeys: unknown) => refused("RemoveTagsFromStream", { StreamName: "s", TagKeys });
  const keys =
    "[Member must have length less than or equal to 128, Member must have length greater than or equal to 1]";
  const values =
    "[Member must have length less than or equal to 256, Member must have length greater than or equal to 0]";
  assert.equal(await add({ "": "b" }), broken(`'{=b}' at 'tags': Map keys must satisfy constraint: ${keys}`));
  const long = "v".repeat(257);
  assert.equal(
    await add({ a: long }),
    broken(`'{a=${long}}' at 'tags': Map value must satisfy constraint: ${values}`),
  );
  const longKey = "k".repeat(129);
  assert.equal(
    await remove(["a", longKey, ""]),
    broken(`'[a, ${longKey}, ]' at 'tagKeys': Member must satisfy constraint: ${keys}`),
  );
  assert.equal(
    await remove([]),
    broken("'[]' at 'tagKeys': Member must have length greater than or equal to 1"),
  );
  assert.equal(
    await remove(["a", null]),
    broken("'[a, null]' at 'tagKeys': Member must satisfy constraint: [Member must not be null]"),
  );
});

test("a value is told in full up to the longest that AWS's fields take", async () => {
  const iterator = "a".repeat(513);
  assert.equal(
    await refused("GetRecords", { ShardIterator: iterator }),
    broken(`'${iterator}' at 'shardIterator': Member must have length less than or equal to 512`),
  );
});

test("CreateStream without a number of shards makes an on-demand stream, as AWS does", async () => {
  assert.equal((await answer("CreateStream", { StreamName: "by-name" })).status, 200);
  const { json } = await answer("DescribeStreamSummary", { StreamName: "by-name" });
  assert.equal(json.StreamDescriptionSummary.StreamModeDetails.StreamMode, "ON_DEMAND");
  assert.equal(json.StreamDescriptionSummary.OpenShardCount, 4);
  const create = (StreamMode: string, more: object) =>
    refused("CreateStream", { StreamName: "x", StreamModeDetails: { StreamMode }, ...more });
  assert.equal(
    await create("ON_DEMAND", { ShardCount: 2 }),
    "ValidationException: ShardCount is not expected when StreamMode=ON_DEMAND",
  );
  assert.equal(await create("PROVISIONED", {}), broken(isNull("shardCount")));
});

test("a NextToken of ListShards stands alone", async () => {
  const { json } = await answer("ListShards", { StreamName: "s", MaxResults: 1 });
  const go = (more: object) => refused("ListShards", { NextToken: json.NextToken, ...more });
  const alone = (what: string) =>
    `InvalidArgumentException: NextToken and ${what} cannot be provided together.`;
  assert.equal(await go({ StreamName: "s" }), alone("StreamName"));
  const StreamARN = "arn:aws:kinesis:us-east-1:000000000000:stream/s";
  assert.equal(await go({ StreamARN }), alone("StreamARN"));
  assert.equal(await go({ StreamCreationTimestamp: 1 }), alone("StreamCreationTimestamp"));
  assert.equal(await go({ ShardFilter: { Type: "AT_LATEST" } }), alone("ShardFilter"));
  assert.equal(await go({ ExclusiveStartShardId: "shardId-000000000000" }), alone("ExclusiveStartShardId"));
  assert.equal((await answer("ListShards", { NextToken: json.NextToken, MaxResults: 5 })).status, 200);
});

test("GetShardIterator says what AT_TIMESTAMP lacks, and reads numbers with any zeros before them", async () => {
  const iterator = { StreamName: "s", ShardId: "shardId-0" };
  assert.equal(
    await refused("GetShardIterator", { ...iterator, ShardIteratorType: "AT_TIMESTAMP" }),
    "InvalidArgumentException: Must specify timestampInMillis parameter for iterator of type AT_TIMESTAMP. Current request has no timestamp parameter.",
  );
  const zeros = { ...iterator, ShardId: `a-${"0".repeat(60)}1`, ShardIteratorType: "LATEST" };
  assert.equal((await answer("GetShardIterator", zeros)).status, 200);
});

test("a SequenceNumberForOrdering that no stream gave out is refused", async () => {
  const put = { StreamName: "s", PartitionKey: "k", Data: "" };
  const { json } = await answer("PutRecord", put);
  const ordered = (SequenceNumberForOrdering: string) =>
    answer("PutRecord", { ...put, SequenceNumberForOrdering });
  assert.equal((await ordered(json.SequenceNumber)).status, 200);
  const hex = (digits: string): string => BigInt(`0x${digits}`).toString();
  const version1 = hex(`2${"0".repeat(45)}1`);
  const version2 = hex(`2${"0".repeat(10)}7${"f".repeat(15)}${"0".repeat(11)}7${"f".repeat(7)}2`);
  // Numbers of the first years of Kinesis were short; examples begin with 0.
  for (const known of ["0", "5", "21267647932558653966460912964485513216", version1, version2]) {
    assert.equal((await ordered(known)).status, 200, known);
  }
  const future = formatSequenceNumber({
    shardCreatedMs: 0,
    shardIndex: 0,
    offset: 1,
    arrivalMs: Date.now() + 3_600_000,
  });
  const wrongVersions = ["0", "3", "4", "f"].map((version) => hex(`2${"0".repeat(45)}${version}`));
  const negative = [
    hex(`2${"0".repeat(10)}8${"0".repeat(34)}2`),
    hex(`2${"0".repeat(37)}8${"0".repeat(7)}2`),
  ];
  const none = ["9".repeat(56), `1${"0".repeat(128)}`, future, ...wrongVersions, ...negative];
  for (const number of [...none, "26227199374822427428162556223570313216"]) {
    assert.equal(
      (await ordered(number)).told,
      `InvalidArgumentException: ExclusiveMinimumSequenceNumber ${number} used in PutRecord on stream s under account 000000000000 is invalid.`,
    );
  }
});
