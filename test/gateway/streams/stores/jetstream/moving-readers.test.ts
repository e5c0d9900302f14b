/** Readers that go from one gateway before the cluster to another, by the numbers that the first gave them. */
import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { mock } from "node:test";
import { AnswerRoom, UnreadAnswers } from "../../../../../gateway/api/answers/unread-answers.ts";
import { Account } from "../../../../../gateway/api/kinesis/account.ts";
import type { KinesisContext } from "../../../../../gateway/api/kinesis/operation.ts";
import { getRecords } from "../../../../../gateway/api/kinesis/pages/get-records.ts";
import { continuation } from "../../../../../gateway/api/kinesis/push/subscription-events.ts";
import { ReadMeters } from "../../../../../gateway/api/kinesis/read-meters.ts";
import { TokenSealer } from "../../../../../gateway/api/kinesis/sealed-token.ts";
import { getShardIterator } from "../../../../../gateway/api/kinesis/shard-iterator.ts";
import { jsonCodec } from "../../../../../gateway/api/kinesis/wire/codec.ts";
import { StreamTail } from "../../../../../gateway/streams/stores/jetstream/log/stream-tail.ts";
import { formatSequenceNumber, partitionHash, type Streams } from "../../../../../gateway/streams/streams.ts";
import { systemClock } from "../../../../../runtime/clock.ts";
import { Metrics } from "../../../../../runtime/metrics.ts";
import { clusterFact as fact, until } from "./cluster-fact.ts";

const SHARD_0 = "shardId-000000000000";
const HALF = 2n ** 127n;

function contextOf(streams: Streams): KinesisContext {
  return {
    streams,
    clock: systemClock,
    account: new Account(streams),
    iterators: new TokenSealer(["secret"], "shard iterator"),
    reads: new ReadMeters(new Metrics(), systemClock, () => streams.listStreams()),
  } as unknown as KinesisContext;
}

async function iteratorAfter(context: KinesisContext, number: string): Promise<string> {
  const answer = await getShardIterator(context, {
    StreamName: "s",
    ShardId: SHARD_0,
    ShardIteratorType: "AFTER_SEQUENCE_NUMBER",
    StartingSequenceNumber: number,
  });
  return (answer as { ShardIterator: string }).ShardIterator;
}

async function textsAt(context: KinesisContext, ShardIterator: string): Promise<string[]> {
  const body = Buffer.from(JSON.stringify({ ShardIterator }));
  const room = new AnswerRoom(new UnreadAnswers(2 ** 30), "AKIAEVERYTHING", {
    isGone: false,
    hasSaidAll: false,
  });
  const answer = await getRecords.page(context, body, jsonCodec, room);
  const { Records } = JSON.parse(answer.toString()) as { Records: { Data: string }[] };
  return Records.map(({ Data }) => Buffer.from(Data, "base64").toString());
}

fact(
  "where a gateway that has just started lets an idle shard be read on, another one does, too",
  async ({ open }) => {
    const a = await open();
    await a.createStream({ name: "s", shards: 2, retentionHours: 24 });
    const put = (text: string, explicitHash: bigint) =>
      a.append("s", [{ partitionKey: "k", data: Buffer.from(text), explicitHash }]);
    await put("first", 0n);
    for (let i = 0; i < 5; i++) await put("other", HALF);
    const started = await open();
    const shard = started.shard("s", 0);
    const latest = await started.position("s", SHARD_0, { at: "latest" });
    // As SubscribeToShard tells it while nothing comes; its client may come by much later.
    const wanted: string[] = [];
    for (const agoMs of [0, 60_000]) {
      const number = continuation(shard, latest, Date.now() - agoMs);
      const iterator = await iteratorAfter(contextOf(a), number);
      assert.deepEqual(await textsAt(contextOf(a), iterator), wanted);
      const [placed] = await put(`behind ${agoMs}`, 0n);
      wanted.push(`behind ${agoMs}`);
      assert.deepEqual(await textsAt(contextOf(a), iterator), wanted);
      // What nobody gave out is refused all the same.
      const madeUp = {
        shardCreatedMs: shard.createdMs,
        shardIndex: 0,
        offset: placed!.offset + 2 ** 20,
        arrivalMs: 1_000,
      };
      await assert.rejects(
        iteratorAfter(contextOf(a), formatSequenceNumber(madeUp)),
        /did not come from this stream/,
      );
      await until(() => started.shard("s", 0).latest === placed!.offset + 1);
    }
  },
);

fact(
  "a time is found in a shard that stands still without looking through what came to the others since",
  async ({ open }) => {
    const a = await open();
    await a.createStream({ name: "s", shards: 2, retentionHours: 24 });
    const [before] = await a.append("s", [
      { partitionKey: "k", data: Buffer.from("before"), explicitHash: 0n },
    ]);
    await new Promise((resolve) => setTimeout(resolve, 20));
    const arrivalMs = Date.now();
    const key = ["a", "b", "c", "d", "e"].find((one) => partitionHash(one) >= HALF)!;
    const client = async (clientId: string): Promise<void> => {
      const publish = { clientId, partitionKey: key, timeUs: 1, payload: Buffer.from("x"), mayRepeat: false };
      for (let i = 1; i <= 40; i++) await a.appendPublish("s", { ...publish, packetId: i });
    };
    await Promise.all(Array.from({ length: 50 }, (_, i) => client(`c${i}`)));
    const started = await open();
    const asked = mock.method(StreamTail.prototype, "fetch");
    try {
      const at = await started.position("s", SHARD_0, { at: "time", arrivalMs });
      assert.ok(at > before!.offset && at <= (await started.position("s", SHARD_0, { at: "latest" })));
      assert.ok(asked.mock.callCount() < 200, `${asked.mock.callCount()} of 2,000 messages were asked for`);
      const [placed] = await started.append("s", [
        { partitionKey: "k", data: Buffer.from("behind"), explicitHash: 0n },
      ]);
      let next = at;
      for (;;) {
        const read = await started.read("s", SHARD_0, next, 1_000_000);
        if (read.parts.length > 0) {
          assert.equal(read.parts[0]!.first, placed!.offset);
          break;
        }
        assert.ok(read.next > next);
        next = read.next;
      }
    } finally {
      asked.mock.restore();
    }
  },
);

fact("who asks for what is there leaves nobody waiting behind", async ({ open }) => {
  const streams = await open();
  await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
  const [placed] = await streams.append("s", [{ partitionKey: "k", data: Buffer.from("x") }]);
  const waits = mock.method(StreamTail.prototype, "next");
  try {
    for (let i = 0; i < 100; i++) {
      await streams.appended("s", SHARD_0, placed!.offset, new AbortController().signal);
    }
    assert.equal(waits.mock.callCount(), 0);
    const woken = streams.appended("s", SHARD_0, placed!.offset + 1, new AbortController().signal);
    await streams.append("s", [{ partitionKey: "k", data: Buffer.from("y") }]);
    await woken;
  } finally {
    waits.mock.restore();
  }
});

fact("who waits for many shards with one signal adds one listener to it", async ({ open }) => {
  const streams = await open();
  await streams.createStream({ name: "s", shards: 40, retentionHours: 24 });
  const { shardList } = streams.describe("s");
  const done = new AbortController();
  const all = shardList.map(({ shardId, latest }) => streams.appended("s", shardId, latest, done.signal));
  await until(() => getEventListeners(done.signal, "abort").length > 0);
  const [placed] = await streams.append("s", [{ partitionKey: "k", data: Buffer.from("x") }]);
  await all[shardList.findIndex(({ shardId }) => shardId === placed!.shardId)];
  assert.equal(getEventListeners(done.signal, "abort").length, 1);
  done.abort();
  await Promise.all(all);
  assert.equal(getEventListeners(done.signal, "abort").length, 0);
});
