/**
 * The way from the shards that a stream has to shards of equal ranges, one split or merge at a time.
 * Each step is planned from what is there, so that a call which ended half way, by a crash or a full
 * disk, is finished by the next one. There are never more shards than before or afterwards, whichever is more.
 */
import type { ShardDescription } from "../../streams/streams.ts";

type OpenShard = Pick<ShardDescription, "shardId" | "hashFrom" | "hashTo">;

export type ReshardStep =
  | { readonly do: "split"; readonly shardId: string; readonly at: bigint }
  | { readonly do: "merge"; readonly shardId: string; readonly adjacentShardId: string };

const HASH_SPACE = 1n << 128n;
/**
 * A border this near to where it should be may stay: a third of the hash space is no whole number,
 * so twice a sixth of it misses by one, and nobody gains from a shard of one hash.
 */
const NEAR = 1n << 64n;

/** Undefined when the shards are equal already. `open` covers all hashes. */
export function nextStepToUniform(open: readonly OpenShard[], count: number): ReshardStep | undefined {
  const shards = [...open].sort((a, b) => (a.hashFrom < b.hashFrom ? -1 : 1));
  const borders = bordersOf(shards, count);
  const wanted = new Set(borders);
  const odd = shards.findIndex((shard) => !wanted.has(shard.hashFrom));
  const there = new Set(shards.map((shard) => shard.hashFrom));
  const at = borders.find((border) => !there.has(border));
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

/** Where the ranges shall begin, rising from 0n. */
function bordersOf(shards: readonly OpenShard[], count: number): bigint[] {
  const borders: bigint[] = [];
  let at = 0;
  for (let i = 0; i < count; i++) {
    const exact = (HASH_SPACE / BigInt(count)) * BigInt(i);
    while (at < shards.length && shards[at]!.hashFrom + NEAR < exact) at++;
    const near = shards[at]?.hashFrom;
    borders.push(near !== undefined && near <= exact + NEAR ? near : exact);
  }
  return borders;
}
