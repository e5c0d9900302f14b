import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { ColumnBatch } from "../../../gateway/analytics/columns.ts";
import { PartialsEngine } from "../../../gateway/analytics/engines/duckdb-partials.ts";
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
      panes.merge(await partials.aggregate(batch));
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

test("a merge that does not fit changes nothing", () => {
  const panes = new Panes(2);
  const partial = (key: string) => ({ key: [key], paneMs: 0, rows: 1, measures: [] });
  panes.merge([partial("a")]);
  assert.throws(() => panes.merge([partial("a"), partial("b"), partial("c")]), StateFullError);
  assert.equal(panes.groups, 1);
  assert.equal(panes.all()[0]!.rows, 1);
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

test("results are cut into frames that follow one another and hold everything in order", () => {
  const payload = Buffer.alloc(1_000, "x");
  const records = Array.from({ length: 25_000 }, (_, i) => ({ key: "k", timeUs: i, payload }));
  const frames = resultFrames({ device: "analytics.x", stream: "o", epoch: 9n }, 5n, 1, records).map(
    decodeFrame,
  );
  assert.deepEqual(
    frames.map((frame) => frame.sequence),
    frames.map((_, i) => 5n + BigInt(i)),
  );
  assert.equal(
    frames.reduce((sum, frame) => sum + frame.recordCount, 0),
    25_000,
  );
  assert.deepEqual(resultFrames({ device: "d", stream: "o", epoch: 9n }, 5n, 1, []), []);
});
