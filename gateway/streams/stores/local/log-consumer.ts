/**
 * A consumer of a local stream: its lease is its place in this process, its checkpoints are in the
 * metadata. Which shards it may read follows from the checkpoints alone.
 */
import {
  BadCheckpointError,
  type Consumer,
  LeaseLostError,
  type Offset,
  type ShardId,
  ShardNotFoundError,
} from "../../streams.ts";

/** What a consumer looks at of a shard. */
export interface ConsumedShard {
  readonly shardId: ShardId;
  /** They may have expired. */
  readonly parents: readonly ShardId[];
  /** The place of the next record on disk. */
  readonly latest: Offset;
  /** Of a closed shard; undefined while more may come. */
  readonly end: Offset | undefined;
}

/** What a consumer needs of the stream that it reads. */
export interface ConsumerHost {
  readonly stream: string;
  /** Parents before their children. */
  shards(): Iterable<ConsumedShard>;
  find(shardId: ShardId): ConsumedShard | undefined;
  /** It was there once, and is no more. */
  hasExpired(shardId: ShardId): boolean;
  /** Resolves when on disk. */
  save(positions: ReadonlyMap<ShardId, Offset>): Promise<void>;
  release(): Promise<void>;
}

export class LogConsumer implements Consumer {
  readonly name: string;
  readonly #host: ConsumerHost;
  /** Also those of finished parents: they tell that the children may be read. */
  #positions: Map<ShardId, Offset>;
  #shards: readonly ShardId[] = [];
  #readable: ReadonlySet<ShardId> = new Set();
  #finished: ReadonlySet<ShardId> = new Set();
  readonly #waiting = new Set<() => void>();
  /** One checkpoint after the other, so that none overtakes another on its way to the disk. */
  #last: Promise<void> = Promise.resolve();
  readonly #lost = new AbortController();

  /** @param positions of every shard that there was when the consumer was first opened, and of later ones that it read */
  constructor(name: string, host: ConsumerHost, positions: ReadonlyMap<ShardId, Offset>) {
    this.name = name;
    this.#host = host;
    this.#positions = new Map(positions);
    this.refresh();
  }

  get stream(): string {
    return this.#host.stream;
  }

  get shards(): readonly ShardId[] {
    return this.#shards;
  }

  get lost(): AbortSignal {
    return this.#lost.signal;
  }

  changed(signal: AbortSignal): Promise<void> {
    if (signal.aborted || this.#lost.signal.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      const end = (): void => {
        this.#waiting.delete(end);
        signal.removeEventListener("abort", end);
        resolve();
      };
      this.#waiting.add(end);
      signal.addEventListener("abort", end, { once: true });
    });
  }

  positions(): ReadonlyMap<ShardId, Offset> {
    return new Map(this.#shards.map((shardId) => [shardId, this.#position(shardId)]));
  }

  /** A shard without one was made after the consumer: it is read from its very first record on. */
  #position(shardId: ShardId): Offset {
    return this.#positions.get(shardId) ?? 0;
  }

  checkpoint(positions: ReadonlyMap<ShardId, Offset>): Promise<void> {
    const wanted = new Map(positions);
    const done = this.#last.catch(() => undefined).then(() => this.#checkpoint(wanted));
    this.#last = done;
    return done;
  }

  async #checkpoint(wanted: ReadonlyMap<ShardId, Offset>): Promise<void> {
    if (this.#lost.signal.aborted) throw new LeaseLostError(this.stream, this.name);
    const merged = new Map(this.#positions);
    let moved = false;
    for (const [shardId, offset] of wanted) {
      const shard = this.#host.find(shardId);
      if (shard === undefined) {
        // It has expired, and so counts as finished.
        if (this.#host.hasExpired(shardId)) continue;
        throw new ShardNotFoundError(this.stream, shardId);
      }
      this.#checkMove(shard, offset);
      moved ||= offset !== merged.get(shardId);
      merged.set(shardId, offset);
    }
    if (!moved) return;
    for (const shardId of merged.keys()) {
      if (this.#host.find(shardId) === undefined) merged.delete(shardId);
    }
    await this.#host.save(merged);
    this.#positions = merged;
    this.refresh();
  }

  #checkMove({ shardId, latest }: ConsumedShard, offset: Offset): void {
    const known = this.#position(shardId);
    if (!Number.isSafeInteger(offset) || offset < known) {
      throw this.#bad(`${shardId} would go back from ${known} to ${offset}`);
    }
    if (offset > latest) throw this.#bad(`${shardId} ends at ${latest}, before ${offset}`);
    if (!this.#readable.has(shardId) && !this.#finished.has(shardId)) {
      throw this.#bad(`${shardId} may not be read before the shards that it came from`);
    }
  }

  #bad(reason: string): BadCheckpointError {
    return new BadCheckpointError(this.stream, this.name, reason);
  }

  /** Looks which shards may be read now; called when shards were made, ended or expired. */
  refresh(): void {
    const finished = new Set<ShardId>();
    const shards: ShardId[] = [];
    for (const { shardId, parents, end } of this.#host.shards()) {
      const free = parents.every((parent) => finished.has(parent) || this.#host.find(parent) === undefined);
      if (!free) continue;
      if (end !== undefined && this.#position(shardId) >= end) finished.add(shardId);
      else shards.push(shardId);
    }
    this.#finished = finished;
    const same =
      shards.length === this.#shards.length && shards.every((shardId, i) => shardId === this.#shards[i]);
    if (same) return;
    this.#shards = shards;
    this.#readable = new Set(shards);
    this.#tellWaiting();
  }

  #tellWaiting(): void {
    for (const tell of [...this.#waiting]) tell();
  }

  /** Taken over, or the stream is deleted or closed. Waits for a checkpoint on its way. */
  async lose(): Promise<void> {
    this.#lost.abort();
    this.#tellWaiting();
    await this.#last.catch(() => undefined);
  }

  async close(): Promise<void> {
    if (this.#lost.signal.aborted) return;
    await this.lose();
    await this.#host.release();
  }
}
