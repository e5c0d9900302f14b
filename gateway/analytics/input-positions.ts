/**
 * Where a statement stands in its input: in the shards that it reads, and in those that it is
 * through with. Shards come and go as the consumer says; the checkpoint's file says how far.
 */
import type { Offset, ShardDescription, ShardId } from "../streams/streams.ts";
import { comingShards } from "./watermark.ts";

type Shard = Pick<ShardDescription, "shardId" | "parents" | "trimHorizon" | "latest">;

export class InputPositions {
  /** Of the shards that are read; the one that was read last stands last. */
  readonly open: Map<ShardId, Offset>;
  /** Shards that are read to their end, and wait for a checkpoint to say so. */
  readonly ended = new Set<ShardId>();
  /** Ends of the shards that the consumer is through with, as long as the stream knows them. */
  readonly #finished = new Map<ShardId, Offset>();

  constructor(open: ReadonlyMap<ShardId, Offset>, shards: readonly Shard[]) {
    this.open = new Map(open);
    for (const shard of finishedShards(open, shards)) this.#finished.set(shard.shardId, shard.latest);
  }

  /** Those of which more may come. */
  unended(): ShardId[] {
    return [...this.open.keys()].filter((shardId) => !this.ended.has(shardId));
  }

  /** For the file: a later start can tell by them whether the file is as new as the consumer. */
  all(): Map<ShardId, Offset> {
    return new Map([...this.#finished, ...this.open]);
  }

  moved(shardId: ShardId, next: Offset, ended: boolean): void {
    // To the end, so that none starves while others have a backlog.
    this.open.delete(shardId);
    this.open.set(shardId, next);
    if (ended) this.ended.add(shardId);
  }

  /** @param readable the consumer's positions. @returns the shards that have come and gone */
  follow(
    readable: ReadonlyMap<ShardId, Offset>,
    shards: readonly Shard[],
  ): { readonly come: ShardId[]; readonly gone: ShardId[] } {
    const come: ShardId[] = [];
    const gone: ShardId[] = [];
    for (const [shardId, position] of this.open) {
      if (readable.has(shardId)) continue;
      this.open.delete(shardId);
      this.ended.delete(shardId);
      this.#finished.set(shardId, position);
      gone.push(shardId);
    }
    for (const [shardId, position] of readable) {
      if (this.open.has(shardId)) continue;
      this.open.set(shardId, position);
      come.push(shardId);
    }
    if (come.length + gone.length > 0) {
      const known = new Set(shards.map(({ shardId }) => shardId));
      for (const shardId of this.#finished.keys()) if (!known.has(shardId)) this.#finished.delete(shardId);
    }
    return { come, gone };
  }
}

/** The records of a shard from `from` up to `to`, without that one. */
export interface Range {
  readonly shardId: ShardId;
  readonly from: Offset;
  readonly to: Offset;
}

/** What a checkpoint's file is worth beside the consumer's own checkpoint. */
export interface Comparison {
  readonly positions: Map<ShardId, Offset>;
  /** Records that the consumer is past and the file is not: the file is an older one, put back. */
  readonly skipped: number;
  /** Where they stand, as far as the log still holds them. */
  readonly ranges: readonly Range[];
  /** Records that the file is past and the log does not hold: the log lost its end. */
  readonly lost: number;
}

/**
 * Where to go on. The file is written before the consumer's checkpoint, so it is never behind,
 * unless somebody has put back an older one.
 * @param consumer positions of the shards that may be read
 */
export function compare(
  file: ReadonlyMap<ShardId, Offset>,
  consumer: ReadonlyMap<ShardId, Offset>,
  shards: readonly Shard[],
): Comparison {
  const positions = new Map(consumer);
  const ranges: Range[] = [];
  let lost = 0;
  const finished = new Set(finishedShards(consumer, shards));
  for (const shard of shards) {
    const { shardId, trimHorizon, latest } = shard;
    const past = finished.has(shard) ? latest : consumer.get(shardId);
    if (past === undefined) continue;
    const from = file.get(shardId);
    const behind = Math.max(from ?? 0, trimHorizon);
    // A gateway that saw none of a quiet shard's records puts its end further behind: nothing stands between.
    const to = Math.min(past, latest);
    if (behind < to) ranges.push({ shardId, from: behind, to });
    if (from === undefined || finished.has(shard) || from <= past) continue;
    lost += Math.max(0, from - latest);
    positions.set(shardId, Math.min(from, latest));
  }
  const skipped = ranges.reduce((sum, range) => sum + range.to - range.from, 0);
  return { positions, skipped, ranges, lost };
}

/** True when the consumer has read something, and so a file must be there. */
export function readBefore(consumer: ReadonlyMap<ShardId, Offset>, shards: readonly Shard[]): boolean {
  return compare(new Map(), consumer, shards).skipped > 0;
}

/** Neither read nor to be read: the consumer is through with them. */
function finishedShards(consumer: ReadonlyMap<ShardId, Offset>, shards: readonly Shard[]): Shard[] {
  const readable = new Set(consumer.keys());
  const coming = comingShards(readable, shards);
  return shards.filter(({ shardId }) => !readable.has(shardId) && !coming.has(shardId));
}
