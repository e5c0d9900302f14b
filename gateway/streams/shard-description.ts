/** What a shard is, and how its records are counted. The face `streams.ts` gives these to everybody outside. */

/** `shardId-` and twelve digits, as Kinesis writes it. */
export type ShardId = string;
/**
 * Place of a record in its shard: rising, never reused; the store `local` counts them from 0 without
 * a gap, others may leave numbers out. A position is the offset that is read next.
 */
export type Offset = number;

/** From then on a shard begins at a hash, or none does any more. Whatever the shards are called, so that later steps may be about what earlier ones made. */
export interface ReshardStep {
  readonly do: "split" | "merge";
  /** Above 0n, to 2^128 - 1. */
  readonly at: bigint;
}

export interface ShardDescription {
  readonly shardId: ShardId;
  readonly index: number;
  /** Inclusive, 0n to 2^128 - 1. */
  readonly hashFrom: bigint;
  readonly hashTo: bigint;
  readonly createdMs: number;
  /** The shards it was split or merged from: none, one or two. They may have expired since. */
  readonly parents: readonly ShardId[];
  /** When it was split or merged, and no record of it arrived later; undefined while it is open. A closed shard takes none any more. */
  readonly closedMs: number | undefined;
  /** The oldest record still kept, and the place of the next one to come; of a closed shard, its end. */
  readonly trimHorizon: Offset;
  readonly latest: Offset;
  /** All places before it are given out, to records of this shard or to none: `latest` unless told, or beyond it. */
  readonly passed?: Offset;
  readonly storedBytes: number;
  readonly appendedRecords: number;
  /** Where a store counts them: `storedBytes` may be no more than its share of a stream's. */
  readonly appendedBytes?: number;
}
