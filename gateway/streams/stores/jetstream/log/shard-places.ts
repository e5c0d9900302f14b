/** Where shards begin and end, as far as a gateway can tell; what it has not taken yet it cannot know. */
import type { Offset, ShardId } from "../../../streams.ts";
import { offsetOf, sequenceOf } from "./entry.ts";
import type { ShardRecord } from "./shard-history.ts";
import type { StreamTail } from "./stream-tail.ts";

/** Of all shards: the oldest records that may be kept. */
export function beginnings(tail: StreamTail): Record<ShardId, Offset> {
  return Object.fromEntries(tail.history.shards.map((shard) => [shard.shardId, trimHorizonOf(tail, shard)]));
}

/** The oldest record of the shard that may be kept; the place of the next one where none is. */
export function trimHorizonOf(tail: StreamTail, shard: ShardRecord): Offset {
  return Math.min(offsetOf(Math.max(tail.firstSequence, shard.openedAt + 1)), latestOf(tail, shard));
}

/** Where a closed shard ends on every gateway. */
export function endOf({ closedAt }: ShardRecord): Offset {
  return offsetOf(closedAt ?? 0);
}

/**
 * How far a checkpoint may reach. Who read a closed shard before its last records were known here read to where it was
 * closed. Another gateway may have begun at a later end of the same log, and read a quiet shard up to there: so any
 * place between two messages will do that this gateway has taken.
 */
export function furthestOf(tail: StreamTail, shard: ShardRecord, offset: Offset): Offset {
  if (shard.closedAt !== undefined) return offsetOf(shard.closedAt);
  const isBetween = offset === offsetOf(sequenceOf(offset));
  return isBetween ? Math.max(latestOf(tail, shard), offsetOf(tail.tip + 1)) : latestOf(tail, shard);
}

/** Behind its newest record; of a closed shard, its end. */
export function latestOf(tail: StreamTail, shard: ShardRecord): Offset {
  const newest = Math.max(tail.ends.latest(shard.index), offsetOf(shard.openedAt + 1));
  const { closedAt } = shard;
  if (closedAt === undefined) return newest;
  // The list of streams tells of a closed shard sooner than its last records are here: which is the last one
  // is known only behind them.
  return tail.tip >= closedAt ? Math.min(newest, offsetOf(closedAt)) : offsetOf(closedAt);
}
