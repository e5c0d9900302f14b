/**
 * Event time of one statement: no record older than the watermark is expected any more.
 *
 *   watermark = min over the shards that are not idle of (their newest event time) − delay
 *
 * It never moves back. A shard that has brought nothing yet holds it back until it is idle; when all
 * are idle it stands still, as in Flink.
 *
 * Shards come and go. A child begins at the event time of its parents, the oldest where there are
 * two; a shard that is read to its end keeps its hold until all its children have taken it over, as
 * their records come behind its own. Otherwise a faster shard would make them late. One that was silent
 * when it was closed holds nobody, as it would not have while it was open.
 */
import type { ShardId } from "../streams/streams.ts";

/** What is to be known of a shard to say who comes after whom. */
export interface ShardKin {
  readonly shardId: ShardId;
  readonly parents: readonly ShardId[];
  readonly createdMs?: number;
  readonly closedMs?: number | undefined;
}

interface ShardTime {
  maxMs: number | undefined;
  /** When its last record in time came, or else the shard itself; undefined while a start knows neither. */
  arrivedMs?: number | undefined;
  /** On the monotonic clock: when it last brought a record in time, or was not read to its tip. */
  activeMs: number;
}

export class Watermark {
  readonly #delayMs: number;
  readonly #idleMs: number;
  readonly #shards = new Map<ShardId, ShardTime>();
  #nowMs: number | undefined;
  /** On the monotonic clock: as of when it was last asked who is idle. */
  #judgedMs = Number.NEGATIVE_INFINITY;

  constructor(delayMs: number, idleMs: number) {
    this.#delayMs = delayMs;
    this.#idleMs = idleMs;
  }

  /** ms since 1970; undefined before the first record of every shard that counts. */
  get ms(): number | undefined {
    return this.#nowMs;
  }

  /** The newest event time of each shard that has brought one. */
  maxTimes(): Map<ShardId, number> {
    const times = new Map<ShardId, number>();
    for (const [shardId, { maxMs }] of this.#shards) if (maxMs !== undefined) times.set(shardId, maxMs);
    return times;
  }

  /** When the last record in time came to each shard, or the shard itself, as far as that is known. */
  arrivals(): Map<ShardId, number> {
    const times = new Map<ShardId, number>();
    for (const [shardId, { arrivedMs }] of this.#shards)
      if (arrivedMs !== undefined) times.set(shardId, arrivedMs);
    return times;
  }

  /** Call `follow` afterwards: shards may have gone since. @param nowMs monotonic */
  restore(
    ms: number | undefined,
    maxTimes: ReadonlyMap<ShardId, number>,
    arrivals: ReadonlyMap<ShardId, number>,
    nowMs: number,
  ): void {
    this.#nowMs = ms;
    for (const [shardId, maxMs] of maxTimes)
      this.#shards.set(shardId, { maxMs, arrivedMs: arrivals.get(shardId), activeMs: nowMs });
  }

  /** Moves it to `ms`, unless it is there already. */
  atLeast(ms: number): void {
    if (this.#nowMs === undefined || ms > this.#nowMs) this.#nowMs = ms;
  }

  /**
   * @param readable the shards that are read from now on
   * @param kin all shards that the stream still knows
   * @param nowMs monotonic
   */
  follow(readable: readonly ShardId[], kin: readonly ShardKin[], nowMs: number): void {
    const known = new Map(kin.map((shard) => [shard.shardId, shard]));
    for (const shardId of readable) {
      if (this.#shards.has(shardId)) continue;
      const { parents = [], createdMs: arrivedMs } = known.get(shardId) ?? {};
      this.#shards.set(shardId, { maxMs: this.#inherited(parents), arrivedMs, activeMs: nowMs });
    }
    const read = new Set(readable);
    const coming = comingShards(read, kin);
    const awaited = new Set(
      kin.filter(({ shardId }) => coming.has(shardId)).flatMap(({ parents }) => parents),
    );
    for (const [shardId, shard] of this.#shards) {
      if (read.has(shardId)) continue;
      const holds = awaited.has(shardId) && !this.#endedSilent(shard, known.get(shardId)?.closedMs);
      if (holds) shard.activeMs = Number.POSITIVE_INFINITY;
      else this.#shards.delete(shardId);
    }
  }

  /** In a backlog only its records tell, as it is read far faster than it came. What was done since it was read tells nothing. */
  #endedSilent({ activeMs, arrivedMs }: ShardTime, closedMs: number | undefined): boolean {
    if (this.#judgedMs - activeMs >= this.#idleMs) return true;
    return arrivedMs !== undefined && closedMs !== undefined && closedMs - arrivedMs >= this.#idleMs;
  }

  /** The oldest of the parents' times; undefined when one of them has brought nothing. */
  #inherited(parents: readonly ShardId[]): number | undefined {
    const known = parents.map((parent) => this.#shards.get(parent)).filter((shard) => shard !== undefined);
    if (known.length === 0 || known.some(({ maxMs }) => maxMs === undefined)) return undefined;
    return Math.min(...known.map(({ maxMs }) => maxMs!));
  }

  /** A record of this shard, late or not. */
  seen(shardId: ShardId, timeMs: number): void {
    const shard = this.#shards.get(shardId);
    if (shard !== undefined && (shard.maxMs === undefined || timeMs > shard.maxMs)) shard.maxMs = timeMs;
  }

  /** A record in time came to this shard, by the clock of arrivals. */
  arrived(shardId: ShardId, arrivedMs: number): void {
    const shard = this.#shards.get(shardId);
    if (shard !== undefined) shard.arrivedMs = arrivedMs;
  }

  /** The shard brought something that counts, or more waits in it. @param nowMs monotonic */
  active(shardId: ShardId, nowMs: number): void {
    const shard = this.#shards.get(shardId);
    if (shard !== undefined) shard.activeMs = nowMs;
  }

  /** The oldest event time of these shards, without those that are idle; -Infinity while one has brought none. @param nowMs monotonic */
  slowestMs(shardIds: Iterable<ShardId>, nowMs: number): number {
    let slowest = Number.POSITIVE_INFINITY;
    for (const shardId of shardIds) {
      const shard = this.#shards.get(shardId);
      if (shard === undefined || nowMs - shard.activeMs >= this.#idleMs) continue;
      slowest = Math.min(slowest, shard.maxMs ?? Number.NEGATIVE_INFINITY);
    }
    return slowest;
  }

  /** It has brought something later than this. */
  isBeyond(shardId: ShardId, timeMs: number): boolean {
    return (this.#shards.get(shardId)?.maxMs ?? Number.NEGATIVE_INFINITY) > timeMs;
  }

  /** Call once the batch is merged. @returns true when it moved. @param nowMs monotonic */
  advance(nowMs: number): boolean {
    this.#judgedMs = nowMs;
    let lowest: number | undefined;
    for (const { maxMs, activeMs } of this.#shards.values()) {
      if (nowMs - activeMs >= this.#idleMs) continue;
      if (maxMs === undefined) return false;
      lowest = Math.min(lowest ?? maxMs, maxMs);
    }
    if (lowest === undefined) return false;
    const next = lowest - this.#delayMs;
    if (this.#nowMs !== undefined && next <= this.#nowMs) return false;
    this.#nowMs = next;
    return true;
  }
}

/** The shards that will be read but may not be yet: an ancestor of theirs still is. */
export function comingShards(readable: ReadonlySet<ShardId>, kin: readonly ShardKin[]): Set<ShardId> {
  const coming = new Set<ShardId>();
  // A child's index is above its parents', so one pass from the oldest finds all.
  for (const { shardId, parents } of kin) {
    if (readable.has(shardId)) continue;
    if (parents.some((parent) => readable.has(parent) || coming.has(parent))) coming.add(shardId);
  }
  return coming;
}
