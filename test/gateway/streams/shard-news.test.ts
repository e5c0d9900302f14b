import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { type LocalStreams, openLocalStreams } from "../../../gateway/streams/stores/local/local.ts";
import { type ShardId, ShardNews } from "../../../gateway/streams/streams.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { eventually } from "../../support/program.ts";
import { removeFolder } from "../../support/remove-folder.ts";

const SHARDS = 64;

const WITHIN_MS = 60_000;
/** Its shards neither come nor go. */
const consumer = {
  changed: async (signal: AbortSignal) => {
    if (!signal.aborted) await once(signal, "abort");
  },
};

function heard(news: ShardNews): Promise<void> {
  return news.wait(consumer, WITHIN_MS, new AbortController().signal);
}

/** A stream of which all shards have been read to their tips. */
async function withRested(
  body: (parts: {
    readonly streams: LocalStreams;
    readonly news: ShardNews;
    readonly shardIds: readonly ShardId[];
    /** Reads all that is due. @returns which shards that were */
    readonly readDue: () => Promise<ShardId[]>;
    readonly wait: (ms: number) => void;
    readonly setBack: () => void;
  }) => Promise<void>,
): Promise<void> {
  const dir = await mkdtemp(join(tmpdir(), "headwater-shard-news-"));
  let aheadMs = 0;
  let backUs = 0;
  const streams = await openLocalStreams({
    dir,
    clock: { ...systemClock, nowUs: () => systemClock.nowUs() - backUs },
    log: silentLog,
    metrics: new Metrics(),
  });
  // It stands still but for `wait`: a machine that stood still for a second has not waited for ten.
  const clock = { ...systemClock, monotonicMs: () => aheadMs };
  const news = new ShardNews(streams, "s", clock);
  try {
    await streams.createStream({ name: "s", shards: SHARDS, retentionHours: 24 });
    const shardIds = streams.describe("s").shardList.map(({ shardId }) => shardId);
    const places = new Map(shardIds.map((shardId) => [shardId, 0]));
    const readDue = async (): Promise<ShardId[]> => {
      const read: ShardId[] = [];
      while (news.due() > 0) {
        const shardId = news.take();
        const result = await streams.read("s", shardId, places.get(shardId)!, 1_000);
        places.set(shardId, result.next);
        news.read(shardId, result);
        read.push(shardId);
      }
      return read;
    };
    for (const shardId of shardIds) news.add(shardId);
    assert.deepEqual(await readDue(), shardIds);
    const wait = (ms: number): void => {
      aheadMs += ms;
    };
    const setBack = (): void => {
      backUs = 3_600_000_000;
    };
    await body({ streams, news, shardIds, readDue, wait, setBack });
  } finally {
    news.close();
    await streams.close();
    await removeFolder(dir);
  }
}

const recordsTo = (streams: LocalStreams, shardIds: readonly ShardId[]) =>
  shardIds.map((shardId) => {
    const { hashFrom } = streams.describe("s").shardList.find((shard) => shard.shardId === shardId)!;
    return { partitionKey: "k", explicitHash: hashFrom, data: Buffer.from("x") };
  });

test("of many shards those are due that grew, in the order in which that was heard, and no other", async () => {
  await withRested(async ({ streams, news, shardIds, readDue }) => {
    assert.equal(news.due(), 0);
    for (const grown of [[shardIds[7]!], [shardIds[3]!, shardIds[60]!], [shardIds[7]!]]) {
      const some = heard(news);
      await streams.append("s", recordsTo(streams, grown));
      await some;
      await eventually("all are heard of", WITHIN_MS, async () => news.due() === grown.length || undefined);
      assert.deepEqual(await readDue(), grown);
    }
  });
});

test("a shard with a backlog is read on behind the others that are due", async () => {
  await withRested(async ({ streams, news, shardIds, readDue }) => {
    const [one, other] = [shardIds[1]!, shardIds[2]!];
    for (let i = 0; i < 6; i++) {
      await streams.append(
        "s",
        recordsTo(streams, [one]).map((record) => ({ ...record, data: Buffer.alloc(900) })),
      );
    }
    await streams.append("s", recordsTo(streams, [other]));
    await eventually("both are heard of", WITHIN_MS, async () => news.due() === 2 || undefined);
    await new Promise((resolve) => setTimeout(resolve, 5));
    const read = await readDue();
    assert.equal(read.filter((shardId) => shardId === other).length, 1);
    assert.equal(read.indexOf(other), 1, "after the first read of the backlog");
    assert.ok(read.filter((shardId) => shardId === one).length >= 5, read.join());
  });
});

test("a backlog is read to the tip also where the clock was set back", async () => {
  await withRested(async ({ streams, news, shardIds, readDue, setBack }) => {
    const one = shardIds[1]!;
    const [record] = recordsTo(streams, [one]);
    for (let i = 0; i < 6; i++) await streams.append("s", [{ ...record!, data: Buffer.alloc(900) }]);
    await heard(news);
    setBack();
    const read = await readDue();
    assert.ok(read.length >= 6, `${read.length} reads in one go`);
  });
});

test("a shard that is closed is due, and not any more once it was read to its end", async () => {
  await withRested(async ({ streams, news, shardIds, readDue, wait }) => {
    const parent = streams.describe("s").shardList[5]!;
    await streams.splitShard("s", parent.shardId, (parent.hashFrom + parent.hashTo) / 2n);
    await heard(news);
    assert.deepEqual(await readDue(), [parent.shardId]);
    wait(10_000);
    const others = shardIds.filter((shardId) => shardId !== parent.shardId);
    assert.deepEqual((await readDue()).sort(), others);
  });
});

test("after ten seconds all are looked at, and waited for once", async () => {
  await withRested(async ({ streams, news, shardIds, readDue, wait }) => {
    wait(9_000);
    assert.equal(news.due(), 0);
    for (let i = 0; i < 3; i++) {
      wait(10_000);
      assert.deepEqual(await readDue(), shardIds);
    }
    news.leave(shardIds[0]!);
    await streams.append("s", recordsTo(streams, shardIds.slice(0, 2)));
    await heard(news);
    await eventually("it is heard of", WITHIN_MS, async () => news.due() > 0 || undefined);
    assert.deepEqual(await readDue(), [shardIds[1]]);
  });
});

test("of a stream that was deleted the next read says so", async () => {
  await withRested(async ({ streams, news, readDue }) => {
    await streams.deleteStream("s");
    await heard(news);
    await assert.rejects(readDue(), { code: "STREAM_NOT_FOUND" });
  });
});

test("who waits for news goes on when shards come or go, when his time is over, and on abort", async () => {
  await withRested(async ({ news }) => {
    const never = new AbortController().signal;
    await news.wait({ changed: async () => {} }, WITHIN_MS, never);
    await news.wait(consumer, 1, never);
    const stop = new AbortController();
    const waiting = news.wait(consumer, WITHIN_MS, stop.signal);
    stop.abort();
    await waiting;
    await news.wait(consumer, WITHIN_MS, stop.signal);
    assert.equal(news.due(), 0);
  });
});
