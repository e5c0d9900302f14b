/**
 * Notices what a stage never had because it could not work for longer than the retention: the records
 * of shards that expired meanwhile. A shard that is there tells by its horizon what retention took of
 * it (`ReadResult.trimmed`); one that has expired tells nothing any more.
 *
 * In memory: a stage looks at each of its tries, which come far closer together than a shard expires.
 */

type ShardId = string;
type Offset = number;

/** What is needed of a `StreamDescription`. */
interface Description {
  readonly streamId: string;
  readonly shardList: readonly {
    readonly shardId: ShardId;
    readonly parents: readonly ShardId[];
    readonly trimHorizon: Offset;
    readonly latest: Offset;
  }[];
}

interface Unread {
  readonly from: Offset;
  readonly to: Offset;
}

export class UnreadShards {
  #streamId: string | undefined;
  #unread = new Map<ShardId, Unread>();

  /**
   * Call at each try, before anything is read.
   * @param reached positions up to which the stage has done its work already, where it knows better than its consumer
   * @returns records that were unread at the last call, and whose shards are no more
   */
  look(
    { streamId, shardList }: Description,
    consumer: { positions(): ReadonlyMap<ShardId, Offset> },
    reached: ReadonlyMap<ShardId, Offset>,
  ): number {
    const before = streamId === this.#streamId ? this.#unread : undefined;
    const positions = consumer.positions();
    const unread = new Map<ShardId, Unread>();
    // Rising by index, so parents stand before the children that wait for them.
    for (const { shardId, parents, trimHorizon, latest } of shardList) {
      const isComing = parents.some((parent) => positions.has(parent) || unread.has(parent));
      if (!positions.has(shardId) && !isComing) continue;
      const from = positions.get(shardId) ?? before?.get(shardId)?.from ?? trimHorizon;
      unread.set(shardId, { from: Math.max(from, reached.get(shardId) ?? 0), to: latest });
    }
    const known = new Set(shardList.map(({ shardId }) => shardId));
    let missed = 0;
    for (const [shardId, { from, to }] of before ?? []) {
      if (!known.has(shardId)) missed += Math.max(0, to - from);
    }
    this.#streamId = streamId;
    this.#unread = unread;
    return missed;
  }

  /** The stage works, and reads on: nothing stays behind until it fails again. */
  clear(): void {
    this.#unread.clear();
  }
}
