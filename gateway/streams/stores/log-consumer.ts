/** A consumer of a local stream: its lease is its place in this process, its checkpoints are in the metadata. */
import {
  BadCheckpointError,
  type Consumer,
  LeaseLostError,
  type Offset,
  type ShardId,
  ShardNotFoundError,
} from "../streams.ts";

/** What a consumer needs of the stream that it reads. */
export interface ConsumerHost {
  readonly stream: string;
  readonly shards: readonly ShardId[];
  trimHorizon(shardId: ShardId): Offset;
  latest(shardId: ShardId): Offset;
  /** Resolves when on disk. */
  save(positions: ReadonlyMap<ShardId, Offset>): Promise<void>;
  release(): Promise<void>;
}

export class LogConsumer implements Consumer {
  readonly name: string;
  readonly #host: ConsumerHost;
  #positions: ReadonlyMap<ShardId, Offset>;
  /** One checkpoint after the other, so that none overtakes another on its way to the disk. */
  #last: Promise<void> = Promise.resolve();
  #held = true;

  constructor(name: string, host: ConsumerHost, positions: ReadonlyMap<ShardId, Offset>) {
    this.name = name;
    this.#host = host;
    this.#positions = positions;
  }

  get stream(): string {
    return this.#host.stream;
  }

  get shards(): readonly ShardId[] {
    return this.#host.shards;
  }

  positions(): ReadonlyMap<ShardId, Offset> {
    return new Map(
      this.shards.map((shardId) => [
        shardId,
        this.#positions.get(shardId) ?? this.#host.trimHorizon(shardId),
      ]),
    );
  }

  checkpoint(positions: ReadonlyMap<ShardId, Offset>): Promise<void> {
    const wanted = new Map(positions);
    const done = this.#last.catch(() => undefined).then(() => this.#checkpoint(wanted));
    this.#last = done;
    return done;
  }

  async #checkpoint(wanted: ReadonlyMap<ShardId, Offset>): Promise<void> {
    if (!this.#held) throw new LeaseLostError(this.stream, this.name);
    const merged = new Map(this.#positions);
    let moved = false;
    for (const [shardId, offset] of wanted) {
      if (!this.shards.includes(shardId)) throw new ShardNotFoundError(this.stream, shardId);
      const known = merged.get(shardId);
      if (!Number.isSafeInteger(offset) || offset < (known ?? 0)) {
        throw this.#bad(`${shardId} would go back from ${known ?? 0} to ${offset}`);
      }
      const latest = this.#host.latest(shardId);
      if (offset > latest) throw this.#bad(`${shardId} ends at ${latest}, before ${offset}`);
      moved ||= offset !== known;
      merged.set(shardId, offset);
    }
    if (!moved) return;
    await this.#host.save(merged);
    this.#positions = merged;
  }

  #bad(reason: string): BadCheckpointError {
    return new BadCheckpointError(this.stream, this.name, reason);
  }

  /** The stream is being deleted or closed. Waits for a checkpoint on its way. */
  async lose(): Promise<void> {
    this.#held = false;
    await this.#last.catch(() => undefined);
  }

  async close(): Promise<void> {
    if (!this.#held) return;
    await this.lose();
    await this.#host.release();
  }
}
