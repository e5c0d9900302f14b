/** Statements whose input is split and merged under way, packed by the KPL, or older than its reading. */
import assert from "node:assert/strict";
import { copyFile } from "node:fs/promises";
import { join } from "node:path";
import test from "node:test";
import { Watermark } from "../../../gateway/analytics/watermark.ts";
import { type Clock, systemClock } from "../../../runtime/clock.ts";
import { aggregate } from "../../support/kpl-aggregate.ts";
import {
  askDuckDb,
  DELAY_MS,
  difference,
  entryOf,
  INPUT,
  inFolder,
  madeUp,
  OUTPUT,
  openRig,
  type Reading,
  type Rig,
  results,
  until,
} from "./analytics-rig.ts";

const START_MS = Date.UTC(2026, 10, 21, 9);

/** Arrivals stand still near the readings' own time, so that none is too far ahead. */
const clock: Clock = { nowUs: () => (START_MS + 600_000) * 1_000, monotonicMs: systemClock.monotonicMs };

function openShards(rig: Rig) {
  const { shardList } = rig.streams.describe(INPUT);
  return shardList
    .filter((shard) => shard.closedMs === undefined)
    .sort((a, b) => (a.hashFrom < b.hashFrom ? -1 : 1));
}

async function reshard(rig: Rig, step: number): Promise<void> {
  const shards = openShards(rig);
  if (step % 2 === 0) {
    const { shardId, hashFrom, hashTo } = shards[step % shards.length]!;
    await rig.streams.splitShard(INPUT, shardId, (hashFrom + hashTo) / 2n + 1n);
  } else {
    const left = (step * 7) % (shards.length - 1);
    await rig.streams.mergeShards(INPUT, shards[left]!.shardId, shards[left + 1]!.shardId);
  }
}

/** The last reading of each shard closes the windows before it, whatever shards there are by now. */
async function closing(rig: Rig, timeMs: number): Promise<void> {
  await rig.streams.append(
    INPUT,
    openShards(rig).map(({ hashFrom }) => ({
      ...entryOf({ sensor: "closing", timeMs }),
      explicitHash: hashFrom,
    })),
  );
}

/** Results up to the last reading, but the one that closes. */
async function settled(rig: Rig, readings: readonly Reading[], endMs: number): Promise<void> {
  const expected = await askDuckDb(readings, endMs - DELAY_MS);
  await until("all windows are out", async () => (await results(rig.streams)).length >= expected.length);
  assert.equal(difference(await results(rig.streams), expected), undefined);
}

test("windows over shards that are split and merged equal those of DuckDB", () =>
  inFolder(async (dir) => {
    const readings = madeUp(240, START_MS);
    const rig = await openRig(dir, { clock });
    await rig.analytics.start();
    for (let i = 0, step = 0; i < readings.length; i += 84, step++) {
      const puts = [rig.put(readings.slice(i, i + 42))];
      const change = reshard(rig, step);
      puts.push(rig.put(readings.slice(i + 42, i + 84)));
      await Promise.all([...puts, change]);
    }
    await closing(rig, START_MS + 300_000);
    await settled(rig, readings, START_MS + 300_000);
    const [status] = rig.analytics.status();
    assert.equal(status!.late, 0);
    assert.equal(status!.skipped, 0);
    assert.equal(status!.lastError, undefined);
  }));

test("the same when it starts anew at random moments between the splits and merges", () =>
  inFolder(async (dir) => {
    const readings = madeUp(240, START_MS);
    let rig = await openRig(dir, { clock });
    await rig.analytics.start();
    for (let i = 0, step = 0; i < readings.length; i += 168, step++) {
      await rig.put(readings.slice(i, i + 84));
      await reshard(rig, step);
      await rig.put(readings.slice(i + 84, i + 168));
      if (step % 3 !== 1) continue;
      await rig.close();
      rig = await openRig(dir, { clock });
      await rig.analytics.start();
    }
    await closing(rig, START_MS + 300_000);
    await settled(rig, readings, START_MS + 300_000);
    assert.equal(rig.analytics.status()[0]!.late, 0);
    assert.equal(rig.analytics.status()[0]!.skipped, 0);
  }));

async function shardsThatExpireUnread(startsAnew: boolean): Promise<void> {
  await inFolder(async (dir) => {
    let aheadMs = 0;
    const moving: Clock = {
      nowUs: () => (START_MS + aheadMs) * 1_000,
      monotonicMs: () => performance.now() + aheadMs,
    };
    let rig = await openRig(dir, { clock: moving });
    const status = () => rig.analytics.status()[0]!;
    const readings = madeUp(60, START_MS);
    await rig.streams.deleteStream(OUTPUT);
    await rig.put(readings.slice(0, 140));
    await closing(rig, START_MS + 60_000);
    await rig.analytics.start();
    await until("it fails", () => status().lastError !== undefined);
    const appended = async (from: number, to: number): Promise<void> => {
      await rig.put(readings.slice(from, to));
      await reshard(rig, 0);
    };
    await appended(140, 240);
    await appended(240, 340);
    let looks = 0;
    const openConsumer = rig.streams.openConsumer.bind(rig.streams);
    rig.streams.openConsumer = (...args) => {
      looks++;
      return openConsumer(...args);
    };
    await until("it has looked", () => looks >= 2);
    if (startsAnew) {
      await rig.close();
      rig = await openRig(dir, { clock: moving });
    }
    for (const hours of [26, 2]) {
      aheadMs += hours * 3_600_000;
      await rig.streams.enforceRetention();
    }
    const total = 343;
    if (startsAnew) await rig.analytics.start();
    else await rig.streams.createStream({ name: OUTPUT, shards: 1, retentionHours: 24 });
    await until("all are told of", () => status().records + status().trimmed >= total);
    await until("it runs", () => status().lastError === undefined);
    assert.equal(status().records + status().trimmed, total);
    assert.ok(status().records >= 143, `${status().records} read`);
    assert.ok(status().trimmed >= 100, `${status().trimmed} trimmed`);
    const counted = /headwater_analytics_trimmed_total\{statement="tens"\} (\d+)/.exec(
      await rig.metrics.render(),
    );
    assert.equal(Number(counted?.[1]), status().trimmed);
  });
}

test("shards that expire unread while the output is missing are counted as trimmed", () =>
  shardsThatExpireUnread(false));

test("… also when they expire before a gateway that was started anew has looked", () =>
  shardsThatExpireUnread(true));

test("readings that the KPL packed count one by one", () =>
  inFolder(async (dir) => {
    const readings = madeUp(60, START_MS);
    const rig = await openRig(dir, { clock, shards: 1 });
    await rig.analytics.start();
    for (let i = 0; i < readings.length; i += 70) {
      const data = aggregate(readings.slice(i, i + 70).map(entryOf));
      await rig.streams.append(INPUT, [{ partitionKey: "pack", data }]);
    }
    await closing(rig, START_MS + 120_000);
    await settled(rig, readings, START_MS + 120_000);
    assert.equal(rig.analytics.status()[0]!.records, readings.length + 1);
  }));

test("a checkpoint put back from a backup: goes on where the reading had got to, and counts what it skips", () =>
  inFolder(async (dir) => {
    const file = join(dir, "analytics", "tens", "checkpoint");
    const readings = madeUp(120, START_MS);
    const first = await openRig(dir, { clock });
    await first.analytics.start();
    await first.put(readings.slice(0, 280));
    await until("read", () => first.analytics.status()[0]!.records === 280);
    await closing(first, START_MS + 60_000);
    // All of them: what is under way would else be among those that come later.
    const closed = await askDuckDb(readings.slice(0, 280), START_MS + 60_000 - DELAY_MS);
    await until("its windows are out", async () => (await results(first.streams)).length >= closed.length);
    await copyFile(file, `${file}.backup`);
    const atBackup = (await results(first.streams)).length;
    await reshard(first, 0);
    await first.put(readings.slice(280, 560));
    await closing(first, START_MS + 90_000);
    await until("more windows are out", async () => (await results(first.streams)).length > atBackup);
    const before = await results(first.streams);
    await first.close();
    const { records } = first.analytics.status()[0]!;

    await copyFile(`${file}.backup`, file);
    const second = await openRig(dir, { clock });
    await second.analytics.start();
    await until("it runs", () => second.analytics.status()[0]!.skipped > 0);
    const { skipped, state, lastError } = second.analytics.status()[0]!;
    assert.equal(state, "running");
    assert.equal(lastError, undefined);
    assert.ok(skipped <= records, `${skipped} of ${records}`);
    const told = `headwater_analytics_skipped_total{statement="tens"} ${skipped}\n`;
    assert.ok((await second.metrics.render()).includes(told), "the metrics tell of them, too");
    // What comes later has results again, none twice, and the old ones stand as they were.
    await second.put(readings.slice(700));
    await closing(second, START_MS + 300_000);
    await until("new windows are out", async () => (await results(second.streams)).length > before.length);
    const after = await results(second.streams);
    assert.deepEqual(
      before.filter((old) => !after.some((one) => JSON.stringify(one) === JSON.stringify(old))),
      [],
    );
    await second.close();

    const third = await openRig(dir, { clock });
    await third.analytics.start();
    await until("it runs on", () => third.analytics.status()[0]!.records > 0);
    assert.equal(third.analytics.status()[0]!.skipped, skipped);
  }));

test("a window that was closed since the checkpoint that was put back is not opened again by a late record", () =>
  inFolder(async (dir) => {
    const file = join(dir, "analytics", "tens", "checkpoint");
    /** Sensor and seconds after the start, of each window that is out. */
    const windows = async (rig: Rig): Promise<string[]> =>
      (await results(rig.streams)).map(({ sensor, window_start }) => {
        const seconds = (Date.parse(String(window_start)) - START_MS) / 1_000;
        return `${sensor} ${seconds}`;
      });
    const put = (rig: Rig, sensor: string, second: number): Promise<void> =>
      rig.put([{ sensor, timeMs: START_MS + second * 1_000 }]);

    const first = await openRig(dir, { clock, shards: 1 });
    await first.analytics.start();
    await put(first, "a", 1);
    await closing(first, START_MS + 15_000);
    await until("the first window is out", async () => (await windows(first)).length === 1);
    // It was written before that window could be seen.
    await copyFile(file, `${file}.early`);
    await put(first, "a", 61);
    await closing(first, START_MS + 85_000);
    const before = ["a 0", "closing 10", "a 60"];
    await until("windows up to 80 s are out", async () => (await windows(first)).length === 3);
    assert.deepEqual(await windows(first), before);
    await first.close();

    await copyFile(`${file}.early`, file);
    // A start that is ended before it has looked at what it skips leaves that to the next one.
    const ended = await openRig(dir, { clock });
    const openConsumer = ended.streams.openConsumer.bind(ended.streams);
    let closed: Promise<void> | undefined;
    ended.streams.openConsumer = (...args) => {
      closed = ended.analytics.close();
      return openConsumer(...args);
    };
    await ended.analytics.start();
    await closed;
    await ended.close();

    const second = await openRig(dir, { clock });
    // What stands behind the records that are skipped is still to be read: none of it makes another late.
    await put(second, "a", 125);
    await put(second, "a", 91);
    await second.analytics.start();
    const status = () => second.analytics.status()[0]!;
    await until("it runs", () => status().skipped === 2);
    await until("new windows are out", async () => (await windows(second)).includes("a 90"));
    const { records } = status();
    await put(second, "a", 62);
    await until("the late record is read", () => status().records === records + 1);
    assert.deepEqual(await windows(second), [...before, "a 90"]);
    assert.equal(status().late, 1);
  }));

test("a merged shard keeps the hold of the parent that ended first, until the child has taken it over", () => {
  const kin = [
    { shardId: "a", parents: [] },
    { shardId: "b", parents: [] },
    { shardId: "c", parents: ["a", "b"] },
    { shardId: "x", parents: [] },
  ].sort((one, other) => (one.shardId === "c" ? 1 : other.shardId === "c" ? -1 : 0));
  const watermark = new Watermark(0, 1_000);
  watermark.follow(["a", "b", "x"], kin, 0);
  watermark.seen("a", 100);
  watermark.seen("b", 500);
  watermark.seen("x", 900);
  watermark.advance(0);
  assert.equal(watermark.ms, 100);
  watermark.follow(["b", "x"], kin, 0);
  watermark.seen("b", 800);
  // Long after `a` would have been idle: what waits in `c` may still be as old as 100.
  for (const shardId of ["b", "x"]) watermark.active(shardId, 50_000);
  watermark.advance(50_000);
  assert.equal(watermark.ms, 100);
  watermark.follow(["x", "c"], kin, 50_000);
  watermark.advance(50_000);
  assert.equal(watermark.ms, 100);
  watermark.seen("c", 850);
  watermark.advance(50_000);
  assert.equal(watermark.ms, 850);
  assert.deepEqual([...watermark.maxTimes().keys()].sort(), ["c", "x"]);
});

test("a parent that was silent when it was closed holds nobody, one that was not does", () => {
  const createdMs = 2_000;
  /** What the watermark is when `b` is read further, `idleMs` being 1,000 and `a` having ended at `endedMs`. */
  const behind = (arrivedMs: number | undefined, closedMs: number, endedMs: number): number | undefined => {
    const kin = [
      { shardId: "a", parents: [], createdMs, closedMs },
      { shardId: "b", parents: [], closedMs },
      { shardId: "c", parents: ["a", "b"] },
    ];
    const watermark = new Watermark(0, 1_000);
    watermark.follow(["a", "b"], kin, 0);
    watermark.seen("b", 500);
    watermark.active("b", endedMs);
    if (arrivedMs !== undefined) {
      watermark.seen("a", 100);
      watermark.arrived("a", arrivedMs);
    }
    watermark.advance(endedMs);
    // To make the commit at its end may take longer than a shard may be silent.
    watermark.follow(["b"], kin, endedMs + 60_000);
    watermark.active("b", endedMs + 60_000);
    watermark.advance(endedMs + 60_000);
    return watermark.ms;
  };
  assert.equal(behind(5_001, 6_000, 0), 100);
  assert.equal(behind(5_000, 6_000, 0), 500);
  // A wall clock that was set back tells nothing.
  assert.equal(behind(9_000, 6_000, 0), 100);
  // Read to its tip, it was silent while it was open.
  assert.equal(behind(5_001, 6_000, 999), 100);
  assert.equal(behind(5_001, 6_000, 1_000), 500);
  // It never brought anything that counts.
  assert.equal(behind(undefined, 2_999, 999), undefined);
  assert.equal(behind(undefined, 3_000, 999), 500);
  assert.equal(behind(undefined, 2_999, 1_000), 500);
});

test("the child of a shard that has brought nothing yet is waited for, whatever the other parent brought", () => {
  const kin = [
    { shardId: "a", parents: [] },
    { shardId: "b", parents: [] },
    { shardId: "c", parents: ["a", "b"] },
  ];
  const watermark = new Watermark(0, 1_000);
  watermark.follow(["a", "b"], kin, 0);
  watermark.seen("b", 500);
  watermark.follow(["c"], kin, 0);
  watermark.advance(0);
  assert.equal(watermark.ms, undefined);
  watermark.seen("c", 90);
  watermark.advance(0);
  assert.equal(watermark.ms, 90);
});

test("a shard that ended and has no children to come does not hold the watermark back", () => {
  const watermark = new Watermark(0, 1_000);
  const kin = [
    { shardId: "a", parents: [] },
    { shardId: "b", parents: [] },
  ];
  watermark.follow(["a", "b"], kin, 0);
  watermark.seen("a", 100);
  watermark.seen("b", 500);
  watermark.advance(0);
  watermark.follow(["b"], [kin[1]!], 0);
  watermark.advance(0);
  assert.equal(watermark.ms, 500);
});

test("restored after the consumer went on to the children, their parents' event time is not forgotten", () => {
  const kin = [
    { shardId: "a", parents: [] },
    { shardId: "b", parents: ["a"] },
    { shardId: "c", parents: ["a"] },
  ];
  const watermark = new Watermark(0, 1_000);
  watermark.restore(90, new Map([["a", 100]]), new Map(), 0);
  watermark.follow(["b", "c"], kin, 0);
  watermark.seen("b", 700);
  watermark.advance(0);
  assert.equal(watermark.ms, 100);
});
