/** Any shards become equal ones, step by step, from wherever one begins. */
import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import {
  afterStep,
  isNamed,
  nextStepToUniform,
} from "../../../../../gateway/api/kinesis/manage/uniform-shards.ts";

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

/** @returns the shards afterwards, and how many there were at most */
function run(start: Shard[], count: number): { shards: Shard[]; peak: number; steps: number } {
  let shards = start;
  let peak = shards.length;
  for (let steps = 0; ; steps++) {
    assert.ok(steps <= start.length + count, "it comes to an end");
    const step = nextStepToUniform(shards, count);
    if (step === undefined) return { shards, peak, steps };
    assert.ok(isNamed(step));
    const told = afterStep(shards, step);
    const borders = shards.map((shard) => shard.hashFrom);
    const from = (id: string): bigint => shards.find((shard) => shard.shardId === id)!.hashFrom;
    if (step.do === "split") {
      const shard = shards.find(({ shardId }) => shardId === step.shardId)!;
      assert.ok(step.at > shard.hashFrom && step.at <= shard.hashTo);
      shards = shardsOf([...borders, step.at]);
    } else {
      assert.ok(from(step.shardId) < from(step.adjacentShardId));
      shards = shardsOf(borders.filter((border) => border !== from(step.adjacentShardId)));
    }
    const ranges = (of: readonly Omit<Shard, "shardId">[]) =>
      of.map(({ hashFrom, hashTo }) => [hashFrom, hashTo]);
    assert.deepEqual(ranges(told), ranges(shards));
    peak = Math.max(peak, shards.length);
  }
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

test("a step of 32,768 shards costs what so many more are than 512", () => {
  /** Of the processor, as others may have it in between. */
  const stepMs = (count: number, times: number): number => {
    const width = SPACE / BigInt(count);
    // Not by shardsOf: V8 hashes a bigint by its lower 64 bits, so that a Set of these takes minutes.
    const equal = Array.from({ length: count }, (_, i) => {
      const hashFrom = width * BigInt(i);
      return { shardId: `${i}`, hashFrom, hashTo: hashFrom + width - 1n };
    });
    const before = process.cpuUsage();
    for (let i = 0; i < times; i++) assert.equal(nextStepToUniform(equal, count * 2)?.do, "split");
    const { user, system } = process.cpuUsage(before);
    return (user + system) / 1_000 / times;
  };
  stepMs(512, 100);
  const few = stepMs(512, 300);
  const many = stepMs(32_768, 5);
  // 64 times as many: 64 times as long and some times more, as caches and collections have it (90 to 150 were
  // seen); or 4,096 times if each is looked for among all.
  assert.ok(many < 1_500 * few, `${few} ms, then ${many} ms`);
});
