/**
 * Notices what a stage never had because it could not work for longer than the retention: the records
 * of shards that expired meanwhile. A shard that is there tells by its horizon what retention took of
 * it (`ReadResult.trimmed`); one that has expired tells nothing any more.
 *
 * So a stage looks at each of its tries, which come far closer together than a shard expires, and keeps
 * what it saw beside its totals: in one write with what it counts, so that no crash and no full disk
 * makes it count twice or not at all.
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

/** What a stage saw unread at a look. Plain JSON: it is kept in the stage's own file. */
export interface UnreadShards {
  readonly streamId: string;
  /** `to` is not included. How many records stand there is told where it is not their difference. */
  readonly shards: Record<ShardId, [from: Offset, to: Offset, records?: number | undefined]>;
}

export interface UnreadLook {
  /** Records that were unread at the look before, and whose shards are no more. */
  readonly missed: number;
  /** To be kept until the next look, or until the stage works; undefined when all is read. */
  readonly unread: UnreadShards | undefined;
}

/**
 * Call at each try, before anything is read.
 * @param before what the look before saw, unless the stage has worked since
 * @param reached positions up to which the stage has done its work already, where it knows better than its consumer;
 *   also in shards that are no more
 * @param recordsBetween how many stand from a place on and before another, as far as the store can tell
 */
export function lookForUnread(
  before: UnreadShards | undefined,
  { streamId, shardList }: Description,
  consumer: { positions(): ReadonlyMap<ShardId, Offset> },
  reached: ReadonlyMap<ShardId, Offset>,
  recordsBetween = (_shardId: ShardId, from: Offset, to: Offset): number => to - from,
): UnreadLook {
  const known = new Map(before?.streamId === streamId ? Object.entries(before.shards) : []);
  const positions = consumer.positions();
  const waiting = new Set<ShardId>();
  const shards: UnreadShards["shards"] = {};
  let missed = 0;
  const gone = new Map(known);
  // Rising by index, so parents stand before the children that wait for them.
  for (const { shardId, parents, trimHorizon, latest } of shardList) {
    gone.delete(shardId);
    const isRead = positions.has(shardId);
    if (!isRead && !parents.some((parent) => positions.has(parent) || waiting.has(parent))) continue;
    if (!isRead) waiting.add(shardId);
    const first = positions.get(shardId) ?? known.get(shardId)?.[0] ?? trimHorizon;
    const from = Math.max(first, reached.get(shardId) ?? 0);
    // Where a child begins is only known from the first look on.
    if (latest <= from && isRead) continue;
    const places = Math.max(0, latest - from);
    const records = recordsBetween(shardId, from, from + places);
    shards[shardId] = records === places ? [from, latest] : [from, latest, records];
  }
  for (const [shardId, [from, to, records = to - from]] of gone) {
    const left = to - Math.max(from, reached.get(shardId) ?? 0);
    if (left > 0) missed += left === to - from ? records : Math.round(records * (left / (to - from)));
  }
  const unread = Object.keys(shards).length > 0 ? { streamId, shards } : undefined;
  return { missed, unread };
}
