/**
 * The way from the shards that a stream has to shards of equal ranges, by splits and merges, which a store takes as one change.
 * There are never more shards than before or afterwards, whichever is more.
 *
 *   borders that are there ─┐
 *                           ├→ steps: a border goes, a border comes
 *   borders that shall be ──┘
 */
import type { ReshardStep } from "../../../streams/streams.ts";

const HASH_SPACE = 1n << 128n;
/**
 * A border this near to where it should be may stay: a third of the hash space is no whole number,
 * so twice a sixth of it misses by one, and nobody gains from a shard of one hash.
 */
const NEAR = 1n << 64n;

/**
 * All steps, in their order; none when the shards are equal already.
 * @param there where the open shards begin, rising from 0n: they cover all hashes
 */
export function stepsToUniform(there: readonly bigint[], count: number): ReshardStep[] {
  const borders = bordersOf(there, count);
  const odd = missingIn(borders, there);
  const wanted = missingIn(there, borders);
  const steps: ReshardStep[] = [];
  let open = there.length;
  for (let merged = 0, split = 0; merged < odd.length || split < wanted.length; ) {
    // Merging first, wherever both could be done, keeps the number of shards down.
    const merges = merged < odd.length && (split === wanted.length || open >= count);
    steps.push(merges ? { do: "merge", at: odd[merged++]! } : { do: "split", at: wanted[split++]! });
    open += merges ? -1 : 1;
  }
  return steps;
}

/** Where the ranges shall begin, rising from 0n. @param there where they begin now, rising */
function bordersOf(there: readonly bigint[], count: number): bigint[] {
  const borders: bigint[] = [];
  const width = HASH_SPACE / BigInt(count);
  let at = 0;
  for (let i = 0; i < count; i++) {
    const exact = width * BigInt(i);
    while (at < there.length && there[at]! + NEAR < exact) at++;
    const near = there[at];
    borders.push(near !== undefined && near <= exact + NEAR ? near : exact);
  }
  return borders;
}

/**
 * Those of `these` that are not among `those`. Both rise. Not by a Set: V8 hashes a bigint by its lower
 * 64 bits, and those of equal ranges are all the same.
 */
function missingIn(those: readonly bigint[], these: readonly bigint[]): bigint[] {
  let at = 0;
  return these.filter((one) => {
    while (at < those.length && those[at]! < one) at++;
    return those[at] !== one;
  });
}
