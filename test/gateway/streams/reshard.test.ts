/** Splits and merges of the local store: what crashes, a failing disk and retention leave. */
import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import test from "node:test";
import { Level } from "level";
import { realDisk } from "../../../gateway/streams/stores/local/log/segment-file.ts";
import type { StreamLog } from "../../../gateway/streams/stores/local/log/stream-log.ts";
import { Metadata } from "../../../gateway/streams/stores/local/metadata.ts";
import { ShardTable } from "../../../gateway/streams/stores/local/shard-table.ts";
import { MAX_HASH, ShardNotFoundError, type Streams } from "../../../gateway/streams/streams.ts";
import { crc32c } from "../../../runtime/crc32c.ts";
import { readAll } from "../../contract/stream-records.ts";
import { consume } from "../../contract/streams-reshard.ts";
import { type LocalPlace, makeLocalPlace } from "./stores/local/local-place.ts";

const HOUR_MS = 3_600_000;
const START_MS = 1_700_000_000_000;
const HALF = (MAX_HASH + 1n) / 2n;
const [SHARD_0, SHARD_1, SHARD_2] = [0, 1, 2].map((i) => `shardId-${String(i).padStart(12, "0")}`) as [
  string,
  string,
  string,
];

async function withPlace(body: (place: LocalPlace) => Promise<void>): Promise<void> {
  const place = await makeLocalPlace();
  try {
    await body(place);
  } finally {
    await place.remove();
  }
}

const put = (streams: Streams, text: string) =>
  streams.append("s", [{ partitionKey: "k", explicitHash: 0n, data: Buffer.from(text) }]);

const textsOf = async (streams: Streams, shardId: string): Promise<string[]> =>
  (await readAll(streams, "s", shardId)).map(({ text }) => text);

test("a closed shard leaves when nothing of it is kept; its index is not given out again", () =>
  withPlace(async (place) => {
    place.nowMs = START_MS;
    let streams = await place.open({ segmentBytes: 600 });
    await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
    const consumer = await streams.openConsumer("s", "early");
    // Enough for a segment of its own, which retention can take.
    await put(streams, "parent".repeat(200));
    await streams.splitShard("s", SHARD_0, HALF);
    place.nowMs = START_MS + 20 * HOUR_MS;
    for (let i = 0; i < 10; i++) await put(streams, `child-${i}`);
    place.nowMs = START_MS + 23 * HOUR_MS;
    await streams.enforceRetention();
    assert.equal(streams.describe("s").shardList.length, 3);

    place.nowMs = START_MS + 25 * HOUR_MS;
    await put(streams, "child-10");
    assert.deepEqual(consumer.shards, [SHARD_0]);
    await streams.enforceRetention();
    const children = [SHARD_1, SHARD_2];
    assert.deepEqual(
      streams.describe("s").shardList.map(({ shardId }) => shardId),
      children,
    );
    assert.deepEqual(streams.describe("s").shardList[0]!.parents, [SHARD_0]);
    await assert.rejects(streams.read("s", SHARD_0, 0, 1), ShardNotFoundError);
    // An expired parent counts as finished, and a checkpoint that still names it harms nobody.
    assert.deepEqual(consumer.shards, children);
    await consumer.checkpoint(new Map([[SHARD_0, 1]]));
    assert.equal((await consume(streams, consumer)).length, 11);
    await streams.close();

    streams = await place.open({ segmentBytes: 600 });
    assert.deepEqual((await streams.openConsumer("s", "early")).shards, children);
    await streams.mergeShards("s", SHARD_2, SHARD_1);
    assert.deepEqual(
      streams.describe("s").shardList.map(({ index }) => index),
      [1, 2, 3],
    );
    await streams.close();
  }));

test("a closed shard keeps its end when retention has taken all its records", () =>
  withPlace(async (place) => {
    place.nowMs = START_MS;
    let streams = await place.open({ segmentBytes: 600 });
    await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
    const consumer = await streams.openConsumer("s", "c");
    for (let i = 0; i < 5; i++) await put(streams, `text-${i}`);
    place.nowMs = START_MS + 20 * HOUR_MS;
    await streams.splitShard("s", SHARD_0, HALF);
    place.nowMs = START_MS + 30 * HOUR_MS;
    await streams.enforceRetention();
    await consumer.close();
    await streams.close();
    streams = await place.open({ segmentBytes: 600 });
    const read = await streams.read("s", SHARD_0, 2, 1_000);
    assert.deepEqual(read, { parts: [], next: 5, behindMs: 0, trimmed: 3, ended: true });
    // What was lost is still to be noticed, so the consumer has to pass through it.
    const again = await streams.openConsumer("s", "c");
    assert.deepEqual(again.shards, [SHARD_0]);
    await again.checkpoint(new Map([[SHARD_0, 5]]));
    assert.deepEqual(again.shards, [SHARD_1, SHARD_2]);
    await streams.close();
  }));

test("a crash between the metadata and the switch leaves the split, and nothing is lost", () =>
  withPlace(async (place) => {
    let streams = await place.open();
    await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
    await put(streams, "before");
    await streams.close();
    // What the split writes, while appends still go to the parent.
    const metadata = await Metadata.open(place.dir);
    const [{ record, shards }] = (await metadata.activeStreams()) as [
      Awaited<ReturnType<Metadata["activeStreams"]>>[number],
    ];
    const change = new ShardTable("s", {} as StreamLog, shards).planSplit(SHARD_0, HALF, 1, Date.now());
    await metadata.close();
    streams = await place.open();
    await put(streams, "between");
    await streams.close();
    const later = await Metadata.open(place.dir);
    await later.changeStream({ ...record, nextShard: 3, shardCount: 3 }, change);
    await later.close();

    streams = await place.open();
    await put(streams, "after");
    const consumer = await streams.openConsumer("s", "c");
    assert.deepEqual(consumer.shards, [SHARD_0]);
    assert.deepEqual(await consume(streams, consumer), ["before", "between", "after"]);
    await streams.close();
  }));

test("records that waited at a split and were refused do not hold up the end of their shard", () =>
  withPlace(async (place) => {
    let fail = false;
    const disk = {
      ...realDisk,
      datasync: (...given: Parameters<typeof realDisk.datasync>) =>
        fail ? Promise.reject(new Error("no more")) : realDisk.datasync(...given),
    };
    const streams = await place.open({ disk });
    await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
    await put(streams, "kept");
    const consumer = await streams.openConsumer("s", "c");
    await consume(streams, consumer);
    const changed = consumer.changed(new AbortController().signal);
    fail = true;
    const refused = assert.rejects(put(streams, "refused"), { code: "LOG_WRITE_FAILED" });
    const split = streams.splitShard("s", SHARD_0, HALF);
    await Promise.all([refused, split]);
    fail = false;
    // The repair is tried again at the next append that finds the log unwell.
    while ((await put(streams, "new").catch(() => undefined)) === undefined) {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    await changed;
    assert.deepEqual(consumer.shards, [SHARD_1, SHARD_2]);
    assert.deepEqual(await textsOf(streams, SHARD_0), ["kept"]);
    assert.deepEqual(await textsOf(streams, SHARD_1), ["new"]);
    await streams.close();
  }));

test("metadata of format 1 opens, with the defaults", () =>
  withPlace(async (place) => {
    let streams = await place.open();
    await streams.createStream({ name: "s", shards: 2, retentionHours: 24 });
    const made = streams.describe("s");
    await put(streams, "x");
    await streams.close();
    const db = new Level<string, string>(join(place.dir, "meta"));
    const seal = (key: string, value: unknown): string => {
      const text = JSON.stringify(value);
      return `${crc32c(Buffer.from(`${key}\n${text}`))
        .toString(16)
        .padStart(8, "0")}${text}`;
    };
    const key = `stream/${made.streamId}`;
    const shards = [];
    for await (const [name, value] of db.iterator({ gte: "shard/", lt: "shard/\uffff" })) {
      shards.push(JSON.parse(value.slice(8)));
      await db.del(name);
    }
    const { streamId, createdMs } = made;
    await db.put(key, seal(key, { name: "s", streamId, createdMs, retentionHours: 24, shards }));
    await db.close();
    await writeFile(join(place.dir, "format.json"), '{"format":1}\n');
    for (let i = 0; i < 2; i++) {
      streams = await place.open();
      const { shardList } = streams.describe("s");
      assert.deepEqual({ ...streams.settings("s") }, { ...streamsSettings(made) });
      assert.equal(shardList.length, 2);
      assert.deepEqual(await textsOf(streams, SHARD_0), ["x"]);
      assert.equal(await readFile(join(place.dir, "format.json"), "utf8"), '{"format":2}\n');
      if (i === 1) await streams.splitShard("s", SHARD_0, 9n);
      await streams.close();
    }
    streams = await place.open();
    assert.equal(streams.settings("s").shards, 3);
    await streams.close();
  }));

function streamsSettings(description: ReturnType<Streams["describe"]>) {
  const { shardList, producers, damagedBytes, refusing, ...settings } = description;
  assert.ok(shardList.length > 0 && producers === 0 && damagedBytes === 0 && refusing === undefined);
  return settings;
}

test("metadata that lost a shard, or went back to before a split, is refused", () =>
  withPlace(async (place) => {
    const streams = await place.open();
    const { streamId } = await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
    const metadataNow = async (): Promise<Array<[string, string]>> => {
      const db = new Level<string, string>(join(place.dir, "meta"));
      const found = await db.iterator().all();
      await db.close();
      return found;
    };
    await streams.close();
    const before = await metadataNow();
    const opened = await place.open();
    await opened.splitShard("s", SHARD_0, HALF);
    await put(opened, "child");
    await opened.close();
    const after = await metadataNow();
    for (const [keys, message] of [
      [
        after.filter(([key]) => key !== `shard/${streamId}/000000000001`),
        /has 2 shards in meta\/ instead of 3/,
      ],
      [before, /holds records of shard 1, which meta\/ does not know/],
    ] as const) {
      const db = new Level<string, string>(join(place.dir, "meta"));
      await db.clear();
      await db.batch(keys.map(([key, value]) => ({ type: "put", key, value })));
      await db.close();
      await assert.rejects(place.open(), { code: "STREAM_METADATA_DAMAGED", message });
    }
  }));

test("a wall clock that jumps ahead removes nothing for an hour", () =>
  withPlace(async (place) => {
    place.nowMs = START_MS;
    const streams = await place.open();
    await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
    await put(streams, "x");
    place.jumpMs = 100 * HOUR_MS;
    for (const minutes of [0, 30, 59]) {
      place.nowMs = START_MS + minutes * 60_000;
      await streams.enforceRetention();
      assert.deepEqual(await textsOf(streams, SHARD_0), ["x"]);
    }
    const warning = "the wall clock jumped ahead; retention removes nothing for now";
    assert.deepEqual(place.logged, [warning]);
    assert.match(await place.metrics.render(), /headwater_log_retention_holds_total 1/);
    // Corrected: nothing was lost, and the next jump is held back anew.
    place.jumpMs = 0;
    place.nowMs = START_MS + 2 * HOUR_MS;
    await streams.enforceRetention();
    place.jumpMs = 100 * HOUR_MS;
    await streams.enforceRetention();
    place.nowMs = START_MS + 3 * HOUR_MS - 1;
    await streams.enforceRetention();
    assert.deepEqual(await textsOf(streams, SHARD_0), ["x"]);
    // It lasted: it is believed.
    place.nowMs = START_MS + 3 * HOUR_MS;
    await streams.enforceRetention();
    assert.deepEqual(await textsOf(streams, SHARD_0), []);
    assert.deepEqual(place.logged, [warning, warning]);
    await streams.close();
  }));
