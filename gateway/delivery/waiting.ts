/**
 * What a delivery has seen but not delivered: positions, counts and an age. It holds no records.
 * Shards come and go with the consumer's: `follow` takes the new ones in.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import type { Clock } from "../../runtime/clock.ts";
import { type Consumer, type Offset, type ShardId, ShardNews, type Streams } from "../streams/streams.ts";
import { payloadBytes, type Range } from "./range-reader.ts";

const READ_BYTES = 1_048_576;
/** Reads at the tip wait for nothing, there may be 4,096 shards, and the event loop is everybody's. */
const READS_A_TURN = 16;

interface ShardProgress {
  from: Offset;
  next: Offset;
  /** It is closed and `next` is its end. */
  ended: boolean;
  /** … and it is delivered up to there. */
  done: boolean;
}

export class Waiting {
  bytes = 0;
  firstArrivalMs: number | undefined;
  readonly #streams: Streams;
  readonly #consumer: Consumer;
  readonly #clock: Clock;
  readonly #shards = new Map<ShardId, ShardProgress>();
  readonly #news: ShardNews;
  #firstSeenMs = 0;

  constructor(streams: Streams, consumer: Consumer, clock: Clock) {
    this.#streams = streams;
    this.#consumer = consumer;
    this.#clock = clock;
    this.#news = new ShardNews(streams, consumer.stream, clock);
    this.follow();
  }

  /** Takes in the shards that the consumer may read by now; those that it is done with leave. */
  follow(): void {
    const readable = this.#consumer.shards;
    if (readable.length === this.#shards.size && readable.every((shardId) => this.#shards.has(shardId))) {
      return;
    }
    const positions = this.#consumer.positions();
    for (const shardId of this.#shards.keys()) {
      if (positions.has(shardId)) continue;
      this.#shards.delete(shardId);
      this.#news.leave(shardId);
    }
    for (const [shardId, from] of positions) {
      if (this.#shards.has(shardId)) continue;
      this.#shards.set(shardId, { from, next: from, ended: false, done: false });
      this.#news.add(shardId);
    }
  }

  /** A shard is read to its end: its children wait until that is delivered and checkpointed. */
  get ended(): boolean {
    for (const shard of this.#shards.values()) if (shard.ended && !shard.done) return true;
    return false;
  }

  /**
   * Reads on until `maxBytes` are waiting, the first of them for `maxMs`, or every shard's tip is reached: of many shards on
   * which records come all the time there is always one more to read. An old backlog fills its objects all the same.
   * @returns records that retention took first
   */
  async count(maxBytes: number, maxMs = Number.POSITIVE_INFINITY, signal?: AbortSignal): Promise<number> {
    let trimmed = 0;
    const goesOn = (): boolean =>
      this.bytes < maxBytes && this.#seenForMs() < maxMs && signal?.aborted !== true;
    for (let reads = 1; goesOn() && this.#news.due() > 0; reads++) {
      const shardId = this.#news.take();
      const shard = this.#shards.get(shardId)!;
      const budget = Math.min(READ_BYTES, maxBytes - this.bytes);
      if (reads % READS_A_TURN === 0) await nextTurn();
      const result = await this.#streams.read(this.#consumer.stream, shardId, shard.next, budget);
      // Behind what waits already it is within the range, and is counted when that is read again.
      if (shard.next === shard.from) {
        trimmed += result.trimmedRecords ?? result.trimmed;
        // Where a store leaves places out, more of them lie before what it gives: they hold nothing.
        const given = result.trimmed > 0 ? (result.parts[0]?.first ?? result.next) : shard.from;
        shard.from = Math.max(shard.from + result.trimmed, given);
      }
      for (const part of result.parts) {
        this.bytes += payloadBytes(part);
        this.#seen(part.arrivalMs);
      }
      result.release?.();
      shard.next = result.next;
      shard.ended = result.ended;
      this.#news.read(shardId, result);
    }
    return trimmed;
  }

  /** By the later of two clocks, so that a wall clock set back cannot hold an object for hours. */
  ageMs(): number {
    if (this.firstArrivalMs === undefined) return 0;
    const byArrival = this.#clock.nowUs() / 1_000 - this.firstArrivalMs;
    return Math.max(byArrival, this.#seenForMs());
  }

  #seenForMs(): number {
    return this.firstArrivalMs === undefined ? 0 : this.#clock.monotonicMs() - this.#firstSeenMs;
  }

  /** By shard; those without news are left out. */
  ranges(): Range[] {
    const ranges: Range[] = [];
    for (const [shardId, shard] of this.#shards) {
      if (shard.next > shard.from) ranges.push({ shardId, from: shard.from, to: shard.next });
    }
    return ranges.sort((a, b) => (a.shardId < b.shardId ? -1 : 1));
  }

  /** Everything before these is delivered, or was trimmed. */
  starts(): Map<ShardId, Offset> {
    return new Map([...this.#shards].map(([shardId, shard]) => [shardId, shard.from]));
  }

  /** How far each shard is read. */
  reached(): Map<ShardId, Offset> {
    return new Map([...this.#shards].map(([shardId, shard]) => [shardId, shard.next]));
  }

  /** What was waiting is delivered. */
  clear(): void {
    for (const shard of this.#shards.values()) {
      shard.from = shard.next;
      shard.done = shard.ended;
    }
    this.bytes = 0;
    this.firstArrivalMs = undefined;
  }

  /** Resolves when any shard has news, when shards come or go, after `maxMs`, or when `signal` aborts. */
  more(maxMs: number, signal: AbortSignal): Promise<void> {
    return this.#news.wait(this.#consumer, maxMs, signal);
  }

  close(): void {
    this.#news.close();
  }

  #seen(arrivalMs: number): void {
    if (this.firstArrivalMs === undefined) this.#firstSeenMs = this.#clock.monotonicMs();
    this.firstArrivalMs = Math.min(this.firstArrivalMs ?? arrivalMs, arrivalMs);
  }
}
