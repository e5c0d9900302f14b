/**
 * Event time of one statement: no record older than the watermark is expected any more.
 *
 *   watermark = min over the shards that are not idle of (their newest event time) − delay
 *
 * It never moves back. A shard that has brought nothing yet holds it back until it is idle; when all
 * are idle it stands still, as in Flink.
 */
import type { ShardId } from "../streams/streams.ts";

interface ShardTime {
  maxMs: number | undefined;
  /** On the monotonic clock: when it last brought a record, or was not read to its tip. */
  activeMs: number;
}

export class Watermark {
  readonly #delayMs: number;
  readonly #idleMs: number;
  readonly #shards = new Map<ShardId, ShardTime>();
  #nowMs: number | undefined;

  /** @param nowMs monotonic */
  constructor(shards: readonly ShardId[], delayMs: number, idleMs: number, nowMs: number) {
    this.#delayMs = delayMs;
    this.#idleMs = idleMs;
    for (const shardId of shards) this.#shards.set(shardId, { maxMs: undefined, activeMs: nowMs });
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

  restore(ms: number | undefined, maxTimes: ReadonlyMap<ShardId, number>): void {
    this.#nowMs = ms;
    for (const [shardId, maxMs] of maxTimes) {
      const shard = this.#shards.get(shardId);
      if (shard !== undefined) shard.maxMs = maxMs;
    }
  }

  /** A record of this shard, late or not. */
  seen(shardId: ShardId, timeMs: number): void {
    const shard = this.#shards.get(shardId);
    if (shard !== undefined && (shard.maxMs === undefined || timeMs > shard.maxMs)) shard.maxMs = timeMs;
  }

  /** The shard brought something, also if nothing that could be decoded. @param nowMs monotonic */
  active(shardId: ShardId, nowMs: number): void {
    const shard = this.#shards.get(shardId);
    if (shard !== undefined) shard.activeMs = nowMs;
  }

  /** Call once the batch is merged. @returns true when it moved. @param nowMs monotonic */
  advance(nowMs: number): boolean {
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
