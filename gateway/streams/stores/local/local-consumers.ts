/** Who reads one local stream: leases, taking over, and what is kept of each reader. */
import { BadNameError } from "../../../../protocol/topics.ts";
import {
  type Consumer,
  type ConsumerOptions,
  LeaseHeldError,
  type Offset,
  type ShardId,
  StreamNotFoundError,
} from "../../streams.ts";
import { LogConsumer } from "./log-consumer.ts";
import type { ConsumerRecord, Metadata } from "./metadata.ts";
import type { ShardTable } from "./shard-table.ts";

export class LocalConsumers {
  readonly #stream: string;
  readonly #streamId: string;
  readonly #shards: ShardTable;
  readonly #metadata: Metadata;
  /** undefined while one is being opened. */
  readonly #open = new Map<string, LogConsumer | undefined>();
  readonly #openings = new Set<Promise<Consumer>>();
  #closed = false;

  constructor(stream: { name: string; streamId: string }, shards: ShardTable, metadata: Metadata) {
    this.#stream = stream.name;
    this.#streamId = stream.streamId;
    this.#shards = shards;
    this.#metadata = metadata;
  }

  /** @throws LeaseHeldError, BadNameError */
  open(name: string, options: ConsumerOptions, nowMs: number): Promise<Consumer> {
    const opening = this.#tryOpen(name, options, nowMs).finally(() => this.#openings.delete(opening));
    this.#openings.add(opening);
    return opening;
  }

  async #tryOpen(name: string, { takeOver = false }: ConsumerOptions, nowMs: number): Promise<Consumer> {
    if (name.length === 0 || name.length > 256) throw new BadNameError("consumer", name);
    // The name is taken before anything is awaited, so that two calls cannot both get it.
    const holder = this.#open.get(name);
    if (this.#open.has(name) && !(takeOver && holder !== undefined)) {
      throw new LeaseHeldError(this.#stream, name);
    }
    this.#open.set(name, undefined);
    try {
      // Its checkpoint on its way ends first: we begin behind it.
      await holder?.lose();
      const positions = await this.#begin(name, nowMs);
      // The stream was deleted meanwhile; who is being opened was not there to lose its lease.
      if (this.#closed) throw new StreamNotFoundError(this.#stream);
      const consumer = this.#make(name, positions);
      this.#open.set(name, consumer);
      return consumer;
    } catch (error) {
      this.#open.delete(name);
      throw error;
    }
  }

  async #begin(name: string, nowMs: number): Promise<ReadonlyMap<ShardId, Offset>> {
    await this.#metadata.putLease(this.#streamId, { name, sinceMs: nowMs });
    const known = (await this.records()).find((record) => record.name === name);
    if (known !== undefined) return new Map(Object.entries(known.positions));
    // Where it begins is written down: else what retention takes before its first checkpoint would go
    // unnoticed, and a shard made later could not be told from one that was there.
    const first = new Map<ShardId, Offset>();
    for (const { shardId, trimHorizon } of this.#shards.all()) first.set(shardId, trimHorizon);
    await this.#save(name, first);
    return first;
  }

  #make(name: string, positions: ReadonlyMap<ShardId, Offset>): LogConsumer {
    const consumer: LogConsumer = new LogConsumer(
      name,
      {
        stream: this.#stream,
        shards: () => this.#shards.all(),
        find: (shardId) => this.#shards.find(shardId),
        hasExpired: (shardId) => this.#shards.hasExpired(shardId),
        save: (moved) => this.#save(name, moved),
        release: () => this.#release(name, consumer),
      },
      positions,
    );
    return consumer;
  }

  #save(name: string, positions: ReadonlyMap<ShardId, Offset>): Promise<void> {
    return this.#metadata.putConsumer(this.#streamId, { name, positions: Object.fromEntries(positions) });
  }

  /** Whoever took over while it was being closed keeps the lease. */
  async #release(name: string, consumer: LogConsumer): Promise<void> {
    if (this.#open.get(name) !== consumer) return;
    this.#open.delete(name);
    await this.#metadata.removeLease(this.#streamId, name);
  }

  /** Of all that ever read the stream, open or not. */
  records(): Promise<ConsumerRecord[]> {
    return this.#metadata.consumers(this.#streamId);
  }

  /** Shards were made, ended or expired. */
  refresh(): void {
    for (const consumer of this.#open.values()) consumer?.refresh();
  }

  /** Takes all leases back; none is given any more, nor written down for one who is being opened. */
  async close(): Promise<void> {
    this.#closed = true;
    await Promise.allSettled(this.#openings);
    for (const consumer of this.#open.values()) await consumer?.lose();
  }
}
