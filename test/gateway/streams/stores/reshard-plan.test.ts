/** Splits and merges as one change leave what they leave one after the other. */
import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { equalRanges, ShardMap, type ShardRange } from "../../../../gateway/streams/shard-map.ts";
import { planReshard } from "../../../../gateway/streams/stores/reshard-plan.ts";
import { MAX_HASH, type ReshardStep } from "../../../../gateway/streams/streams.ts";

const mapOf = (count: number): ShardMap =>
  new ShardMap(equalRanges(count).map((range, index) => ({ ...range, index })));

test("steps taken at once leave the shards, names and parents that they leave one after the other", () => {
  // Few borders, so that many are made and removed again.
  const hashes = fc.array(fc.bigInt({ min: 1n, max: 24n }), { minLength: 1, maxLength: 40 });
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 6 }), hashes, (count, places) => {
      const steps: ReshardStep[] = [];
      const borders = new Set(equalRanges(count).map(({ hashFrom }) => hashFrom));
      for (const place of places) {
        const at = (MAX_HASH / 24n) * place;
        steps.push({ do: borders.has(at) ? "merge" : "split", at });
        if (!borders.delete(at)) borders.add(at);
      }
      let map = mapOf(count);
      const made: unknown[] = [];
      const closed = new Set<number>();
      for (const step of steps) {
        const one = planReshard("s", map, [step], count + made.length);
        made.push(...one.made);
        for (const index of one.closed) closed.add(index);
        map = one.map;
      }
      const all = planReshard("s", mapOf(count), steps, count);
      assert.deepEqual(all.made, made);
      assert.deepEqual(all.closed, closed);
      // It refuses ranges that do not join up.
      assert.deepEqual(all.map.ranges, new ShardMap(map.ranges).ranges);
      const open = all.map.ranges.map(({ hashFrom }) => hashFrom);
      assert.deepEqual(new Set(open), borders);
      for (const { index, hashFrom, hashTo, parents } of all.made) {
        for (const parent of parents) assert.ok(parent < index && closed.has(parent));
        assert.ok(hashFrom <= hashTo);
      }
      // Whoever counts on from the newest shard finds it open.
      assert.ok(all.map.ranges.some(({ index }: ShardRange) => index === count + made.length - 1));
    }),
  );
});

test("a step that does not fit what those before it left refuses all", () => {
  const half = MAX_HASH / 2n + 1n;
  const split: ReshardStep = { do: "split", at: half };
  const merge: ReshardStep = { do: "merge", at: half };
  const plan = (count: number, ...steps: ReshardStep[]) => planReshard("s", mapOf(count), steps, count);
  const refused = { code: "BAD_RESHARD" };
  assert.equal(plan(1, split, merge).map.size, 1);
  assert.throws(() => plan(1, split, split), refused);
  assert.throws(() => plan(1, split, merge, merge), refused);
  assert.throws(() => plan(1, merge), refused);
  assert.throws(() => plan(2, { do: "merge", at: 0n }), refused);
  assert.throws(() => plan(2, { do: "split", at: 0n }), refused);
  assert.throws(() => plan(4_096, { do: "split", at: 5n }, merge), refused);
  assert.equal(plan(4_096, merge, { do: "split", at: 5n }).map.size, 4_096);
  assert.throws(() => plan(1), /broken invariant/);
});
