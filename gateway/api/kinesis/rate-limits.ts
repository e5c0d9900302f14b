/**
 * What AWS allows a shard, for streams with `limits: aws`: 1 MiB and 1,000 records a second in,
 * 5 calls and 2 MiB a second out, 5 iterators a second. Each is a bucket that holds one second's worth and fills evenly.
 * A shard that was idle for a while is as one that was never seen, so it is forgotten: memory is held
 * for the shards in use only.
 */
import type { Clock } from "../../../runtime/clock.ts";
import { SHARD_BYTES_PER_SECOND, SHARD_RECORDS_PER_SECOND } from "../../streams/streams.ts";

const OUT_BYTES = 2 * 1_048_576;
const OUT_CALLS = 5;
const ITERATORS = 5;
/** Longer than the deepest debt lasts: a record of 10 MiB is worth ten seconds. */
const FORGET_AFTER_MS = 15_000;

interface ShardBuckets {
  readonly inBytes: Bucket;
  readonly inRecords: Bucket;
  readonly outBytes: Bucket;
  readonly outCalls: Bucket;
  readonly iterators: Bucket;
  /** Resolves when the reads so far are done. */
  reads: Promise<void>;
}

const nothing = (): void => {};

export class ShardRates {
  readonly #clock: Clock;
  /** Two generations: what is in use moves to the young one, the old one goes as a whole. */
  #young = new Map<string, ShardBuckets>();
  #old = new Map<string, ShardBuckets>();
  #bornMs: number;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#bornMs = clock.monotonicMs();
  }

  /**
   * True when the shard may take a record of so many bytes, data and key; it then counts as taken.
   * @param streamId tells a stream from a later one of the same name
   */
  admitRecord(streamId: string, shardIndex: number, bytes: number): boolean {
    const nowMs = this.#clock.monotonicMs();
    const { inBytes, inRecords } = this.#bucketsOf(streamId, shardIndex, nowMs);
    if (!inRecords.has(1, nowMs) || !inBytes.has(bytes, nowMs)) return false;
    inRecords.take(1);
    inBytes.take(bytes);
    return true;
  }

  /** True when the shard may be read now. Tell `countRead` how much it was. */
  admitRead(streamId: string, shardIndex: number): boolean {
    const nowMs = this.#clock.monotonicMs();
    const { outBytes, outCalls } = this.#bucketsOf(streamId, shardIndex, nowMs);
    if (!outCalls.has(1, nowMs) || !outBytes.has(0, nowMs)) return false;
    outCalls.take(1);
    return true;
  }

  /**
   * Reads of a shard that were admitted, one after the other: how much one takes is known only behind it, and
   * those that came meanwhile would each take as much.
   * @param read hears whether those before it left anything
   */
  readInTurn<T>(streamId: string, shardIndex: number, read: (hasBytes: boolean) => Promise<T>): Promise<T> {
    const buckets = this.#bucketsOf(streamId, shardIndex, this.#clock.monotonicMs());
    const done = buckets.reads.then(() => read(buckets.outBytes.has(0, this.#clock.monotonicMs())));
    // Only that it is done: what it gave may be large, and this may stay for long.
    buckets.reads = done.then(nothing, nothing);
    return done;
  }

  /** True when the shard may be given an iterator now. */
  admitIterator(streamId: string, shardIndex: number): boolean {
    const nowMs = this.#clock.monotonicMs();
    const { iterators } = this.#bucketsOf(streamId, shardIndex, nowMs);
    if (!iterators.has(1, nowMs)) return false;
    iterators.take(1);
    return true;
  }

  /** After a read of 10 MiB there is nothing for five seconds. */
  countRead(streamId: string, shardIndex: number, bytes: number): void {
    const { outBytes } = this.#bucketsOf(streamId, shardIndex, this.#clock.monotonicMs());
    // What was saved up is no credit for a read that is more than a second's worth.
    if (bytes > OUT_BYTES) outBytes.empty();
    outBytes.take(bytes);
  }

  /** Of how many shards something is remembered. */
  get size(): number {
    return this.#young.size + this.#old.size;
  }

  #bucketsOf(streamId: string, shardIndex: number, nowMs: number): ShardBuckets {
    if (nowMs - this.#bornMs >= FORGET_AFTER_MS) {
      this.#old = nowMs - this.#bornMs >= 2 * FORGET_AFTER_MS ? new Map() : this.#young;
      this.#young = new Map();
      this.#bornMs = nowMs;
    }
    const key = `${streamId}/${shardIndex}`;
    let buckets = this.#young.get(key);
    if (buckets !== undefined) return buckets;
    buckets = this.#old.get(key) ?? {
      inBytes: new Bucket(SHARD_BYTES_PER_SECOND, nowMs),
      inRecords: new Bucket(SHARD_RECORDS_PER_SECOND, nowMs),
      outBytes: new Bucket(OUT_BYTES, nowMs),
      outCalls: new Bucket(OUT_CALLS, nowMs),
      iterators: new Bucket(ITERATORS, nowMs),
      reads: Promise.resolve(),
    };
    this.#old.delete(key);
    this.#young.set(key, buckets);
    return buckets;
  }
}

/** Holds one second's worth. It may fall below nothing, and then fills up from there. */
class Bucket {
  readonly #perSecond: number;
  #level: number;
  #filledMs: number;

  constructor(perSecond: number, nowMs: number) {
    this.#perSecond = perSecond;
    this.#level = perSecond;
    this.#filledMs = nowMs;
  }

  /** What is more than the bucket ever holds is admitted when it is full. */
  has(amount: number, nowMs: number): boolean {
    const filled = this.#level + ((nowMs - this.#filledMs) / 1000) * this.#perSecond;
    this.#level = Math.min(this.#perSecond, filled);
    this.#filledMs = nowMs;
    return this.#level >= Math.min(amount, this.#perSecond);
  }

  take(amount: number): void {
    this.#level -= amount;
  }

  empty(): void {
    this.#level = Math.min(0, this.#level);
  }
}
