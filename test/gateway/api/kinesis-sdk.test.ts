/** The unmodified AWS SDK against a real gateway port, over HTTP/2 (its default) and HTTP/1.1. */
import assert from "node:assert/strict";
import test, { type TestContext } from "node:test";
import {
  CreateStreamCommand,
  DeleteStreamCommand,
  DescribeStreamCommand,
  DescribeStreamSummaryCommand,
  EnableEnhancedMonitoringCommand,
  GetRecordsCommand,
  type GetRecordsCommandOutput,
  GetShardIteratorCommand,
  type GetShardIteratorCommandInput,
  KinesisClient,
  ListShardsCommand,
  ListStreamsCommand,
  PutRecordCommand,
  PutRecordsCommand,
  type PutRecordsResultEntry,
  type _Record as Record,
} from "@aws-sdk/client-kinesis";
import { NodeHttpHandler } from "@smithy/node-http-handler";
import { partitionHash } from "../../../gateway/streams/streams.ts";
import { freePorts } from "../../support/program.ts";
import { type Fixture, HandClock, KEY, openFixture, PUT_ONLY, StillClock } from "./api-fixture.ts";

const STREAM = "readings";

function clientOf(fixture: Fixture, options: { http1?: boolean; key?: typeof KEY } = {}): KinesisClient {
  const key = options.key ?? KEY;
  return new KinesisClient({
    endpoint: fixture.origin,
    region: "us-east-1",
    maxAttempts: 1,
    credentials: { accessKeyId: key.id, secretAccessKey: key.secret },
    ...(options.http1 && { requestHandler: new NodeHttpHandler() }),
  });
}

async function open(
  t: TestContext,
  options: { http1?: boolean; clock?: HandClock; port?: number } = {},
): Promise<{ fixture: Fixture; client: KinesisClient }> {
  const fixture = await openFixture(options);
  const client = clientOf(fixture, options);
  t.after(async () => {
    client.destroy();
    await fixture.close();
  });
  return { fixture, client };
}

async function iteratorOf(
  client: KinesisClient,
  input: Partial<GetShardIteratorCommandInput> & Pick<GetShardIteratorCommandInput, "ShardIteratorType">,
): Promise<string> {
  const answer = await client.send(
    new GetShardIteratorCommand({ StreamName: STREAM, ShardId: "shardId-000000000000", ...input }),
  );
  return answer.ShardIterator!;
}

async function readAll(client: KinesisClient, iterator: string, limit?: number): Promise<Record[]> {
  const records: Record[] = [];
  for (let next: string | undefined = iterator; ; ) {
    const answer: GetRecordsCommandOutput = await client.send(
      new GetRecordsCommand({ ShardIterator: next, ...(limit !== undefined && { Limit: limit }) }),
    );
    records.push(...answer.Records!);
    if (answer.MillisBehindLatest === 0) return records;
    assert.ok(answer.Records!.length > 0, "behind the tip there is always a record");
    next = answer.NextShardIterator;
  }
}

function text(record: Record): string {
  return Buffer.from(record.Data!).toString();
}

for (const http1 of [false, true]) {
  const over = http1 ? "HTTP/1.1" : "h2c";

  test(`a stream is made, described, listed and deleted over ${over}`, async (t) => {
    const { client } = await open(t, { http1 });
    await client.send(new CreateStreamCommand({ StreamName: STREAM, ShardCount: 3 }));
    const { StreamDescription: stream } = await client.send(
      new DescribeStreamCommand({ StreamName: STREAM }),
    );
    assert.equal(stream?.StreamStatus, "ACTIVE");
    assert.equal(stream?.StreamARN, `arn:aws:kinesis:us-east-1:000000000000:stream/${STREAM}`);
    assert.equal(stream?.Shards?.length, 3);
    assert.equal(stream?.Shards?.[0]?.HashKeyRange?.StartingHashKey, "0");
    assert.equal(stream?.Shards?.[2]?.HashKeyRange?.EndingHashKey, (2n ** 128n - 1n).toString());
    assert.ok(Math.abs(Date.now() - stream!.StreamCreationTimestamp!.getTime()) < 60_000);
    const { StreamDescriptionSummary: summary } = await client.send(
      new DescribeStreamSummaryCommand({ StreamARN: stream!.StreamARN! }),
    );
    assert.equal(summary?.OpenShardCount, 3);

    const first = await client.send(new ListShardsCommand({ StreamName: STREAM, MaxResults: 2 }));
    assert.equal(first.Shards?.length, 2);
    const rest = await client.send(new ListShardsCommand({ NextToken: first.NextToken! }));
    assert.deepEqual(
      rest.Shards?.map((shard) => shard.ShardId),
      ["shardId-000000000002"],
    );
    assert.equal(rest.NextToken, undefined);

    await client.send(new CreateStreamCommand({ StreamName: "another", ShardCount: 1 }));
    const page = await client.send(new ListStreamsCommand({ Limit: 1 }));
    assert.deepEqual([page.StreamNames, page.HasMoreStreams], [["another"], true]);
    const second = await client.send(new ListStreamsCommand({ NextToken: page.NextToken! }));
    assert.deepEqual([second.StreamNames, second.HasMoreStreams], [[STREAM], false]);

    await assert.rejects(client.send(new CreateStreamCommand({ StreamName: STREAM, ShardCount: 1 })), {
      name: "ResourceInUseException",
      message: `Stream ${STREAM} under account 000000000000 already exists.`,
    });
    await client.send(new DeleteStreamCommand({ StreamName: STREAM }));
    await assert.rejects(client.send(new DescribeStreamCommand({ StreamName: STREAM })), {
      name: "ResourceNotFoundException",
      message: `Stream ${STREAM} under account 000000000000 not found.`,
    });
  });

  test(`500 records of any bytes come back as they were put, in order, over ${over}`, async (t) => {
    const { client } = await open(t, { http1 });
    await client.send(new CreateStreamCommand({ StreamName: STREAM, ShardCount: 2 }));
    const records = Array.from({ length: 500 }, (_, i) => ({
      PartitionKey: i % 7 === 0 ? `schlüssel/${i % 3}` : `key "${i % 11}"\\`,
      Data: Buffer.from(Array.from({ length: i % 300 }, (_, byte) => (byte * 7 + i) & 255)),
    }));
    const put = await client.send(new PutRecordsCommand({ StreamName: STREAM, Records: records }));
    assert.equal(put.FailedRecordCount, 0);
    assert.equal(put.Records?.length, 500);

    const read: Record[] = [];
    for (const shard of ["shardId-000000000000", "shardId-000000000001"]) {
      const iterator = await iteratorOf(client, { ShardId: shard, ShardIteratorType: "TRIM_HORIZON" });
      const found = await readAll(client, iterator, 33);
      const numbers = found.map((record) => BigInt(record.SequenceNumber!));
      assert.deepEqual(
        numbers,
        [...numbers].sort((a, b) => (a < b ? -1 : 1)),
      );
      read.push(...found);
    }
    assert.equal(read.length, 500);
    for (const [i, record] of records.entries()) {
      const answer: PutRecordsResultEntry = put.Records![i]!;
      const found: Record = read.find((candidate) => candidate.SequenceNumber === answer.SequenceNumber)!;
      assert.equal(found.PartitionKey, record.PartitionKey);
      assert.deepEqual(Buffer.from(found.Data!), record.Data);
      const shard = partitionHash(record.PartitionKey) < 2n ** 127n ? 0 : 1;
      assert.equal(answer.ShardId, `shardId-00000000000${shard}`);
      assert.ok(Math.abs(Date.now() - found.ApproximateArrivalTimestamp!.getTime()) < 60_000);
    }
  });
}

test("all five iterator types begin where Kinesis begins", async (t) => {
  const { client } = await open(t);
  await client.send(new CreateStreamCommand({ StreamName: STREAM, ShardCount: 1 }));
  const { Shards: shards } = await client.send(new ListShardsCommand({ StreamName: STREAM }));
  const start = shards![0]!.SequenceNumberRange!.StartingSequenceNumber!;
  const latest = await iteratorOf(client, { ShardIteratorType: "LATEST" });
  const put = async (data: string): Promise<string> => {
    const command = new PutRecordCommand({ StreamName: STREAM, PartitionKey: "k", Data: Buffer.from(data) });
    return (await client.send(command)).SequenceNumber!;
  };
  await put("one");
  await new Promise((resolve) => setTimeout(resolve, 15));
  const two = await put("two");
  const [, second] = await readAll(client, await iteratorOf(client, { ShardIteratorType: "TRIM_HORIZON" }));
  const three = await put("three");
  const from = async (input: Parameters<typeof iteratorOf>[1]): Promise<string[]> =>
    (await readAll(client, await iteratorOf(client, input))).map(text);

  assert.deepEqual((await readAll(client, latest)).map(text), ["one", "two", "three"]);
  assert.deepEqual(await from({ ShardIteratorType: "TRIM_HORIZON" }), ["one", "two", "three"]);
  assert.deepEqual(await from({ ShardIteratorType: "LATEST" }), []);
  const at = { ShardIteratorType: "AT_SEQUENCE_NUMBER" } as const;
  const after = { ShardIteratorType: "AFTER_SEQUENCE_NUMBER" } as const;
  assert.deepEqual(await from({ ...at, StartingSequenceNumber: two }), ["two", "three"]);
  assert.deepEqual(await from({ ...after, StartingSequenceNumber: two }), ["three"]);
  assert.deepEqual(await from({ ...after, StartingSequenceNumber: three }), []);
  assert.deepEqual(await from({ ...at, StartingSequenceNumber: start }), ["one", "two", "three"]);
  assert.deepEqual(await from({ ...after, StartingSequenceNumber: start }), ["one", "two", "three"]);
  const Timestamp = second!.ApproximateArrivalTimestamp!;
  assert.deepEqual(await from({ ShardIteratorType: "AT_TIMESTAMP", Timestamp }), ["two", "three"]);
  assert.deepEqual(await from({ ShardIteratorType: "AT_TIMESTAMP", Timestamp: new Date(0) }), [
    "one",
    "two",
    "three",
  ]);
  await assert.rejects(from({ ...at, StartingSequenceNumber: "5" }), { name: "InvalidArgumentException" });
  await assert.rejects(from(at), {
    name: "InvalidArgumentException",
    message: /Request specified AT_SEQUENCE_NUMBER and no StartingSequenceNumber/,
  });
});

test("reading one by one, or from each sequence number on, neither repeats nor skips", async (t) => {
  const { client } = await open(t);
  await client.send(new CreateStreamCommand({ StreamName: STREAM, ShardCount: 1 }));
  const numbers: string[] = [];
  for (let batch = 0; batch < 5; batch++) {
    const Records = Array.from({ length: 9 }, (_, i) => ({
      PartitionKey: `k${i % 4}`,
      Data: Buffer.from(`${batch}/${i}`),
    }));
    const put = await client.send(new PutRecordsCommand({ StreamName: STREAM, Records }));
    numbers.push(...put.Records!.map((record) => record.SequenceNumber!));
  }
  const horizon = await iteratorOf(client, { ShardIteratorType: "TRIM_HORIZON" });
  const all = await readAll(client, horizon);
  const inOrder = all.map((record) => record.SequenceNumber!);
  assert.deepEqual([...inOrder].sort(), [...numbers].sort());
  assert.deepEqual(
    (await readAll(client, horizon, 1)).map((record) => record.SequenceNumber),
    inOrder,
  );
  for (const [i, StartingSequenceNumber] of inOrder.entries()) {
    for (const [type, skip] of [
      ["AT_SEQUENCE_NUMBER", 0],
      ["AFTER_SEQUENCE_NUMBER", 1],
    ] as const) {
      const iterator = await iteratorOf(client, { ShardIteratorType: type, StartingSequenceNumber });
      const found = await client.send(new GetRecordsCommand({ ShardIterator: iterator }));
      assert.deepEqual(
        found.Records!.map((record) => record.SequenceNumber),
        inOrder.slice(i + skip),
      );
    }
  }
});

test("an iterator outlives a restart of the API, but not its five minutes nor its stream", async (t) => {
  const clock = new HandClock();
  const [port] = await freePorts(1);
  const { fixture, client } = await open(t, { clock, http1: true, port: port! });
  await client.send(new CreateStreamCommand({ StreamName: STREAM, ShardCount: 1 }));
  await client.send(
    new PutRecordCommand({ StreamName: STREAM, PartitionKey: "k", Data: Buffer.from("one") }),
  );
  const iterator = await iteratorOf(client, { ShardIteratorType: "TRIM_HORIZON" });
  const tampered = `${iterator.slice(0, 40)}${iterator[40] === "A" ? "B" : "A"}${iterator.slice(41)}`;
  await assert.rejects(client.send(new GetRecordsCommand({ ShardIterator: tampered })), {
    name: "InvalidArgumentException",
    message: "Invalid ShardIterator.",
  });
  await fixture.restartApi();
  const again = clientOf(fixture);
  t.after(() => again.destroy());
  assert.equal((await readAll(again, iterator)).length, 1);

  await again.send(new DeleteStreamCommand({ StreamName: STREAM }));
  await again.send(new CreateStreamCommand({ StreamName: STREAM, ShardCount: 1 }));
  await assert.rejects(again.send(new GetRecordsCommand({ ShardIterator: iterator })), {
    name: "ResourceNotFoundException",
    message: `Shard shardId-000000000000 in stream ${STREAM} under account 000000000000 does not exist`,
  });

  const fresh = await iteratorOf(again, { ShardIteratorType: "TRIM_HORIZON" });
  clock.aheadMs = 300_001;
  const later = new KinesisClient({
    endpoint: fixture.origin,
    region: "us-east-1",
    systemClockOffset: clock.aheadMs,
    credentials: { accessKeyId: KEY.id, secretAccessKey: KEY.secret },
  });
  t.after(() => later.destroy());
  await assert.rejects(later.send(new GetRecordsCommand({ ShardIterator: fresh })), {
    name: "ExpiredIteratorException",
    message:
      /^Iterator expired\. The iterator was created at time \w{3} \w{3} \d{2} \d{2}:\d{2}:\d{2} UTC \d{4} while right now it is /,
  });
});

test("records of 1 MiB are taken, larger ones and too many at once are refused by name", async (t) => {
  const { client } = await open(t);
  await client.send(new CreateStreamCommand({ StreamName: STREAM, ShardCount: 1 }));
  const put = (Data: Buffer, PartitionKey = "k") =>
    client.send(new PutRecordCommand({ StreamName: STREAM, PartitionKey, Data }));
  // The key counts towards the size.
  await put(Buffer.alloc(1_048_320, 7), "k".repeat(256));
  await put(Buffer.alloc(0));
  await assert.rejects(put(Buffer.alloc(1_048_577)), {
    name: "ValidationException",
    message:
      "1 validation error detected: Value 'java.nio.HeapByteBuffer[pos=0 lim=1048577 cap=1048577]' at 'data' failed to satisfy constraint: Member must have length less than or equal to 1048576",
  });
  await assert.rejects(put(Buffer.alloc(1), "k".repeat(257)), { name: "ValidationException" });
  const records = (count: number, bytes: number) =>
    Array.from({ length: count }, () => ({ PartitionKey: "k", Data: Buffer.alloc(bytes) }));
  const putAll = (Records: ReturnType<typeof records>) =>
    client.send(new PutRecordsCommand({ StreamName: STREAM, Records }));
  await assert.rejects(putAll(records(501, 1)), {
    name: "ValidationException",
    message: /at 'records' failed to satisfy constraint: Member must have length less than or equal to 500$/,
  });
  await assert.rejects(putAll(records(11, 1_000_000)), {
    name: "InvalidArgumentException",
    message: "Records size exceeds 10 MB limit",
  });
  const read = await readAll(client, await iteratorOf(client, { ShardIteratorType: "TRIM_HORIZON" }));
  assert.deepEqual(
    read.map((record) => record.Data!.length),
    [1_048_320, 0],
  );
});

test("an answer holds at most 10 MiB, and the next one goes on", async (t) => {
  // One that takes a second is given as far as it came.
  const { client } = await open(t, { clock: new StillClock() });
  await client.send(new CreateStreamCommand({ StreamName: STREAM, ShardCount: 1 }));
  for (let i = 0; i < 12; i++) {
    await client.send(
      new PutRecordCommand({ StreamName: STREAM, PartitionKey: "k", Data: Buffer.alloc(1_000_000, i) }),
    );
  }
  const iterator = await iteratorOf(client, { ShardIteratorType: "TRIM_HORIZON" });
  const first = await client.send(new GetRecordsCommand({ ShardIterator: iterator }));
  assert.equal(first.Records?.length, 10);
  assert.ok(first.MillisBehindLatest! > 0);
  const second = await client.send(new GetRecordsCommand({ ShardIterator: first.NextShardIterator! }));
  assert.deepEqual(
    second.Records?.map((record) => record.Data![0]),
    [10, 11],
  );
  assert.equal(second.MillisBehindLatest, 0);
});

test("an explicit hash key decides the shard, and must be one of 128 bits", async (t) => {
  const { client } = await open(t);
  await client.send(new CreateStreamCommand({ StreamName: STREAM, ShardCount: 4 }));
  const put = (ExplicitHashKey: string) =>
    client.send(
      new PutRecordCommand({
        StreamName: STREAM,
        PartitionKey: "k",
        Data: Buffer.from("x"),
        ExplicitHashKey,
      }),
    );
  assert.equal((await put("0")).ShardId, "shardId-000000000000");
  assert.equal((await put((2n ** 128n - 1n).toString())).ShardId, "shardId-000000000003");
  await assert.rejects(put((2n ** 128n).toString()), {
    name: "InvalidArgumentException",
    message: `Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. Specified value was ${2n ** 128n}`,
  });
});

test("a key may call what its allow list names, and nothing else", async (t) => {
  const { fixture, client } = await open(t);
  await client.send(new CreateStreamCommand({ StreamName: STREAM, ShardCount: 1 }));
  const limited = clientOf(fixture, { key: PUT_ONLY });
  t.after(() => limited.destroy());
  const Data = Buffer.from("x");
  await limited.send(new PutRecordsCommand({ StreamName: STREAM, Records: [{ PartitionKey: "k", Data }] }));
  await limited.send(new DescribeStreamSummaryCommand({ StreamName: STREAM }));
  await assert.rejects(limited.send(new PutRecordCommand({ StreamName: STREAM, PartitionKey: "k", Data })), {
    name: "AccessDeniedException",
    message: /is not authorized to perform: kinesis:PutRecord /,
  });
  await assert.rejects(limited.send(new ListStreamsCommand({})), { name: "AccessDeniedException" });
});

test("strangers and forgers are told apart, in AWS's names", async (t) => {
  const { fixture } = await open(t);
  const stranger = clientOf(fixture, { key: { ...KEY, id: "AKIASTRANGER" } });
  const forger = clientOf(fixture, { key: { ...KEY, secret: "not the secret at all" } });
  t.after(() => {
    stranger.destroy();
    forger.destroy();
  });
  const big = Buffer.alloc(900_000);
  const put = new PutRecordCommand({ StreamName: STREAM, PartitionKey: "k", Data: big });
  await assert.rejects(stranger.send(put), { name: "UnrecognizedClientException" });
  await assert.rejects(forger.send(put), { name: "InvalidSignatureException" });
});

test("an operation that is not there says so", async (t) => {
  const { client } = await open(t);
  await assert.rejects(
    client.send(new EnableEnhancedMonitoringCommand({ StreamName: STREAM, ShardLevelMetrics: ["ALL"] })),
    {
      name: "UnknownOperationException",
      message:
        "EnableEnhancedMonitoring is not offered by this gateway: the metrics of /metrics are always on.",
    },
  );
});
