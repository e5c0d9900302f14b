/**
 * What one local stream is: its settings, its shards, its registered readers. Each change is on disk
 * before it holds, one after the other; the switch itself is one synchronous step.
 *
 *   plan ─→ metadata, one synced batch ─→ apply ─→ tell those who wait
 *
 * A crash before the batch leaves all as it was. A crash behind it leaves the change: what was
 * appended between batch and switch stands in the parent, whose end is wherever the log ends.
 */
import {
  changed,
  DEFAULT_MAX_RECORD_BYTES,
  ReaderExistsError,
  ReaderNotFoundError,
  type ReadersCheck,
  type RegisteredReader,
  type ReshardStep,
  type ShardId,
  type StreamChange,
  StreamNotFoundError,
  type StreamSettings,
  type TagChange,
} from "../../streams.ts";
import { checkSpec } from "../check-spec.ts";
import type { OwnSeconds } from "../own-seconds.ts";
import type { StreamLog } from "./log/stream-log.ts";
import type { Metadata, ReaderRecord, StoredStream, StreamRecord } from "./metadata.ts";
import { type ShardChange, ShardTable } from "./shard-table.ts";

export class StreamDefinition {
  readonly shards: ShardTable;
  readonly #metadata: Metadata;
  readonly #seconds: OwnSeconds;
  readonly #readers: Map<string, ReaderRecord>;
  #record: StreamRecord;
  #settings: StreamSettings | undefined;
  #last: Promise<unknown> = Promise.resolve();
  #closed = false;

  constructor(
    stored: StoredStream,
    readers: readonly ReaderRecord[],
    log: StreamLog,
    metadata: Metadata,
    seconds: OwnSeconds,
  ) {
    this.#record = stored.record;
    this.shards = new ShardTable(stored.record.name, log, stored.shards);
    this.#readers = new Map(readers.map((reader) => [reader.name, reader]));
    this.#metadata = metadata;
    this.#seconds = seconds;
  }

  get record(): StreamRecord {
    return this.#record;
  }

  get settings(): StreamSettings {
    this.#settings ??= settingsOf(this.#record, this.shards.openCount);
    return this.#settings;
  }

  update(change: StreamChange): Promise<void> {
    return this.#change(async () => {
      const { retentionHours, mode, limits, maxRecordBytes, tags } = change;
      const record: StreamRecord = {
        ...this.#record,
        ...(retentionHours !== undefined && {
          retentionHours: changed(this.#record.retentionHours, retentionHours),
        }),
        ...(mode !== undefined && { mode }),
        ...(limits !== undefined && { limits }),
        ...(maxRecordBytes !== undefined && { maxRecordBytes }),
        ...(tags !== undefined && { tags: changed(this.#record.tags ?? {}, tags) }),
      };
      checkSpec(settingsOf(record, this.shards.openCount));
      await this.#metadata.changeStream(record);
      this.#record = record;
      this.#settings = undefined;
    });
  }

  /** These resolve with the shards that were closed. */
  async split(shardId: ShardId, startingHash: bigint, nowMs: number): Promise<readonly number[]> {
    return this.#reshard((nextShard) => this.shards.planSplit(shardId, startingHash, nextShard, nowMs));
  }

  async merge(shardId: ShardId, adjacentShardId: ShardId, nowMs: number): Promise<readonly number[]> {
    return this.#reshard((nextShard) => this.shards.planMerge(shardId, adjacentShardId, nextShard, nowMs));
  }

  async reshard(steps: readonly ReshardStep[], nowMs: number): Promise<readonly number[]> {
    return this.#reshard((nextShard) => this.shards.planReshard(steps, nextShard, nowMs));
  }

  /** True when any shard was forgotten. */
  expire(cutoffMs: number, nowMs: number): Promise<boolean> {
    return this.#change(async () => {
      const change = this.shards.planExpiry(cutoffMs, nowMs);
      if (change.removed.length === 0) return false;
      await this.#apply(change);
      return true;
    });
  }

  #reshard(plan: (nextShard: number) => ShardChange): Promise<readonly number[]> {
    return this.#change(async () => {
      const change = plan(this.#record.nextShard);
      await this.#apply(change);
      return change.put.filter(({ closedMs }) => closedMs !== undefined).map(({ index }) => index);
    });
  }

  async #apply(change: ShardChange): Promise<void> {
    // Some of them may be closed again by the same change.
    const made = change.put.filter(({ index }) => index >= this.#record.nextShard).length;
    const record: StreamRecord = {
      ...this.#record,
      nextShard: this.#record.nextShard + made,
      shardCount: this.#record.shardCount + made - change.removed.length,
    };
    await this.#metadata.changeStream(record, change);
    this.#record = record;
    this.#settings = undefined;
    this.shards.apply(change);
  }

  registerReader(
    name: string,
    tags: RegisteredReader["tags"],
    check?: ReadersCheck,
  ): Promise<RegisteredReader> {
    return this.#change(async () => {
      if (this.#readers.has(name)) throw new ReaderExistsError(this.#record.name, name);
      check?.(this.registeredReaders());
      // Dated when it is its turn: its predecessor's going may be the change before.
      const createdMs = this.#seconds.dateReader(this.#record.name, name);
      return this.#putReader({ name, createdMs, tags: { ...tags } });
    });
  }

  updateReader(name: string, change: TagChange): Promise<RegisteredReader> {
    return this.#change(async () => {
      const { createdMs, tags } = this.#reader(name);
      return this.#putReader({ name, createdMs, tags: { ...changed(tags, change) } });
    });
  }

  deregisterReader(name: string): Promise<void> {
    return this.#change(async () => {
      const reader = this.#reader(name);
      await this.#metadata.removeReader(this.#record.streamId, name);
      this.#readers.delete(name);
      this.#seconds.readerGone(this.#record.name, reader);
    });
  }

  registeredReaders(): readonly RegisteredReader[] {
    return [...this.#readers.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  async #putReader(reader: ReaderRecord): Promise<RegisteredReader> {
    await this.#metadata.putReader(this.#record.streamId, reader);
    this.#readers.set(reader.name, reader);
    return reader;
  }

  #reader(name: string): ReaderRecord {
    const reader = this.#readers.get(name);
    if (reader === undefined) throw new ReaderNotFoundError(this.#record.name, name);
    return reader;
  }

  /** One change at a time: each is planned on what the one before left. */
  #change<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#last
      .catch(() => undefined)
      .then(() => {
        if (this.#closed) throw new StreamNotFoundError(this.#record.name);
        return work();
      });
    this.#last = done;
    return done;
  }

  /** Waits for a change on its way; later ones are refused. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#last.catch(() => undefined);
  }
}

function settingsOf(record: StreamRecord, shards: number): StreamSettings {
  const { name, streamId, createdMs, retentionHours } = record;
  return Object.freeze({
    name,
    shards,
    retentionHours,
    mode: record.mode ?? "provisioned",
    limits: record.limits ?? "none",
    maxRecordBytes: record.maxRecordBytes ?? DEFAULT_MAX_RECORD_BYTES,
    tags: record.tags ?? {},
    createdMs,
    streamId,
  });
}
