import assert from "node:assert/strict";
import { test } from "node:test";
import type { LoadResult } from "../../../bench/load/load.ts";
import { inTurns, middle, middleRatio } from "../../../bench/streams/turns.ts";

const at = (perSecond: number): LoadResult => ({
  perSecond,
  requests: 1,
  seconds: 1,
  p50Ms: 1,
  p99Ms: 1,
  serverCpuSecondsPerMillion: 1,
  generatorCores: 0,
});

test("loads run one after the other, round after round", async () => {
  const seen: string[] = [];
  const load = (name: string) => async () => {
    seen.push(name);
    await Promise.resolve();
    seen.push(`${name} done`);
    return at(seen.length);
  };
  const { a, b } = await inTurns({ a: load("a"), b: load("b") });
  const round = ["a", "a done", "b", "b done"];
  assert.deepEqual(seen, [...round, ...round, ...round, ...round, ...round]);
  assert.deepEqual(
    [a.map((one) => one?.perSecond), b.map((one) => one?.perSecond)],
    [
      [2, 6, 10, 14, 18],
      [4, 8, 12, 16, 20],
    ],
  );
});

test("a ratio is the median of the rounds' ratios, not that of the medians", () => {
  const these = [at(10), at(40), at(30)];
  const others = [at(10), at(10), at(60)];
  assert.equal(middle(these)?.perSecond, 30);
  assert.equal(middleRatio(these, others), 1);
});

test("a round that failed counts in no ratio", () => {
  assert.equal(middleRatio([at(10), undefined, at(30)], [undefined, at(1), at(10)]), 3);
  assert.equal(middle([undefined, at(7), undefined])?.perSecond, 7);
  assert.equal(middle([undefined, undefined, undefined]), undefined);
  assert.equal(middleRatio([at(1)], []), undefined);
});
