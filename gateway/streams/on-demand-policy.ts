/**
 * When a stream in on-demand mode gets more shards, and when fewer: a pure function of the measured
 * load. docs/design/0017-on-demand.md says why it comes to rest on steady traffic.
 *
 *   a shard takes 1 MiB/s and 1,000 records/s: its utilisation is the larger share of the two
 *
 *   0 ──────── mergeBelow ─────────────── splitAbove ──── 1 ───→
 *     two neighbours together: merge       one shard: split in the middle of its range
 */
import { SHARD_BYTES_PER_SECOND, SHARD_RECORDS_PER_SECOND } from "./limits.ts";
import type { ShardId } from "./streams.ts";

export interface ScalingRules {
  /** Merging stops here: AWS begins with as many. */
  readonly minShards: number;
  /** Splitting stops here. */
  readonly maxShards: number;
  readonly splitAbove: number;
  /** Below half of `splitAbove`, so that what was merged is not split again by the same traffic. */
  readonly mergeBelow: number;
  /** So many splits in a row may leave one child with nearly all of the load: then it is one key's. */
  readonly maxFutileSplits: number;
}

export const SCALING_RULES: ScalingRules = {
  minShards: 4,
  maxShards: 256,
  splitAbove: 0.7,
  mergeBelow: 0.3,
  maxFutileSplits: 3,
};

/** A child with more than this share of what both children get makes a split futile. */
const FUTILE_SHARE = 0.9;

export interface Load {
  readonly bytesPerSecond: number;
  readonly recordsPerSecond: number;
}

/** An open shard, as it was measured. */
export interface ShardLoad {
  readonly shardId: ShardId;
  readonly hashFrom: bigint;
  readonly hashTo: bigint;
  /** A mean over the last seconds; undefined while it is too young to say. */
  readonly recent: Load | undefined;
  /** The highest utilisation for long; undefined while it is too young to say. */
  readonly highest: number | undefined;
  /** Splits in a row that led to this shard and did not help. */
  readonly futileSplits: number;
}

export type Decision =
  | {
      readonly kind: "split";
      readonly shardId: ShardId;
      readonly startingHash: bigint;
      readonly reason: "bytes" | "records";
      readonly utilisation: number;
    }
  | {
      readonly kind: "merge";
      readonly shardId: ShardId;
      readonly adjacentShardId: ShardId;
      readonly reason: "cold";
      readonly utilisation: number;
    };

export function utilisationOf(load: Load): number {
  return Math.max(
    load.bytesPerSecond / SHARD_BYTES_PER_SECOND,
    load.recordsPerSecond / SHARD_RECORDS_PER_SECOND,
  );
}

/**
 * The one change that is most needed; undefined when none is. More shards come before fewer.
 * @param shards all open ones of a stream, in any order
 */
export function decide(
  shards: readonly ShardLoad[],
  rules: ScalingRules = SCALING_RULES,
): Decision | undefined {
  return hottest(shards, rules) ?? coldest(shards, rules);
}

function hottest(shards: readonly ShardLoad[], rules: ScalingRules): Decision | undefined {
  if (shards.length >= rules.maxShards) return undefined;
  let found: Decision | undefined;
  for (const { shardId, hashFrom, hashTo, recent, futileSplits } of shards) {
    if (recent === undefined || futileSplits >= rules.maxFutileSplits || hashTo === hashFrom) continue;
    const utilisation = utilisationOf(recent);
    if (utilisation <= Math.max(rules.splitAbove, found?.utilisation ?? 0)) continue;
    const byRecords = recent.recordsPerSecond / SHARD_RECORDS_PER_SECOND >= utilisation;
    const startingHash = hashFrom + (hashTo - hashFrom) / 2n + 1n;
    found = { kind: "split", shardId, startingHash, reason: byRecords ? "records" : "bytes", utilisation };
  }
  return found;
}

function coldest(shards: readonly ShardLoad[], rules: ScalingRules): Decision | undefined {
  if (shards.length <= rules.minShards) return undefined;
  const inOrder = [...shards].sort((a, b) => (a.hashFrom < b.hashFrom ? -1 : 1));
  let found: Decision | undefined;
  for (let i = 0; i + 1 < inOrder.length; i++) {
    const left = inOrder[i]!;
    const right = inOrder[i + 1]!;
    if (left.highest === undefined || right.highest === undefined) continue;
    // The two highest may not have come at the same time: the sum is never too small.
    const utilisation = left.highest + right.highest;
    if (utilisation >= (found?.utilisation ?? rules.mergeBelow)) continue;
    const { shardId } = left;
    found = { kind: "merge", shardId, adjacentShardId: right.shardId, reason: "cold", utilisation };
  }
  return found;
}

/**
 * How many futile splits in a row lead to each of two children, once both are measured.
 * @param parentFutile those that led to their parent
 */
export function futileSplits(parentFutile: number, one: Load, other: Load): { one: number; other: number } {
  const loads = [utilisationOf(one), utilisationOf(other)] as const;
  const sum = loads[0] + loads[1];
  const futile = (load: number): number => (sum > 0 && load >= FUTILE_SHARE * sum ? parentFutile + 1 : 0);
  return { one: futile(loads[0]), other: futile(loads[1]) };
}
