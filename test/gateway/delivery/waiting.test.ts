import assert from "node:assert/strict";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { readRanges } from "../../../gateway/delivery/range-reader.ts";
import { Waiting } from "../../../gateway/delivery/waiting.ts";
import { type LocalStreams, openLocalStreams } from "../../../gateway/streams/stores/local/local.ts";
import { type Clock, systemClock } from "../../../runtime/clock.ts";
import { silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { removeFolder } from "../../support/remove-folder.ts";
import { spoilReads } from "../../support/spoilt-reads.ts";

async function withStreams(clock: Clock, body: (streams: LocalStreams) => Promise<void>): Promise<void> {
  const dir = await mkdtemp(join(tmpdir(), "headwater-waiting-"));
  const parts = { dir, clock, log: silentLog, metrics: new Metrics(), segmentBytes: 4_096 };
  const streams = spoilReads(await openLocalStreams(parts));
  try {
    await body(streams);
  } finally {
    await streams.close();
    await removeFolder(dir);
  }
}

const records = (count: number) =>
  Array.from({ length: count }, (_, i) => ({ partitionKey: `k${i}`, data: Buffer.alloc(100, 0x31) }));

test("what retention takes from behind that which waits already is counted once", async () => {
  let aheadMs = 0;
  const clock: Clock = {
    nowUs: () => systemClock.nowUs() + aheadMs * 1_000,
    monotonicMs: () => systemClock.monotonicMs() + aheadMs,
  };
  await withStreams(clock, async (streams) => {
    await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
    for (let i = 0; i < 20; i++) await streams.append("s", records(20));
    const consumer = await streams.openConsumer("s", "c");
    const waiting = new Waiting(streams, consumer, clock);
    assert.equal(await waiting.count(3_000), 0);
    const { to } = waiting.ranges()[0]!;
    assert.ok(to > 0 && to < 200, `${to} wait`);
    aheadMs = 25 * 3_600_000;
    await streams.append("s", records(20));
    await streams.enforceRetention();
    const horizon = streams.describe("s").shardList[0]!.trimHorizon;
    assert.ok(horizon > to, `retention went as far as ${horizon}`);
    const trimmed = await waiting.count(1_000_000);
    let delivered = 0;
    const visitor = { add: () => void delivered++, drain: async () => {} };
    const missing = await readRanges(streams, "s", waiting.ranges(), visitor);
    assert.equal(trimmed + missing + delivered, 420);
    assert.equal(delivered, 420 - horizon);
  });
});

test("however many shards there are, others have their turn while they are read", async () => {
  await withStreams(systemClock, async (streams) => {
    await streams.createStream({ name: "s", shards: 512, retentionHours: 24 });
    await streams.append("s", records(500));
    const waiting = new Waiting(streams, await streams.openConsumer("s", "c"), systemClock);
    let turns = 0;
    let watched = true;
    const watch = (): void => {
      turns++;
      if (watched) setImmediate(watch);
    };
    setImmediate(watch);
    await waiting.count(1_000_000);
    const counting = turns;
    assert.ok(counting >= 30, `${counting} turns while they are counted`);
    const visitor = { add: () => {}, drain: async () => {} };
    await readRanges(streams, "s", waiting.ranges(), visitor);
    watched = false;
    assert.ok(turns - counting >= 15, `${turns - counting} turns while they are read`);
  });
});

test("of many shards those are read that something came to", async () => {
  await withStreams(systemClock, async (streams) => {
    await streams.createStream({ name: "s", shards: 512, retentionHours: 24 });
    await streams.append("s", records(50));
    let reads = 0;
    const { read } = streams;
    streams.read = (...args) => {
      reads++;
      return read.apply(streams, args);
    };
    const waiting = new Waiting(streams, await streams.openConsumer("s", "c"), systemClock);
    try {
      await waiting.count(1_000_000);
      assert.ok(reads >= 512, `${reads} reads of shards that nobody had read yet`);
      const recordBytes = waiting.bytes / 50;
      reads = 0;
      for (let i = 1; i <= 20; i++) {
        const more = waiting.more(60_000, new AbortController().signal);
        await streams.append("s", records(1));
        await more;
        await waiting.count(1_000_000);
        assert.equal(waiting.bytes, (50 + i) * recordBytes);
      }
      assert.ok(reads <= 60, `${reads} reads of 20 records`);
    } finally {
      waiting.close();
    }
  });
});
