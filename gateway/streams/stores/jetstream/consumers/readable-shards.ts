/** Which shards of a stream a consumer may read, by its positions: what came of a shard comes before what its children got. */
import type { Offset, ShardId } from "../../../streams.ts";
import { offsetOf } from "../log/entry.ts";
import type { ShardRecord } from "../log/shard-history.ts";
import { latestOf } from "../log/shard-places.ts";
import type { StreamTail } from "../log/stream-tail.ts";

export type Positions = Readonly<Record<ShardId, Offset>>;

export interface SortedShards {
  /** Nothing of them is left to read. */
  readonly done: ReadonlySet<ShardId>;
  readonly readable: ReadonlySet<ShardId>;
}

export class ReadableShards {
  readonly #tail: StreamTail;
  #shards: readonly ShardRecord[] = [];
  #positions: Positions = {};
  #sorted: SortedShards | undefined;

  constructor(tail: StreamTail) {
    this.#tail = tail;
  }

  /** The very same for the same positions, as long as no shard was split, merged or closed: there may be thousands. */
  of(positions: Positions): SortedShards {
    const { history, tip } = this.#tail;
    const { shards } = history;
    if (this.#sorted !== undefined && shards === this.#shards && positions === this.#positions) {
      return this.#sorted;
    }
    const done = new Set<ShardId>();
    const readable = new Set<ShardId>();
    let areEndsKnown = true;
    // Rising by index, so parents come before their children. One that expired has nothing left to read.
    for (const shard of shards) {
      areEndsKnown &&= (shard.closedAt ?? 0) <= tip;
      if (!shard.parents.every((one) => done.has(one) || !history.has(one))) continue;
      (this.#isDone(shard, positions) ? done : readable).add(shard.shardId);
    }
    this.#shards = shards;
    this.#positions = positions;
    // Where a shard ends is known exactly behind its closing only.
    this.#sorted = areEndsKnown ? { done, readable } : undefined;
    return { done, readable };
  }

  #isDone(shard: ShardRecord, positions: Positions): boolean {
    return shard.closedAt !== undefined && positionIn(positions, shard) >= latestOf(this.#tail, shard);
  }
}

/** A shard without one was made after the consumer: it is read from its very first record on. */
export function positionIn(positions: Positions, { shardId, openedAt }: ShardRecord): Offset {
  return positions[shardId] ?? offsetOf(openedAt + 1);
}

export function areSame(some: ReadonlySet<ShardId>, others: ReadonlySet<ShardId>): boolean {
  if (some === others) return true;
  return some.size === others.size && [...some].every((one) => others.has(one));
}
