/**
 * What the streams are, who reads them and how far: in one LevelDB, written in synced batches.
 *
 * LevelDB may lose what it holds without an error, and opens a folder without its CURRENT file as
 * an empty database. So every value carries a checksum over its key and itself, and a file beside
 * the database, `streams.json`, names the streams that must be in it.
 *
 *   stream/{streamId}            StreamRecord
 *   shard/{streamId}/{index}     ShardRecord, of each open shard and each closed one that has not expired
 *   reader/{streamId}/{name}     ReaderRecord
 *   consumer/{streamId}/{name}   ConsumerRecord
 *   lease/{streamId}/{name}      LeaseRecord
 */
import { access } from "node:fs/promises";
import { join } from "node:path";
import { Level } from "level";
import { syncFolder } from "../../../runtime/durable.ts";
import { HeadwaterError } from "../../../runtime/errors.ts";
import type { RateLimits, StreamMode } from "../streams.ts";
import {
  checksum,
  MetadataDamagedError,
  readSidecar,
  type StreamPhase,
  writeSidecar,
} from "./metadata-sidecar.ts";

export { MetadataDamagedError } from "./metadata-sidecar.ts";

export interface ShardRecord {
  readonly index: number;
  readonly shardId: string;
  /** 32 hex digits, inclusive. */
  readonly hashFrom: string;
  readonly hashTo: string;
  readonly createdMs: number;
  /** Indexes of the shards it was made from. */
  readonly parents?: readonly number[];
  /** When it was split or merged. Where it ends is in the log alone. */
  readonly closedMs?: number;
}

export interface StreamRecord {
  readonly name: string;
  /** 32 hex digits. */
  readonly streamId: string;
  readonly createdMs: number;
  readonly retentionHours: number;
  readonly mode?: StreamMode;
  readonly limits?: RateLimits;
  readonly maxRecordBytes?: number;
  readonly tags?: Readonly<Record<string, string>>;
  /** The index of the next shard to be made; none is used twice. */
  readonly nextShard: number;
  /** How many there are in the database, so that the loss of one is noticed. */
  readonly shardCount: number;
}

/** As it is kept: format 1 held the shards, all open, in the stream's record. */
type StoredStreamRecord = StreamRecord & { readonly shards?: readonly ShardRecord[] };

/** A stream and its shards, rising by index. */
export interface StoredStream {
  readonly record: StreamRecord;
  readonly shards: readonly ShardRecord[];
}

export interface ReaderRecord {
  readonly name: string;
  readonly createdMs: number;
  readonly tags: Readonly<Record<string, string>>;
}

export interface ConsumerRecord {
  readonly name: string;
  /** Shard id → position. */
  readonly positions: Readonly<Record<string, number>>;
}

export interface LeaseRecord {
  readonly name: string;
  readonly sinceMs: number;
}

const NO_SHARDS = { put: [], removed: [] };

export class Metadata {
  readonly #folder: string;
  readonly #db: Level<string, string>;
  readonly #phases: Map<string, { name: string; phase: StreamPhase }>;
  /** One write of the sidecar at a time; they would share its temporary file. */
  #sidecar: Promise<void> = Promise.resolve();

  private constructor(
    folder: string,
    db: Level<string, string>,
    phases: Map<string, { name: string; phase: StreamPhase }>,
  ) {
    this.#folder = folder;
    this.#db = db;
    this.#phases = phases;
  }

  /** @throws MetadataDamagedError before LevelDB touches a folder that cannot be whole */
  static async open(folder: string): Promise<Metadata> {
    const sidecar = await readSidecar(folder);
    const database = join(folder, "meta");
    const present = await exists(join(database, "CURRENT"));
    const active = [...(sidecar ?? new Map()).values()].some(({ phase }) => phase === "active");
    if (active && !present) throw new MetadataDamagedError(folder, "meta/CURRENT is missing");
    if (sidecar === undefined && present) throw new MetadataDamagedError(folder, "streams.json is missing");
    // The sidecar first: a crash before the database stands leaves a folder that is plainly new.
    if (sidecar === undefined) await writeSidecar(folder, new Map());
    const db = new Level<string, string>(database, { createIfMissing: !active });
    try {
      await db.open();
    } catch (error) {
      throw openError(folder, error);
    }
    const metadata = new Metadata(folder, db, sidecar ?? new Map());
    try {
      await syncFolder(folder);
      await metadata.#compareWithSidecar();
    } catch (error) {
      await db.close();
      throw error;
    }
    return metadata;
  }

  async #compareWithSidecar(): Promise<void> {
    const stored = new Set<string>();
    for (const record of await this.#values<StreamRecord>("stream/")) stored.add(record.streamId);
    for (const [streamId, { name, phase }] of this.#phases) {
      if (phase === "active" && !stored.has(streamId)) {
        throw new MetadataDamagedError(this.#folder, `stream ${name} is missing from meta/`);
      }
    }
    for (const streamId of stored) {
      if (!this.#phases.has(streamId)) {
        throw new MetadataDamagedError(this.#folder, `stream ${streamId} is missing from streams.json`);
      }
    }
  }

  /** Streams whose making or deleting a crash cut off. */
  unfinished(): string[] {
    return [...this.#phases].filter(([, { phase }]) => phase !== "active").map(([streamId]) => streamId);
  }

  async activeStreams(): Promise<StoredStream[]> {
    const records = await this.#values<StoredStreamRecord>("stream/");
    const streams: StoredStream[] = [];
    for (const record of records) {
      if (this.#phases.get(record.streamId)?.phase !== "active") continue;
      streams.push(record.shards === undefined ? await this.#withShards(record) : await this.#adopt(record));
    }
    return streams;
  }

  async #withShards(record: StreamRecord): Promise<StoredStream> {
    const shards = await this.#values<ShardRecord>(`shard/${record.streamId}/`);
    if (shards.length !== record.shardCount) {
      throw new MetadataDamagedError(
        this.#folder,
        `stream ${record.name} has ${shards.length} shards in meta/ instead of ${record.shardCount}`,
      );
    }
    return { record, shards };
  }

  /** One batch: a crash leaves the stream in the one form or in the other. */
  async #adopt({ shards = [], ...older }: StoredStreamRecord): Promise<StoredStream> {
    const record = { ...older, nextShard: shards.length, shardCount: shards.length };
    await this.changeStream(record, { put: shards, removed: [] });
    return { record, shards };
  }

  /** A crash leaves it "creating", and the next start removes what there is. */
  async beginStream(streamId: string, name: string): Promise<void> {
    await this.#setPhase(streamId, { name, phase: "creating" });
  }

  /** The record first: a crash between the two leaves it "creating". */
  async activateStream(record: StreamRecord, shards: readonly ShardRecord[]): Promise<void> {
    await this.changeStream(record, { put: shards, removed: [] });
    await this.#setPhase(record.streamId, { name: record.name, phase: "active" });
  }

  /** A stream's record and what changes of its shards, in one synced batch: a crash leaves all of it or nothing. */
  async changeStream(
    record: StreamRecord,
    shards: { readonly put: readonly ShardRecord[]; readonly removed: readonly number[] } = NO_SHARDS,
  ): Promise<void> {
    const { streamId } = record;
    const batch = this.#db.batch();
    for (const shard of shards.put) {
      const key = shardKey(streamId, shard.index);
      batch.put(key, sealed(key, shard));
    }
    for (const index of shards.removed) batch.del(shardKey(streamId, index));
    batch.put(`stream/${streamId}`, sealed(`stream/${streamId}`, record));
    await batch.write({ sync: true });
  }

  /** From here on the stream is gone, however far its removal comes before a crash. */
  async condemnStream(streamId: string): Promise<void> {
    const known = this.#phases.get(streamId);
    if (known !== undefined) await this.#setPhase(streamId, { name: known.name, phase: "deleting" });
  }

  /** Last of all: forgets it wholly. */
  async removeStream(streamId: string): Promise<void> {
    const batch = this.#db.batch();
    batch.del(`stream/${streamId}`);
    for (const prefix of ["shard", "reader", "consumer", "lease"].map((kind) => `${kind}/${streamId}/`)) {
      for await (const key of this.#db.keys({ gte: prefix, lt: `${prefix}\uffff` })) batch.del(key);
    }
    await batch.write({ sync: true });
    await this.#setPhase(streamId, undefined);
  }

  consumers(streamId: string): Promise<ConsumerRecord[]> {
    return this.#values<ConsumerRecord>(`consumer/${streamId}/`);
  }

  async putConsumer(streamId: string, record: ConsumerRecord): Promise<void> {
    await this.#put(`consumer/${streamId}/${encodeURIComponent(record.name)}`, record);
  }

  readers(streamId: string): Promise<ReaderRecord[]> {
    return this.#values<ReaderRecord>(`reader/${streamId}/`);
  }

  async putReader(streamId: string, record: ReaderRecord): Promise<void> {
    await this.#put(`reader/${streamId}/${encodeURIComponent(record.name)}`, record);
  }

  async removeReader(streamId: string, name: string): Promise<void> {
    await this.#delete(`reader/${streamId}/${encodeURIComponent(name)}`);
  }

  async putLease(streamId: string, record: LeaseRecord): Promise<void> {
    await this.#put(`lease/${streamId}/${encodeURIComponent(record.name)}`, record);
  }

  async removeLease(streamId: string, name: string): Promise<void> {
    await this.#delete(`lease/${streamId}/${encodeURIComponent(name)}`);
  }

  /** LevelDB admits one process, so whoever held these has ended. */
  async dropLeases(): Promise<void> {
    const batch = this.#db.batch();
    for await (const key of this.#db.keys({ gte: "lease/", lt: "lease/\uffff" })) batch.del(key);
    if (batch.length > 0) await batch.write({ sync: true });
    else await batch.close();
  }

  async close(): Promise<void> {
    await this.#sidecar.catch(() => undefined);
    await this.#db.close();
  }

  async #put(key: string, value: unknown): Promise<void> {
    await this.#db.batch([{ type: "put", key, value: sealed(key, value) }], { sync: true });
  }

  async #delete(key: string): Promise<void> {
    await this.#db.batch([{ type: "del", key }], { sync: true });
  }

  async #values<T>(prefix: string): Promise<T[]> {
    const values: T[] = [];
    try {
      for await (const [key, value] of this.#db.iterator({ gte: prefix, lt: `${prefix}\uffff` })) {
        const text = value.slice(8);
        if (value.slice(0, 8) !== checksum(key, text)) {
          throw new MetadataDamagedError(this.#folder, `the checksum of ${key} does not match`);
        }
        values.push(JSON.parse(text) as T);
      }
    } catch (error) {
      if (error instanceof HeadwaterError) throw error;
      throw new MetadataDamagedError(this.#folder, "meta/ cannot be read", error);
    }
    return values;
  }

  async #setPhase(streamId: string, phase: { name: string; phase: StreamPhase } | undefined): Promise<void> {
    if (phase === undefined) this.#phases.delete(streamId);
    else this.#phases.set(streamId, phase);
    await this.#writeSidecar();
  }

  #writeSidecar(): Promise<void> {
    const write = this.#sidecar.catch(() => undefined).then(() => writeSidecar(this.#folder, this.#phases));
    this.#sidecar = write;
    return write;
  }
}

function openError(folder: string, error: unknown): HeadwaterError {
  const cause = (error as { cause?: { code?: string } }).cause;
  if (cause?.code === "LEVEL_LOCKED") {
    return new HeadwaterError("STREAMS_LOCKED", {
      message: `${folder} is in use by another process`,
      hint: "stop the other gateway, or give this one a dataDir of its own",
      cause: error,
    });
  }
  return new MetadataDamagedError(folder, "meta/ cannot be opened", error);
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

/** Rises as text with the index. */
function shardKey(streamId: string, index: number): string {
  return `shard/${streamId}/${String(index).padStart(12, "0")}`;
}

/** The value as it is kept, behind its checksum. */
function sealed(key: string, value: unknown): string {
  const text = JSON.stringify(value);
  return `${checksum(key, text)}${text}`;
}
