import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { ColumnBatch, measureKind } from "../../../gateway/analytics/columns.ts";
import { PartialsEngine } from "../../../gateway/analytics/engines/duckdb-partials.ts";
import { maxGroupsOf } from "../../../gateway/analytics/open-analytics.ts";
import { Panes, StateFullError, sumOf } from "../../../gateway/analytics/panes.ts";
import { resultFrames } from "../../../gateway/analytics/results.ts";
import type { Column } from "../../../gateway/analytics/sql/plan.ts";
import { Watermark } from "../../../gateway/analytics/watermark.ts";
import { decodeFrame } from "../../../protocol/frame.ts";

const COLUMNS: Column[] = [
  { name: "d", type: "DOUBLE", notNull: false },
  { name: "i", type: "BIGINT", notNull: false },
];

test("where batches begin and end does not change a result by more than two units in the last place", async () => {
  const engine = new PartialsEngine();
  await engine.start();
  const partials = await engine.prepare("b", ["double", "integer"]);
  const aggregate = async (values: readonly number[], batchRows: number) => {
    const panes = new Panes(10);
    const batch = new ColumnBatch(COLUMNS);
    for (let at = 0; at < values.length; at += batchRows) {
      for (const value of values.slice(at, at + batchRows))
        batch.add('["k"]', ["k"], 0, [value, 2 ** 53 - 1]);
      await panes.merge(await partials.aggregate(batch));
      batch.clear();
    }
    return panes.close(1, 1)[0]!.measures;
  };
  let seed = 7;
  const values = Array.from({ length: 5_000 }, () => {
    seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
    return (seed / 2 ** 32 - 0.3) * 10 ** (seed % 9);
  });
  const exact = Number(sumOf((await aggregate(values, 5_000))[0]!));
  for (const batchRows of [1_000, 2_048, 2_049, 97]) {
    const [double, integer] = await aggregate(values, batchRows);
    assert.ok(Math.abs(Number(sumOf(double!)) - exact) <= 2 * Number.EPSILON * Math.abs(exact));
    assert.equal(sumOf(integer!), 5_000n * (2n ** 53n - 1n), "integers are exact beyond 64 bits of doubles");
    assert.equal(double!.min, Math.min(...values));
    assert.equal(double!.max, Math.max(...values));
  }
  partials.close();
  engine.close();
});

test("nulls are passed over, also at the borders of chunks and words", async () => {
  const engine = new PartialsEngine();
  await engine.start();
  const partials = await engine.prepare("b", ["double", "integer"]);
  for (const rows of [1, 63, 64, 65, 2_047, 2_048, 2_049, 4_100]) {
    const batch = new ColumnBatch(COLUMNS);
    for (let row = 0; row < rows; row++)
      batch.add("[1]", [1], 10, [row % 3 === 0 ? null : row, row === rows - 1 ? 5 : null]);
    const [group] = await partials.aggregate(batch);
    const present = Array.from({ length: rows }, (_, row) => row).filter((row) => row % 3 !== 0);
    assert.equal(group!.rows, rows);
    assert.equal(group!.measures[0]!.count, present.length);
    assert.equal(
      group!.measures[0]!.sum,
      present.reduce((sum, row) => sum + row, 0),
    );
    assert.deepEqual(group!.measures[1], { count: 1, sum: 5n, min: 5, max: 5 });
  }
  partials.close();
  engine.close();
});

const partial = (key: string) => ({
  keyName: JSON.stringify([key]),
  key: [key],
  paneMs: 0,
  rows: 1,
  measures: [],
});

test("as many rows as one query takes fit into the engine's memory, each of another key and of many measures", async () => {
  const engine = new PartialsEngine();
  await engine.start();
  const columns = Array.from(
    { length: 60 },
    (_, i): Column => ({ name: `c${i}`, type: "DOUBLE", notNull: false }),
  );
  const partials = await engine.prepare("b", columns.map(measureKind));
  const batch = new ColumnBatch(columns);
  const values = columns.map((_, i) => i);
  const rows = partials.rowsAtOnce + 5;
  // 70,000 rows of 60 measures at once were too many.
  assert.ok(rows < 20_000, `${rows} rows`);
  for (let i = 0; i < rows; i++) batch.add(`[${i}]`, [i], 0, values);
  const first = await partials.aggregate(batch);
  const rest = await partials.aggregate(batch, partials.rowsAtOnce);
  assert.deepEqual([first.length, rest.length], [rows - 5, 5]);
  assert.equal(new Set([...first, ...rest].map(({ keyName }) => keyName)).size, rows);
  partials.close();
  engine.close();
});

test("what many statements aggregate at the same time fits into the engine's memory", async () => {
  const engine = new PartialsEngine();
  await engine.start();
  const columns = Array.from(
    { length: 15 },
    (_, i): Column => ({ name: `c${i}`, type: "DOUBLE", notNull: false }),
  );
  const values = columns.map((_, i) => i);
  const batch = new ColumnBatch(columns);
  for (let i = 0; i < 60_000; i++) batch.add(`[${i}]`, [i], 0, values);
  const tables = Array.from({ length: 12 }, (_, i) => `b${i}`);
  const all = await Promise.all(tables.map((table) => engine.prepare(table, columns.map(measureKind))));
  for (const partials of all) assert.ok(batch.rows <= partials.rowsAtOnce);
  const groups = await Promise.all(all.map(async (partials) => (await partials.aggregate(batch)).length));
  assert.deepEqual(new Set(groups), new Set([60_000]));
  for (const partials of all) partials.close();
  engine.close();
});

test("many measures leave room for fewer windows, so that memory is bounded", () => {
  const room = (count: number) => maxGroupsOf({ measures: Array<Column>(count).fill(COLUMNS[0]!) });
  assert.deepEqual([0, 1, 10, 20, 256].map(room), [100_000, 100_000, 100_000, 50_000, 3_906]);
});

test("a merge that does not fit changes nothing", async () => {
  const panes = new Panes(2);
  await panes.merge([partial("a")]);
  await assert.rejects(panes.merge([partial("a"), partial("b"), partial("c")]), StateFullError);
  assert.equal(panes.groups, 1);
  assert.equal(panes.all()[0]!.rows, 1);
});

test("keys of many characters fill the state, and make room when their windows close", async () => {
  const panes = new Panes(1_000, 50);
  const long = (letter: string) => partial(letter.repeat(16));
  await panes.merge([long("a"), long("b")]);
  await panes.merge([long("a"), long("b")]);
  await assert.rejects(panes.merge([long("c")]), StateFullError);
  assert.equal(panes.groups, 2);
  assert.equal(panes.close(1, 1).length, 2);
  await panes.merge([long("c"), long("d")]);
  const restored = new Panes(1_000, 50);
  await restored.restore(panes.all());
  await assert.rejects(restored.merge([long("e")]), StateFullError);
});

test("others have their turn while many windows are aggregated, merged, restored and cut into frames", async () => {
  const engine = new PartialsEngine();
  await engine.start();
  const partials = await engine.prepare("b", ["double", "integer"]);
  const batch = new ColumnBatch(COLUMNS);
  for (let i = 0; i < 40_000; i++) batch.add(`["k${i}"]`, [`k${i}`], 0, [i, i]);
  const turnsOf = async <T>(work: () => Promise<T>): Promise<{ turns: number; made: T }> => {
    let turns = 0;
    let watched = true;
    const watch = (): void => {
      turns++;
      if (watched) setImmediate(watch);
    };
    setImmediate(watch);
    const made = await work();
    watched = false;
    return { turns, made };
  };
  const found = await turnsOf(() => partials.aggregate(batch));
  assert.equal(found.made.length, 40_000);
  assert.ok(found.turns >= 20, `${found.turns} turns while they are aggregated`);
  const panes = new Panes(40_000);
  const merged = await turnsOf(() => panes.merge(found.made));
  assert.ok(merged.turns >= 20, `${merged.turns} turns while they are merged`);
  const restored = await turnsOf(() => new Panes(40_000).restore(panes.all()));
  assert.ok(restored.turns >= 10, `${restored.turns} turns while they are restored`);
  const records = panes.close(1, 1).map(({ key }) => ({
    key: String(key[0]),
    timeUs: 0,
    payload: Buffer.from("{}"),
  }));
  assert.equal(records.length, 40_000);
  const sink = { device: "analytics.x", stream: "o", epoch: 9n };
  const framed = await turnsOf(() => resultFrames(sink, 1n, 1, records));
  assert.ok(framed.turns >= 10, `${framed.turns} turns while they are cut into frames`);
  partials.close();
  engine.close();
});

test("the watermark never moves back, whatever comes when", () => {
  const step = fc.record({
    shard: fc.constantFrom("a", "b", "c"),
    timeMs: fc.nat(100_000),
    waitMs: fc.nat(40_000),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const watermark = new Watermark(5_000, 30_000);
      watermark.follow(["a", "b", "c"], [], 0);
      let nowMs = 0;
      let before = Number.NEGATIVE_INFINITY;
      for (const { shard, timeMs, waitMs } of steps) {
        nowMs += waitMs;
        watermark.seen(shard, timeMs);
        watermark.active(shard, nowMs);
        watermark.advance(nowMs);
        const after = watermark.ms ?? Number.NEGATIVE_INFINITY;
        assert.ok(after >= before);
        assert.ok(after <= Math.max(...watermark.maxTimes().values()) - 5_000);
        before = after;
      }
    }),
  );
});

test("a watermark that was restored is moved on, and not back", () => {
  const watermark = new Watermark(5_000, 30_000);
  watermark.restore(100_000, new Map([["a", 105_000]]), new Map(), 0);
  watermark.follow(["a"], [], 0);
  watermark.atLeast(99_999);
  assert.equal(watermark.ms, 100_000);
  watermark.atLeast(100_001);
  assert.equal(watermark.ms, 100_001);
  assert.equal(watermark.advance(0), false);
  assert.equal(watermark.ms, 100_001);
});

test("results are cut into frames that follow one another and hold everything in order", async () => {
  const payload = Buffer.alloc(1_000, "x");
  const records = Array.from({ length: 25_000 }, (_, i) => ({ key: "k", timeUs: i, payload }));
  const made = await resultFrames({ device: "analytics.x", stream: "o", epoch: 9n }, 5n, 1, records);
  const frames = made.map(decodeFrame);
  assert.deepEqual(
    frames.map((frame) => frame.sequence),
    frames.map((_, i) => 5n + BigInt(i)),
  );
  assert.equal(
    frames.reduce((sum, frame) => sum + frame.recordCount, 0),
    25_000,
  );
  assert.deepEqual(await resultFrames({ device: "d", stream: "o", epoch: 9n }, 5n, 1, []), []);
});
