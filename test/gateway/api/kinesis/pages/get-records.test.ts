/** GetRecords over real streams, without HTTP: pages by iterators, in both forms, against what was put. */
import assert from "node:assert/strict";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import fc from "fast-check";
import { AnswerRoom, UnreadAnswers } from "../../../../../gateway/api/answers/unread-answers.ts";
import { BusyError } from "../../../../../gateway/api/bodies/body-budget.ts";
import { type Asker, AskerGoneError } from "../../../../../gateway/api/exchange.ts";
import { Account } from "../../../../../gateway/api/kinesis/account.ts";
import type { KinesisContext } from "../../../../../gateway/api/kinesis/operation.ts";
import { getRecords } from "../../../../../gateway/api/kinesis/pages/get-records.ts";
import { PageThread } from "../../../../../gateway/api/kinesis/pages/page-thread.ts";
import { ShardRates } from "../../../../../gateway/api/kinesis/rate-limits.ts";
import { ReadMeters } from "../../../../../gateway/api/kinesis/read-meters.ts";
import { TokenSealer } from "../../../../../gateway/api/kinesis/sealed-token.ts";
import { getShardIterator, sealIterator } from "../../../../../gateway/api/kinesis/shard-iterator.ts";
import { type Codec, cborCodec, jsonCodec } from "../../../../../gateway/api/kinesis/wire/codec.ts";
import { type LocalStreams, openLocalStreams } from "../../../../../gateway/streams/stores/local/local.ts";
import { parseSequenceNumber } from "../../../../../gateway/streams/streams.ts";
import { silentLog } from "../../../../../runtime/log.ts";
import { Metrics } from "../../../../../runtime/metrics.ts";
import { removeFolder } from "../../../../support/remove-folder.ts";
import { spoilReads } from "../../../../support/spoilt-reads.ts";
import { KEY, StillClock } from "../../api-fixture.ts";

interface Page {
  readonly NextShardIterator?: string;
  readonly ChildShards?: readonly object[];
  readonly MillisBehindLatest: number;
  readonly Records: readonly {
    readonly Data: string | Buffer;
    readonly PartitionKey: string;
    readonly SequenceNumber: string;
    readonly ApproximateArrivalTimestamp: number;
  }[];
}

async function open(t: TestContext, shards = 1) {
  const dir = await mkdtemp(join(tmpdir(), "headwater-get-records-"));
  // A page is given as far as it came when a second is over: none is here, however slow the disk is.
  const clock = new StillClock();
  const streams = spoilReads(await openLocalStreams({ dir, clock, log: silentLog, metrics: new Metrics() }));
  t.after(async () => {
    await streams.close();
    await removeFolder(dir);
  });
  await streams.createStream({ name: "s", shards, retentionHours: 24 });
  const pageThread = new PageThread({ log: silentLog, metrics: new Metrics() });
  t.after(() => pageThread.close());
  const context = {
    streams,
    clock,
    account: new Account(streams),
    iterators: new TokenSealer(["secret"], "shard iterator"),
    rates: new ShardRates(clock),
    reads: new ReadMeters(new Metrics(), clock, () => streams.listStreams()),
    pageThread,
  } as unknown as KinesisContext;
  return { streams, clock, context };
}

/** Who stays until the answer comes. */
const WAITING: Asker = { isGone: false, hasSaidAll: false };

const anyRoom = (asker: Asker = WAITING): AnswerRoom =>
  new AnswerRoom(new UnreadAnswers(2 ** 30), KEY.id, asker);

function beginning(context: KinesisContext, streams: LocalStreams, shardIndex = 0): string {
  const { streamId } = streams.settings("s");
  return sealIterator(context, { stream: "s", streamId, shardIndex, offset: 0 });
}

async function ask(
  context: KinesisContext,
  iterator: string,
  limit: number | undefined,
  codec: Codec,
): Promise<Page> {
  const input = { ShardIterator: iterator, ...(limit !== undefined && { Limit: limit }) };
  const answer = await getRecords.page(context, Buffer.from(codec.encode(input)), codec, anyRoom());
  return codec.decode(Buffer.from(answer)) as Page;
}

const texts = (page: Page): string[] =>
  page.Records.map(({ Data, PartitionKey }) => {
    const bytes = typeof Data === "string" ? Buffer.from(Data, "base64") : Data;
    return `${PartitionKey} ${bytes.toString("hex")}`;
  });

test("pages of any limit, in either form, give each record once and in order", async (t) => {
  const { streams, context } = await open(t);
  const put: string[] = [];
  const entry = fc.record({
    partitionKey: fc.oneof(fc.constantFrom("a", 'b"'), fc.string({ minLength: 1, maxLength: 8 })),
    data: fc.oneof(fc.uint8Array({ maxLength: 30 }), fc.uint8Array({ minLength: 3_000, maxLength: 3_100 })),
  });
  const puts = fc.array(fc.array(entry, { minLength: 1, maxLength: 40 }), { minLength: 1, maxLength: 4 });
  const limits = fc.array(fc.option(fc.integer({ min: 1, max: 60 }), { nil: undefined }), {
    minLength: 1,
    maxLength: 5,
  });
  await fc.assert(
    fc.asyncProperty(puts, limits, async (batches, some) => {
      for (const batch of batches) {
        await streams.append("s", batch);
        for (const one of batch) put.push(`${one.partitionKey} ${Buffer.from(one.data).toString("hex")}`);
      }
      const seen: string[] = [];
      const offsets: number[] = [];
      let iterator: string | undefined = beginning(context, streams);
      for (let turn = 0; iterator !== undefined; turn++) {
        const limit = some[turn % some.length];
        const page: Page = await ask(context, iterator, limit, turn % 2 === 0 ? jsonCodec : cborCodec);
        assert.ok(page.Records.length <= (limit ?? 10_000));
        seen.push(...texts(page));
        offsets.push(...page.Records.map((record) => parseSequenceNumber(record.SequenceNumber).offset));
        // Each page but the last says that there is more, and gives some.
        assert.equal(page.MillisBehindLatest === 0, seen.length === put.length);
        iterator = page.MillisBehindLatest === 0 ? undefined : page.NextShardIterator;
      }
      assert.deepEqual(seen, put);
      assert.deepEqual(
        offsets,
        put.map((_, i) => i),
      );
    }),
    { numRuns: 15 },
  );
});

test("a page says how old the next record is, and 0 when it ends with the newest", async (t) => {
  const { streams, clock, context } = await open(t);
  await streams.append("s", [{ partitionKey: "k", data: Buffer.from("old") }]);
  clock.aheadMs += 60_000;
  await streams.append("s", [
    { partitionKey: "k", data: Buffer.from("new") },
    { partitionKey: "k", data: Buffer.from("newest") },
  ]);
  clock.aheadMs += 5_000;
  const one = await ask(context, beginning(context, streams), 1, jsonCodec);
  assert.ok(one.MillisBehindLatest >= 5_000, String(one.MillisBehindLatest));
  const two = await ask(context, one.NextShardIterator!, 1, jsonCodec);
  assert.ok(two.MillisBehindLatest >= 5_000 && two.MillisBehindLatest < 60_000);
  const three = await ask(context, two.NextShardIterator!, 1, jsonCodec);
  assert.equal(three.MillisBehindLatest, 0);
  assert.deepEqual(texts(three), [`k ${Buffer.from("newest").toString("hex")}`]);
  const none = await ask(context, three.NextShardIterator!, 1, cborCodec);
  assert.deepEqual([none.Records.length, none.MillisBehindLatest], [0, 0]);
});

test("a StreamARN must be that of the iterator's stream", async (t) => {
  const { streams, context } = await open(t);
  await streams.createStream({ name: "other", shards: 1, retentionHours: 24 });
  const ShardIterator = beginning(context, streams);
  const read = (region: string, account: string, name: string): Promise<string | Buffer> => {
    const StreamARN = `arn:aws:kinesis:${region}:${account}:stream/${name}`;
    const body = Buffer.from(jsonCodec.encode({ ShardIterator, StreamARN }));
    return getRecords.page(context, body, jsonCodec, anyRoom());
  };
  await read("us-east-1", "000000000000", "s");
  await assert.rejects(read("us-east-1", "000000000000", "other"), { type: "InvalidArgumentException" });
  await assert.rejects(read("us-east-1", "123456789012", "s"), { type: "ResourceNotFoundException" });
  await assert.rejects(read("eu-west-1", "000000000000", "s"), { type: "ResourceNotFoundException" });
});

test("at most 10 MiB of data in a page, whatever the size of a record", async (t) => {
  const { streams, context } = await open(t);
  const sizes = [900_000, 1_000, 1_048_000, 300_000];
  for (let i = 0; i < 9; i++) {
    await streams.append(
      "s",
      sizes.map((size) => ({ partitionKey: "k", data: Buffer.alloc(size, i) })),
    );
  }
  let iterator = beginning(context, streams);
  let records = 0;
  for (let pages = 0; records < 36; pages++) {
    const page = await ask(context, iterator, undefined, pages % 2 === 0 ? cborCodec : jsonCodec);
    const bytes = texts(page).reduce((sum, text) => sum + (text.length - 2) / 2, 0);
    assert.ok(bytes <= 10_485_760 && page.Records.length > 0, `${bytes} bytes`);
    records += page.Records.length;
    // Full but for less than the largest record.
    if (records < 36) assert.ok(bytes > 10_485_760 - 1_048_000, `${bytes} bytes`);
    iterator = page.NextShardIterator!;
  }
  assert.equal(records, 36);
});

test("readers that ask at the same time each get the page of their own shard", async (t) => {
  const { streams, context } = await open(t, 4);
  const entries = Array.from({ length: 2_000 }, (_, i) => ({
    partitionKey: `key-${i % 50}`,
    data: Buffer.alloc(300 + (i % 90), i),
  }));
  for (let i = 0; i < 5; i++) await streams.append("s", entries);
  const alone: string[][] = [];
  for (let shard = 0; shard < 4; shard++) {
    alone.push(texts(await ask(context, beginning(context, streams, shard), undefined, jsonCodec)));
  }
  assert.equal(alone.flat().length, 10_000);
  const together = await Promise.all(
    Array.from({ length: 12 }, (_, i) =>
      ask(context, beginning(context, streams, i % 4), undefined, i % 3 === 0 ? cborCodec : jsonCodec),
    ),
  );
  for (const [i, page] of together.entries()) assert.deepEqual(texts(page), alone[i % 4]);
});

test("what a page costs does not grow with the number of shards: none is described but its own", async (t) => {
  const { streams, context } = await open(t, 3);
  await streams.append("s", [{ partitionKey: "k", data: Buffer.from("x") }]);
  const described = t.mock.method(streams, "describe");
  for (let shard = 0; shard < 3; shard++) {
    const ShardId = `shardId-00000000000${shard}`;
    const input = { StreamName: "s", ShardId, ShardIteratorType: "TRIM_HORIZON" };
    const { ShardIterator } = (await getShardIterator(context, input)) as { ShardIterator: string };
    await ask(context, ShardIterator, undefined, jsonCodec);
  }
  assert.equal(described.mock.callCount(), 0);
});

test("a page whose records lie far apart, or come slowly, is given as far as it came, and the next goes on", async (t) => {
  const { streams, clock, context } = await open(t);
  const entries = Array.from({ length: 60 }, (_, i) => ({ partitionKey: "k", data: Buffer.from(`${i}`) }));
  for (const entry of entries) await streams.append("s", [entry]);
  const read = streams.read.bind(streams);
  // As of a shard that shares a long log with busier ones: each look takes its time, and gives little.
  t.mock.method(streams, "read", async (name: string, shardId: string, from: number) => {
    clock.aheadMs += 300;
    const found = await read(name, shardId, from, 1);
    return found.next < 60 ? { ...found, behindMs: Math.max(1, found.behindMs) } : found;
  });
  const seen: string[] = [];
  let iterator: string | undefined = beginning(context, streams);
  let pages = 0;
  for (let behind = 1; behind > 0; pages++) {
    const fromMs = clock.aheadMs;
    const page: Page = await ask(context, iterator!, undefined, jsonCodec);
    assert.ok(clock.aheadMs - fromMs < 5_000, `${clock.aheadMs - fromMs} ms`);
    seen.push(...texts(page));
    behind = page.MillisBehindLatest;
    iterator = page.NextShardIterator;
  }
  assert.ok(pages > 1);
  assert.deepEqual(
    seen,
    entries.map(({ data }) => `k ${data.toString("hex")}`),
  );
});

test("a page holds nothing of a stream that was made anew while it was read", async (t) => {
  const { streams, context } = await open(t);
  const put = (text: string) => streams.append("s", [{ partitionKey: "k", data: Buffer.from(text) }]);
  for (let i = 0; i < 3; i++) await put("old");
  const read = streams.read.bind(streams);
  const mock = t.mock.method(streams, "read", async (name: string, shardId: string, from: number) => {
    mock.mock.restore();
    const found = await read(name, shardId, from, 1);
    await streams.deleteStream("s");
    await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
    for (let i = 0; i < 3; i++) await put("new");
    return found;
  });
  const page = ask(context, beginning(context, streams), undefined, jsonCodec);
  await assert.rejects(page, { type: "ResourceNotFoundException" });
});

test("a page for whose answer there is no room is refused before anything of it is read; a small one is given", async (t) => {
  const { streams, context } = await open(t, 2);
  const data = Buffer.alloc(50_000, 1);
  await streams.append("s", [{ partitionKey: "k", data: Buffer.from("x"), explicitHash: 2n ** 127n }]);
  await streams.append(
    "s",
    Array.from({ length: 100 }, () => ({ partitionKey: "k", data, explicitHash: 0n })),
  );
  const unread = new UnreadAnswers(20_000_000);
  const ofShard = async (shard: number, room: AnswerRoom, Limit = 10_000): Promise<Page> => {
    const input = jsonCodec.encode({ ShardIterator: beginning(context, streams, shard), Limit });
    const answer = await getRecords.page(context, Buffer.from(input), jsonCodec, room);
    return JSON.parse(answer.toString()) as Page;
  };
  const room = new AnswerRoom(unread, KEY.id, WAITING);
  assert.equal((await ofShard(0, room)).Records.length, 100);
  assert.ok(room.bytes > 6_666_700 && room.bytes < 6_700_000, `${room.bytes} bytes for the answer`);
  assert.equal(unread.heldBytes, room.bytes);
  assert.ok(unread.take(5_000_000, KEY.id));
  const reads = t.mock.method(streams, "read");
  const late = new AnswerRoom(unread, KEY.id, WAITING);
  await assert.rejects(ofShard(0, late), BusyError);
  assert.equal(reads.mock.callCount(), 0);
  assert.equal(late.bytes, 0);
  assert.equal((await ofShard(0, late, 30)).Records.length, 30);
  assert.ok(late.bytes > 2_000_000 && late.bytes < 2_100_000, `${late.bytes} bytes for a few records`);
  late.giveBack();
  assert.ok(unread.take(4_300_000, KEY.id));
  await assert.rejects(ofShard(0, late, 1), BusyError);
  assert.equal((await ofShard(1, late)).Records.length, 1);
});

test("a small page does not wait for large ones to be read", { timeout: 60_000 }, async (t) => {
  const { streams, context } = await open(t, 2);
  const record = (bytes: number, explicitHash: bigint) => ({
    partitionKey: "k",
    data: Buffer.alloc(bytes, 1),
    explicitHash,
  });
  await streams.append(
    "s",
    Array.from({ length: 20 }, () => record(100_000, 0n)),
  );
  await streams.append("s", [record(10, 2n ** 127n)]);
  const read = streams.read.bind(streams);
  let goOn = (): void => {};
  const opened = new Promise<void>((resolve) => {
    goOn = resolve;
  });
  t.mock.method(streams, "read", async (name: string, shardId: string, from: number, maxBytes: number) => {
    if (shardId.endsWith("0")) await opened;
    return read(name, shardId, from, maxBytes);
  });
  const large = Array.from({ length: 20 }, () =>
    ask(context, beginning(context, streams), undefined, jsonCodec),
  );
  const small = await ask(context, beginning(context, streams, 1), undefined, jsonCodec);
  assert.equal(small.Records.length, 1);
  goOn();
  for (const page of await Promise.all(large)) assert.equal(page.Records.length, 20);
});

test("between large pages the event loop turns, also when all they are made of is in memory", async (t) => {
  const { streams, context } = await open(t);
  const data = Buffer.alloc(100_000, 1);
  await streams.append(
    "s",
    Array.from({ length: 20 }, () => ({ partitionKey: "k", data })),
  );
  let turn = 0;
  let ticking = setImmediate(function tick() {
    turn++;
    ticking = setImmediate(tick);
  });
  t.after(() => clearImmediate(ticking));
  const turns = await Promise.all(
    Array.from({ length: 20 }, async () => {
      const body = Buffer.from(jsonCodec.encode({ ShardIterator: beginning(context, streams) }));
      await getRecords.page(context, body, jsonCodec, anyRoom());
      return turn;
    }),
  );
  assert.equal(new Set(turns).size, 20, `in turns ${turns.join(", ")}`);
});

test("a page whose client leaves while it waits for its turn is not written, and counts as read by nobody", async (t) => {
  const { streams, context } = await open(t);
  const data = Buffer.alloc(100_000, 1);
  await streams.append(
    "s",
    Array.from({ length: 20 }, () => ({ partitionKey: "k", data })),
  );
  const counted = t.mock.method(context.reads, "page");
  const asker = { isGone: false, hasSaidAll: false };
  const read = streams.read.bind(streams);
  t.mock.method(streams, "read", async (...args: Parameters<typeof read>) => {
    const found = await read(...args);
    asker.isGone = true;
    return found;
  });
  const room = anyRoom(asker);
  const body = Buffer.from(jsonCodec.encode({ ShardIterator: beginning(context, streams) }));
  await assert.rejects(getRecords.page(context, body, jsonCodec, room), AskerGoneError);
  assert.equal(room.bytes, 0);
  assert.equal(counted.mock.callCount(), 0);
  assert.equal((await ask(context, beginning(context, streams), undefined, jsonCodec)).Records.length, 20);
  assert.equal(counted.mock.callCount(), 1);
});
