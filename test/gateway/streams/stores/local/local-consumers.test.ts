/** Consumers of the local store whose shards and streams go away under them. */
import assert from "node:assert/strict";
import { join } from "node:path";
import test from "node:test";
import { Level } from "level";
import { MAX_HASH, StreamNotFoundError } from "../../../../../gateway/streams/streams.ts";
import { type LocalPlace, makeLocalPlace } from "./local-place.ts";

const HOUR_MS = 3_600_000;
const HALF = (MAX_HASH + 1n) / 2n;
const [SHARD_0, SHARD_1] = ["shardId-000000000000", "shardId-000000000001"];

async function withPlace(body: (place: LocalPlace) => Promise<void>): Promise<void> {
  const place = await makeLocalPlace();
  try {
    await body(place);
  } finally {
    await place.remove();
  }
}

test("a checkpoint passes over a shard that was made, read and expired since the one before", () =>
  withPlace(async (place) => {
    place.nowMs = 1_700_000_000_000;
    const streams = await place.open();
    await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
    const put = (text: string, explicitHash: bigint) =>
      streams.append("s", [{ partitionKey: "k", data: Buffer.from(text), explicitHash }]);
    const consumer = await streams.openConsumer("s", "c");
    await streams.splitShard("s", SHARD_0!, HALF);
    await put("in a shard that expires", 0n);
    const read = await streams.read("s", SHARD_1!, 0, 1_000);
    await streams.splitShard("s", SHARD_1!, HALF / 2n);
    place.nowMs += 25 * HOUR_MS;
    await streams.enforceRetention();
    const [later] = await put("in one that stays", MAX_HASH);
    assert.ok(!streams.describe("s").shardList.some(({ shardId }) => shardId === SHARD_1));
    const { shardId } = later!;
    await consumer.checkpoint(
      new Map([
        [SHARD_1!, read.next],
        [shardId, later!.offset + 1],
      ]),
    );
    assert.equal(consumer.positions().get(shardId), later!.offset + 1);
    // Of one that it was never given it hears as before.
    await assert.rejects(consumer.checkpoint(new Map([["shardId-000000000077", 1]])), {
      code: "SHARD_NOT_FOUND",
    });
    await streams.close();
    const opened = await place.open();
    const again = await opened.openConsumer("s", "c");
    assert.equal(again.positions().get(shardId), later!.offset + 1);
    await opened.close();
  }));

test("who is far behind gets a shard's records before its grandchildren's, also where no record came between them", () =>
  withPlace(async (place) => {
    place.nowMs = 1_700_000_000_000;
    const streams = await place.open();
    await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
    const put = (text: string) => streams.append("s", [{ partitionKey: "k", data: Buffer.from(text) }]);
    const consumer = await streams.openConsumer("s", "c");
    await put("first");
    await streams.splitShard("s", SHARD_0!, HALF);
    await streams.mergeShards("s", SHARD_1!, "shardId-000000000002");
    place.nowMs += 25 * HOUR_MS;
    // What is young keeps the segment, and so the first shard, too.
    const [second] = await put("second");
    await streams.enforceRetention();
    assert.deepEqual(consumer.shards, [SHARD_0]);
    await consumer.checkpoint(new Map([[SHARD_0!, 1]]));
    assert.deepEqual(consumer.shards, [second!.shardId]);
    // All of them leave the list once their records have.
    for (let i = 0; i < 2; i++) {
      place.nowMs += 25 * HOUR_MS;
      await streams.enforceRetention();
    }
    assert.deepEqual(
      streams.describe("s").shardList.map(({ shardId }) => shardId),
      [second!.shardId],
    );
    await streams.close();
  }));

test("a checkpoint passes over a shard that has expired, however often it is named", () =>
  withPlace(async (place) => {
    place.nowMs = 1_700_000_000_000;
    const streams = await place.open();
    await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
    const put = () => streams.append("s", [{ partitionKey: "k", data: Buffer.from("x") }]);
    const consumer = await streams.openConsumer("s", "c");
    await put();
    await streams.splitShard("s", SHARD_0!, HALF);
    place.nowMs += 25 * HOUR_MS;
    await streams.enforceRetention();
    for (let i = 1; i < 4; i++) {
      const { shardId, offset } = (await put())[0]!;
      await consumer.checkpoint(
        new Map([
          [SHARD_0!, 1],
          [shardId, offset + 1],
        ]),
      );
      assert.equal(consumer.positions().get(shardId), offset + 1);
    }
    await streams.close();
  }));

test("a consumer that is opened while its stream is deleted is refused, and leaves nothing", () =>
  withPlace(async (place) => {
    const streams = await place.open();
    for (let i = 0; i < 10; i++) {
      await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
      const opening = Array.from({ length: 8 }, (_, c) => streams.openConsumer("s", `c${c}`));
      const deleting = streams.deleteStream("s");
      const outcomes = await Promise.allSettled(opening);
      await deleting;
      for (const outcome of outcomes) {
        if (outcome.status === "fulfilled") assert.ok(outcome.value.lost.aborted);
        else assert.ok(outcome.reason instanceof StreamNotFoundError, String(outcome.reason));
      }
    }
    await streams.close();
    const database = new Level<string, string>(join(place.dir, "meta"));
    assert.deepEqual(await database.keys().all(), []);
    await database.close();
  }));
