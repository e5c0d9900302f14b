/**
 * Which shards of a stream may have something to read, for a stage that reads all of them to their tips. A stream may have
 * 4,096, and what comes goes to few of them: whoever looks at all for each record spends most of his time on shards without any.
 *
 *   add → due → take → read → more waits in it → due
 *                           → its tip → it grows or closes, or ten seconds pass → due
 *                           → its end
 */
import { pause } from "../../runtime/backoff.ts";
import type { Clock } from "../../runtime/clock.ts";

type ShardId = string;
type Offset = number;

/** What is needed of `Streams`. */
interface Appended {
  appended(stream: string, shardId: ShardId, from: Offset, signal: AbortSignal): Promise<void>;
}

/** What is needed of a `Consumer`. */
interface Changed {
  changed(signal: AbortSignal): Promise<void>;
}

/** What is needed of a `ReadResult`. */
interface Read {
  readonly next: Offset;
  readonly behindMs: number;
  readonly ended: boolean;
}

/**
 * All are looked at so often, whatever is heard of them: where a store's places belong to all shards, a quiet one's
 * moves without a record, and whoever stayed far behind would have to pass over all that the others got.
 */
const LOOK_AT_ALL_MS = 10_000;

export class ShardNews {
  readonly #streams: Appended;
  readonly #stream: string;
  readonly #clock: Clock;
  readonly #due = new Set<ShardId>();
  readonly #resting = new Set<ShardId>();
  #watch = new AbortController();
  #lookAtMs: number;
  #tell: (() => void) | undefined;

  constructor(streams: Appended, stream: string, clock: Clock) {
    this.#streams = streams;
    this.#stream = stream;
    this.#clock = clock;
    this.#lookAtMs = clock.monotonicMs() + LOOK_AT_ALL_MS;
  }

  /** How many wait to be taken. */
  due(): number {
    if (this.#clock.monotonicMs() >= this.#lookAtMs) this.#lookAtAll();
    return this.#due.size;
  }

  /** It may have something to read: a shard that was not read yet, or not to its tip. */
  add(shardId: ShardId): void {
    this.#resting.delete(shardId);
    this.#due.add(shardId);
    this.#tell?.();
  }

  /** The one that waits longest, where there are any. Say `read` then, or `add` where it was not. */
  take(): ShardId {
    const [shardId] = this.#due;
    this.#due.delete(shardId!);
    return shardId!;
  }

  /** It was read: to its tip or not, it comes behind those that are due, so that none starves beside one with a backlog. */
  read(shardId: ShardId, { next, behindMs, ended }: Read): void {
    if (ended) return;
    if (behindMs > 0) this.add(shardId);
    else this.#rest(shardId, next);
  }

  #rest(shardId: ShardId, from: Offset): void {
    const { signal } = this.#watch;
    // Of one that cannot be waited for, the next read says why.
    const heard = (): void => {
      if (!signal.aborted && this.#resting.has(shardId)) this.add(shardId);
    };
    this.#resting.add(shardId);
    this.#streams.appended(this.#stream, shardId, from, signal).then(heard, heard);
  }

  /** It is not read any more. */
  leave(shardId: ShardId): void {
    this.#resting.delete(shardId);
    this.#due.delete(shardId);
  }

  /** Resolves when one is due, when the consumer's shards come or go, after `maxMs`, or on abort. One waits at a time. */
  async wait(consumer: Changed, maxMs: number, signal: AbortSignal): Promise<void> {
    if (this.#due.size > 0) return;
    const done = new AbortController();
    const end = (): void => done.abort();
    signal.addEventListener("abort", end, { once: true });
    if (signal.aborted) end();
    const some = new Promise<void>((resolve) => {
      this.#tell = resolve;
    });
    const changed = consumer.changed(done.signal);
    try {
      await Promise.race([pause(maxMs, done.signal), changed, some]);
    } finally {
      end();
      signal.removeEventListener("abort", end);
      await Promise.allSettled([changed]);
    }
  }

  close(): void {
    this.#watch.abort();
  }

  #lookAtAll(): void {
    // What was waited for is waited for anew, from where it stands by then.
    this.#watch.abort();
    this.#watch = new AbortController();
    this.#lookAtMs = this.#clock.monotonicMs() + LOOK_AT_ALL_MS;
    for (const shardId of this.#resting) this.#due.add(shardId);
    this.#resting.clear();
  }
}
