/** Any shards become equal ones, step by step, from wherever one begins. */
import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { ShardRow, stepsToUniform } from "../../../../../gateway/api/kinesis/manage/uniform-shards.ts";

const SPACE = 1n << 128n;

interface Shard {
  shardId: string;
  hashFrom: bigint;
  hashTo: bigint;
}

function shardsOf(borders: readonly bigint[]): Shard[] {
  const from = [...new Set([0n, ...borders])].sort((a, b) => (a < b ? -1 : 1));
  return from.map((hashFrom, i) => ({ shardId: `${i}`, hashFrom, hashTo: (from[i + 1] ?? SPACE) - 1n }));
}

const bordersOf = (shards: readonly Shard[]): bigint[] => shards.map(({ hashFrom }) => hashFrom);

/** As a store does it, by names. @returns the shards afterwards, and how many there were at most */
function run(start: Shard[], count: number): { shards: Shard[]; peak: number; steps: number } {
  let shards = start;
  let peak = shards.length;
  let made = 0;
  const row = new ShardRow([...start].reverse());
  const steps = stepsToUniform(row.borders, count);
  for (const step of steps) {
    const named = row.named(step);
    const at = shards.findIndex(({ shardId }) => shardId === named.shardId);
    const closed = shards.slice(at, at + (named.do === "split" ? 1 : 2));
    const { hashFrom } = closed[0]!;
    const { hashTo } = closed.at(-1)!;
    if (named.do === "split") assert.ok(named.at > hashFrom && named.at <= hashTo);
    else assert.equal(closed[1]?.shardId, named.adjacentShardId);
    const ranges =
      named.do === "split"
        ? [[hashFrom, named.at - 1n] as const, [named.at, hashTo] as const]
        : [[hashFrom, hashTo] as const];
    const opened = ranges.map(([from, to]) => ({ shardId: `made-${made++}`, hashFrom: from, hashTo: to }));
    shards = shards.toSpliced(at, closed.length, ...opened);
    row.took(step, opened);
    peak = Math.max(peak, shards.length);
  }
  assert.deepEqual(row.borders, bordersOf(shards));
  assert.deepEqual(stepsToUniform(row.borders, count), [], "the next look finds nothing to do");
  return { shards, peak, steps: steps.length };
}

test("any shards become equal ranges; there are never more than before or afterwards", () => {
  fc.assert(
    fc.property(
      fc.array(fc.bigInt({ min: 1n, max: SPACE - 1n }), { maxLength: 20 }),
      fc.integer({ min: 1, max: 24 }),
      (borders, count) => {
        const start = shardsOf(borders);
        const { shards, peak } = run(start, count);
        assert.equal(shards.length, count);
        assert.ok(peak <= Math.max(start.length, count), `${peak}`);
        for (const { hashFrom, hashTo } of shards) {
          const off = (hashTo - hashFrom + 1n) * BigInt(count) - SPACE;
          assert.ok(off < 1n << 72n && -off < 1n << 72n);
        }
      },
    ),
  );
});

test("doubling and halving touch every shard once, also where division leaves a rest", () => {
  for (const count of [1, 2, 3, 5, 7, 12]) {
    const width = SPACE / BigInt(count);
    const equal = shardsOf(Array.from({ length: count }, (_, i) => width * BigInt(i)));
    assert.equal(run(equal, count).steps, 0);
    const doubled = run(equal, count * 2);
    assert.equal(doubled.steps, count);
    assert.equal(run(doubled.shards, count).steps, count);
  }
});

test("the way from 20,480 shards to 16,384 costs what so many more are than from 640 to 512", () => {
  /** Of the processor, as others may have it in between. */
  const planMs = (count: number, target: number, times: number): number => {
    const width = SPACE / BigInt(count);
    // Not by shardsOf: V8 hashes a bigint by its lower 64 bits, so that a Set of these takes minutes.
    const equal = Array.from({ length: count }, (_, i) => {
      const hashFrom = width * BigInt(i);
      return { shardId: `${i}`, hashFrom, hashTo: hashFrom + width - 1n };
    });
    const before = process.cpuUsage();
    for (let i = 0; i < times; i++) {
      const row = new ShardRow(equal);
      const steps = stepsToUniform(row.borders, target);
      assert.ok(steps.length > target);
      for (const step of steps) assert.ok(row.named(step).shardId);
    }
    const { user, system } = process.cpuUsage(before);
    return (user + system) / 1_000 / times;
  };
  planMs(640, 512, 100);
  const few = planMs(640, 512, 300);
  const many = planMs(20_480, 16_384, 5);
  // 32 times as many: so many times as long and some times more, as caches and collections have it; or 1,024 times
  // if each step is looked for among all.
  assert.ok(many < 400 * few, `${few} ms, then ${many} ms`);
});
