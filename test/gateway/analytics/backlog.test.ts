/** A backlog is read far faster than it came: windows and shards behave otherwise than when records come one by one. */
import assert from "node:assert/strict";
import test from "node:test";
import { Watermark } from "../../../gateway/analytics/watermark.ts";
import {
  askDuckDb,
  contents,
  difference,
  entryOf,
  handClock,
  INPUT,
  inFolder,
  OUTPUT,
  openRig,
  type Reading,
  results,
  START_MS,
  shardsOf,
  until,
  watermarkOf,
} from "./analytics-rig.ts";

test("a backlog of shards of which one is fuller than another, and a third is empty, is read with few windows open", () =>
  inFolder(async (dir) => {
    const shardOf = await shardsOf(dir);
    const names = Array.from({ length: 6 }, (_, i) => `sensor/${i}`);
    const busy = names[0]!;
    const quiet = names.find((name) => shardOf(name) !== shardOf(busy))!;
    const readings: Reading[] = [];
    for (let second = 0; second < 6_000; second++) {
      const timeMs = START_MS + second * 1_000;
      readings.push({ sensor: busy, timeMs, temperature: second });
      if (second % 10 === 0) readings.push({ sensor: quiet, timeMs, temperature: 1 });
    }
    const clock = handClock();
    clock.advance(6_000_000);
    const rig = await openRig(dir, { clock, maxGroups: 300, idleSeconds: 30 });
    for (let at = 0; at < readings.length; at += 50) await rig.put(readings.slice(at, at + 50));
    await rig.analytics.start();
    await until("as much is read as may wait for the empty shard", () => {
      const { records, state, lastError } = rig.analytics.status()[0]!;
      assert.equal(state, "running", lastError);
      return records > 100;
    });
    assert.deepEqual(await results(rig.streams), []);
    clock.advance(31_000);
    const expected = await askDuckDb(readings, watermarkOf(readings, shardOf));
    assert.ok(expected.length > 1_000, `${expected.length} windows`);
    await until("all windows", async () => {
      const { state, lastError } = rig.analytics.status()[0]!;
      assert.equal(state, "running", lastError);
      return (await contents(rig.streams, OUTPUT)).length >= expected.length;
    });
    assert.equal(difference(await results(rig.streams), expected), undefined);
    assert.equal(rig.analytics.status()[0]!.late, 0);
    await rig.close();
  }));

/** @param isKnown the silent shard's record was read before the statement was stopped, and the backlog came */
const besideSilentShard = (isKnown: boolean): Promise<void> =>
  inFolder(async (dir) => {
    const clock = handClock();
    const open = () => openRig(dir, { clock, maxGroups: 300, idleSeconds: 30, shards: 2 });
    let rig = await open();
    const [quiet, busy] = rig.streams.describe(INPUT).shardList;
    const readings: Reading[] = [];
    const put = async (hash: bigint, ...some: Reading[]): Promise<void> => {
      readings.push(...some);
      const entries = some.map((reading) => ({ ...entryOf(reading), explicitHash: hash }));
      await rig.streams.append(INPUT, entries);
    };
    const at = (sensor: string, second: number): Reading => ({ sensor, timeMs: START_MS + second * 1_000 });
    await put(quiet!.hashFrom, at("quiet", 0));
    if (isKnown) {
      await rig.analytics.start();
      await until("it is read", () => rig.analytics.status()[0]!.records === 1);
      await rig.close();
      rig = await open();
    }
    for (let second = 0; second < 6_000; second += 50) {
      await put(busy!.hashFrom, ...Array.from({ length: 50 }, (_, i) => at("busy", second + i)));
      clock.advance(50_000);
    }
    await rig.streams.mergeShards(INPUT, quiet!.shardId, busy!.shardId);
    await put(0n, at("quiet", 6_000), at("busy", 6_015));
    const expected = await askDuckDb(readings, START_MS + 6_010_000);
    await rig.analytics.start();
    await until("all windows", async () => {
      const { state, lastError } = rig.analytics.status()[0]!;
      assert.equal(state, "running", lastError);
      return (await contents(rig.streams, OUTPUT)).length >= expected.length;
    });
    assert.equal(difference(await results(rig.streams), expected), undefined);
    assert.equal(rig.analytics.status()[0]!.late, 0);
    await rig.close();
  });

test("a shard that was silent when it was merged does not keep the windows of the other's backlog open", () =>
  besideSilentShard(false));

test("… also when its last record was read before the statement was stopped", () => besideSilentShard(true));

test("a shard with a backlog is not idle, however long the others take to be read", () =>
  inFolder(async (dir) => {
    const clock = handClock();
    clock.advance(3_600_000);
    const rig = await openRig(dir, { clock, idleSeconds: 10 });
    const names = Array.from({ length: 6 }, (_, i) => `sensor/${i}`);
    const readings: Reading[] = [];
    // Of one in ten there are ten times as many, so that a read brings less of its time.
    for (let tenth = 0; tenth < 30_000; tenth++) {
      const timeMs = START_MS + tenth * 100;
      readings.push({ sensor: names[0]!, timeMs, temperature: tenth, note: "x".repeat(40) });
      if (tenth % 10 === 0) {
        for (const sensor of names.slice(1)) readings.push({ sensor, timeMs, temperature: tenth });
      }
    }
    for (let at = 0; at < readings.length; at += 500) await rig.put(readings.slice(at, at + 500));
    const { streams } = rig;
    const read = streams.read.bind(streams);
    // As from a slow disk: a round of three shards takes longer than any may be silent.
    streams.read = (...place) => {
      if (place[0] === INPUT) clock.advance(5_000);
      return read(...place);
    };
    await rig.analytics.start();
    await until("all is read", () => rig.analytics.status()[0]!.records === readings.length);
    assert.equal(rig.analytics.status()[0]!.late, 0);
    await rig.close();
  }));

test("a shard whose backlog begins with what cannot be decoded is waited for, as what stands behind it may be better", () =>
  inFolder(async (dir) => {
    const clock = handClock();
    clock.advance(3_600_000);
    const rig = await openRig(dir, { clock, idleSeconds: 10, shards: 2 });
    const [one, other] = rig.streams.describe(INPUT).shardList;
    const put = (hash: bigint, entry: { partitionKey: string; data: Buffer }) =>
      rig.streams.append(INPUT, [{ ...entry, explicitHash: hash }]);
    // One a read.
    for (let i = 0; i < 5; i++) {
      await put(one!.hashFrom, { partitionKey: "garbage", data: Buffer.alloc(1_000_000, "x") });
    }
    await put(one!.hashFrom, entryOf({ sensor: "behind it", timeMs: START_MS }));
    await put(other!.hashFrom, entryOf({ sensor: "ahead", timeMs: START_MS + 1_000_000 }));
    const { streams } = rig;
    const read = streams.read.bind(streams);
    streams.read = (...place) => {
      if (place[0] === INPUT) clock.advance(5_000);
      return read(...place);
    };
    await rig.analytics.start();
    await until("all is read", () => rig.analytics.status()[0]!.records === 7);
    const { late, rejected } = rig.analytics.status()[0]!;
    assert.deepEqual([late, rejected], [0, 5]);
    await rig.close();
  }));

test("a start waits for silent shards from when it begins to read, however long it took to get there", () =>
  inFolder(async (dir) => {
    const shardOf = await shardsOf(dir);
    const names = Array.from({ length: 6 }, (_, i) => `sensor/${i}`);
    const one = names[0]!;
    const other = names.find((name) => shardOf(name) !== shardOf(one))!;
    const at = (sensor: string, seconds: number): Reading => ({ sensor, timeMs: START_MS + seconds * 1_000 });
    const clock = handClock();
    // As where the disk, or a cluster, takes its time.
    const rig = await openRig(dir, { clock, idleSeconds: 30, onStep: () => clock.advance(20_000) });
    await rig.put([at(one, 40)]);
    await rig.analytics.start();
    await until("read", () => rig.analytics.status()[0]!.records === 1);
    await rig.put([at(other, 20)]);
    await until("read", () => rig.analytics.status()[0]!.records === 2);
    assert.equal(rig.analytics.status()[0]!.late, 0);
    await rig.close();
  }));

test("the slowest of some shards is where the oldest of them stands, but for those that are idle", () => {
  const watermark = new Watermark(0, 1_000);
  watermark.follow(["a", "b", "c", "d"], [], 0);
  watermark.seen("a", 300);
  watermark.seen("b", 200);
  watermark.seen("c", 100);
  for (const shardId of ["a", "b", "d"]) watermark.active(shardId, 1);
  assert.equal(watermark.slowestMs(["a", "b", "c"], 999), 100);
  assert.equal(watermark.slowestMs(["a", "b", "c"], 1_000), 200);
  assert.equal(watermark.slowestMs(["a"], 1_000), 300);
  // One that has brought nothing may bring anything.
  assert.equal(watermark.slowestMs(["a", "d"], 1_000), Number.NEGATIVE_INFINITY);
  assert.equal(watermark.slowestMs(["a", "d"], 1_001), Number.POSITIVE_INFINITY);
  assert.deepEqual([watermark.isBeyond("b", 199), watermark.isBeyond("b", 200)], [true, false]);
  assert.equal(watermark.isBeyond("d", 0), false);
});
