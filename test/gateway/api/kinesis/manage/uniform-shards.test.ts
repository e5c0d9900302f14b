/** Any shards become equal ones, step by step, from wherever one begins. */
import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { stepsToUniform } from "../../../../../gateway/api/kinesis/manage/uniform-shards.ts";

const SPACE = 1n << 128n;

function bordersOf(borders: readonly bigint[]): bigint[] {
  return [...new Set([0n, ...borders])].sort((a, b) => (a < b ? -1 : 1));
}

/** @returns the borders afterwards, how many shards there were at most, and how many steps it took */
function run(start: readonly bigint[], count: number): { borders: bigint[]; peak: number; steps: number } {
  let borders = [...start];
  let peak = borders.length;
  const steps = stepsToUniform(borders, count);
  for (const { do: what, at } of steps) {
    assert.equal(borders.includes(at), what === "merge");
    assert.notEqual(at, 0n);
    borders = what === "split" ? bordersOf([...borders, at]) : borders.filter((border) => border !== at);
    peak = Math.max(peak, borders.length);
  }
  assert.deepEqual(stepsToUniform(borders, count), [], "the next look finds nothing to do");
  return { borders, peak, steps: steps.length };
}

test("any shards become equal ranges; there are never more than before or afterwards", () => {
  fc.assert(
    fc.property(
      fc.array(fc.bigInt({ min: 1n, max: SPACE - 1n }), { maxLength: 20 }),
      fc.integer({ min: 1, max: 24 }),
      (some, count) => {
        const start = bordersOf(some);
        const { borders, peak } = run(start, count);
        assert.equal(borders.length, count);
        assert.ok(peak <= Math.max(start.length, count), `${peak}`);
        for (const [i, from] of borders.entries()) {
          const off = ((borders[i + 1] ?? SPACE) - from) * BigInt(count) - SPACE;
          assert.ok(off < 1n << 72n && -off < 1n << 72n);
        }
      },
    ),
  );
});

test("doubling and halving touch every shard once, also where division leaves a rest", () => {
  for (const count of [1, 2, 3, 5, 7, 12]) {
    const width = SPACE / BigInt(count);
    const equal = Array.from({ length: count }, (_, i) => width * BigInt(i));
    assert.equal(run(equal, count).steps, 0);
    const doubled = run(equal, count * 2);
    assert.equal(doubled.steps, count);
    assert.equal(run(doubled.borders, count).steps, count);
  }
});

test("the way from 20,480 shards to 16,384 costs what so many more are than from 640 to 512", () => {
  /** Of the processor, as others may have it in between. */
  const planMs = (count: number, target: number, times: number): number => {
    const width = SPACE / BigInt(count);
    // Not by bordersOf: V8 hashes a bigint by its lower 64 bits, so that a Set of these takes minutes.
    const equal = Array.from({ length: count }, (_, i) => width * BigInt(i));
    const before = process.cpuUsage();
    for (let i = 0; i < times; i++) assert.ok(stepsToUniform(equal, target).length > target);
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
