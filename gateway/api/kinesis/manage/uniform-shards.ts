/**
 * The way from the shards that a stream has to shards of equal ranges, one split or merge at a time.
 * Each step is planned from what is there, so that a call which ended half way, by a crash or a full
 * disk, is finished by the next one. There are never more shards than before or afterwards, whichever is more.
 */
import type { ShardDescription } from "../../../streams/streams.ts";

export type OpenShard = Pick<ShardDescription, "shardId" | "hashFrom" | "hashTo">;

export type ReshardStep =
  | { readonly do: "split"; readonly shardId: string; readonly at: bigint }
  | { readonly do: "merge"; readonly shardId: string; readonly adjacentShardId: string };

const HASH_SPACE = 1n << 128n;
/** In the place of the name of a shard that a step made: whoever wants to know has to look. */
const NAMELESS = "";
/**
 * A border this near to where it should be may stay: a third of the hash space is no whole number,
 * so twice a sixth of it misses by one, and nobody gains from a shard of one hash.
 */
const NEAR = 1n << 64n;

/** Undefined when the shards are equal already. `open` covers all hashes. */
export function nextStepToUniform(open: readonly OpenShard[], count: number): ReshardStep | undefined {
  const shards = [...open].sort((a, b) => (a.hashFrom < b.hashFrom ? -1 : 1));
  const there = shards.map((shard) => shard.hashFrom);
  const borders = bordersOf(there, count);
  const odd = firstMissing(there, borders);
  const at = borders[firstMissing(borders, there)];
  // Merging first, wherever both could be done, keeps the number of shards down.
  if (odd > 0 && (at === undefined || shards.length >= count)) {
    return {
      do: "merge",
      shardId: shards[odd - 1]!.shardId,
      adjacentShardId: shards[odd]!.shardId,
    };
  }
  if (at === undefined) return undefined;
  const shard = shards.findLast((candidate) => candidate.hashFrom < at)!;
  return { do: "split", shardId: shard.shardId, at };
}

/** What is open after a step. What it made has no name yet. */
export function afterStep(open: readonly OpenShard[], step: ReshardStep): OpenShard[] {
  if (step.do === "split") {
    return open.flatMap((shard) => {
      if (shard.shardId !== step.shardId) return shard;
      const { hashFrom, hashTo } = shard;
      return [
        { shardId: NAMELESS, hashFrom, hashTo: step.at - 1n },
        { shardId: NAMELESS, hashFrom: step.at, hashTo },
      ];
    });
  }
  const upper = open.find(({ shardId }) => shardId === step.adjacentShardId)!;
  return open.flatMap((shard) => {
    if (shard === upper) return [];
    if (shard.shardId !== step.shardId) return shard;
    return { shardId: NAMELESS, hashFrom: shard.hashFrom, hashTo: upper.hashTo };
  });
}

/** Whether it is one of shards that have names. */
export function isNamed(step: ReshardStep): boolean {
  return step.shardId !== NAMELESS && (step.do === "split" || step.adjacentShardId !== NAMELESS);
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
 * Where the first of `these` stands that is not among `those`; -1 when all are. Both rise. Not by a Set:
 * V8 hashes a bigint by its lower 64 bits, and those of equal ranges are all the same.
 */
function firstMissing(these: readonly bigint[], those: readonly bigint[]): number {
  let at = 0;
  return these.findIndex((one) => {
    while (at < those.length && those[at]! < one) at++;
    return those[at] !== one;
  });
}
