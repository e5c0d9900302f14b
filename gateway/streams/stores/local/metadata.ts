/**
 * What the streams are, who reads them and how far: in one LevelDB, written in synced batches
 * (runtime/synced-level.ts says what becomes of it on a full disk).
 *
 * LevelDB may lose what it holds without an error, and opens a folder without its CURRENT file as
 * an empty database. So every value carries a checksum over its key and itself, a file beside
 * the database, `streams.json`, names the streams that must be in it, and what LevelDB would drop of its
 * own log is looked for before it is opened (runtime/level-log.ts).
 *
 *   stream/{streamId}            StreamRecord
 *   shard/{streamId}/{index}     ShardRecord, of each open shard and each closed one that has not expired
 *   reader/{streamId}/{name}     ReaderRecord
 *   consumer/{streamId}/{name}   ConsumerRecord
 *   lease/{streamId}/{name}      LeaseRecord
 */
import { access } from "node:fs/promises";
import { join } from "node:path";
import { DataFolderError, foreignFolder } from "../../../../runtime/data-folder.ts";
import { syncFolder } from "../../../../runtime/durable.ts";
import { HeadwaterError } from "../../../../runtime/errors.ts";
import { levelLogDamage } from "../../../../runtime/level-log.ts";
import {
  DatabaseWriteError,
  type Entries,
  type KeyRange,
  SyncedLevel,
  type SyncedOperation,
} from "../../../../runtime/synced-level.ts";
import type { RateLimits, StreamMode } from "../../streams.ts";
import {
  checksum,
  MetadataDamagedError,
  type Phases,
  readSidecar,
  Sidecar,
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
  /** When its split or merge was begun. Where it ends, and when its last record came, is in the log alone. */
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

type Operation = SyncedOperation<string>;

export class Metadata {
  readonly #folder: string;
  readonly #db: SyncedLevel<string>;
  readonly #sidecar: Sidecar;

  private constructor(folder: string, phases: Phases, createIfMissing: boolean) {
    this.#folder = folder;
    this.#sidecar = new Sidecar(folder, phases);
    this.#db = new SyncedLevel<string>(join(folder, "meta"), {
      valueEncoding: "utf8",
      createIfMissing,
      check: (entries) => this.#compareWithSidecar(entries),
    });
  }

  /** @throws MetadataDamagedError before LevelDB touches a folder that cannot be whole */
  static async open(folder: string): Promise<Metadata> {
    const sidecar = await readSidecar(folder);
    const database = join(folder, "meta");
    const present = await exists(join(database, "CURRENT"));
    const active = [...(sidecar ?? new Map()).values()].some(({ phase }) => phase === "active");
    if (active && !present) throw new MetadataDamagedError(folder, "meta/CURRENT is missing");
    if (sidecar === undefined && present) throw new MetadataDamagedError(folder, "streams.json is missing");
    const damage = await levelLogDamage(database).catch((error: unknown) => {
      throw foreignFolder(error) ?? new MetadataDamagedError(folder, "meta/ cannot be read", error);
    });
    if (damage !== undefined) {
      throw new MetadataDamagedError(folder, `meta/${damage.file} is damaged at byte ${damage.from}`);
    }
    // The sidecar first: a crash before the database stands leaves a folder that is plainly new.
    if (sidecar === undefined) await writeSidecar(folder, new Map());
    const metadata = new Metadata(folder, sidecar ?? new Map(), !active);
    const db = metadata.#db;
    try {
      await db.open();
    } catch (error) {
      throw openError(folder, error);
    }
    try {
      await syncFolder(folder);
      await metadata.#compareWithSidecar((range) => db.entries(range));
    } catch (error) {
      await db.close();
      throw error;
    }
    return metadata;
  }

  async #compareWithSidecar(entries: Entries<string>): Promise<void> {
    const stored = new Set<string>();
    for (const record of await this.#values<StreamRecord>("stream/", entries)) stored.add(record.streamId);
    for (const [streamId, { name, phase }] of this.#sidecar.phases) {
      if (phase === "active" && !stored.has(streamId)) {
        throw new MetadataDamagedError(this.#folder, `stream ${name} is missing from meta/`);
      }
    }
    for (const streamId of stored) {
      if (!this.#sidecar.phases.has(streamId)) {
        throw new MetadataDamagedError(this.#folder, `stream ${streamId} is missing from streams.json`);
      }
    }
  }

  /** Streams whose making or deleting a crash cut off. */
  unfinished(): string[] {
    const phases = [...this.#sidecar.phases];
    return phases.filter(([, { phase }]) => phase !== "active").map(([streamId]) => streamId);
  }

  /** Of a stream in whatever phase, as far as it is known. */
  nameOf(streamId: string): string | undefined {
    return this.#sidecar.phases.get(streamId)?.name;
  }

  async activeStreams(): Promise<StoredStream[]> {
    const records = await this.#values<StoredStreamRecord>("stream/");
    const streams: StoredStream[] = [];
    for (const record of records) {
      if (this.#sidecar.phases.get(record.streamId)?.phase !== "active") continue;
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
    await this.#sidecar.set(streamId, { name, phase: "creating" });
  }

  /** The record first: a crash between the two leaves it "creating". */
  async activateStream(record: StreamRecord, shards: readonly ShardRecord[]): Promise<void> {
    await this.changeStream(record, { put: shards, removed: [] });
    await this.#sidecar.set(record.streamId, { name: record.name, phase: "active" });
  }

  /** A stream's record and what changes of its shards, in one synced batch: a crash leaves all of it or nothing. */
  async changeStream(
    record: StreamRecord,
    shards: { readonly put: readonly ShardRecord[]; readonly removed: readonly number[] } = NO_SHARDS,
  ): Promise<void> {
    const { streamId } = record;
    await this.#db.write([
      ...shards.put.map((shard) => put(shardKey(streamId, shard.index), shard)),
      ...shards.removed.map((index) => del(shardKey(streamId, index))),
      put(`stream/${streamId}`, record),
    ]);
  }

  /**
   * From here on the stream is gone, however far its removal comes before a crash.
   * @throws DatabaseWriteError; then it stands as before, if `isSettled`
   */
  async condemnStream(streamId: string): Promise<void> {
    const known = this.#sidecar.phases.get(streamId);
    if (known === undefined || (known.phase !== "active" && this.isSettled(streamId))) return;
    await this.#sidecar.set(streamId, { name: known.name, phase: "deleting" });
  }

  /** False while a start may find another phase of it than it has, as the disk refused to tell. */
  isSettled(streamId: string): boolean {
    return this.#sidecar.isSettled(streamId);
  }

  /** @throws DatabaseWriteError */
  settle(): Promise<void> {
    return this.#sidecar.settle();
  }

  /**
   * Last of all: forgets it wholly. One that was condemned beside its folder alone is "active" here still, and a
   * crash behind the batch would leave an active stream that the database does not know.
   */
  async removeStream(streamId: string): Promise<void> {
    await this.condemnStream(streamId);
    const operations = [del(`stream/${streamId}`)];
    for (const kind of ["shard", "reader", "consumer", "lease"]) {
      operations.push(...(await this.#db.keys(below(`${kind}/${streamId}/`))).map(del));
    }
    await this.#db.write(operations);
    await this.#sidecar.set(streamId, undefined);
  }

  consumers(streamId: string): Promise<ConsumerRecord[]> {
    return this.#values<ConsumerRecord>(`consumer/${streamId}/`);
  }

  async putConsumer(streamId: string, record: ConsumerRecord): Promise<void> {
    await this.#db.write([put(`consumer/${streamId}/${encodeURIComponent(record.name)}`, record)]);
  }

  readers(streamId: string): Promise<ReaderRecord[]> {
    return this.#values<ReaderRecord>(`reader/${streamId}/`);
  }

  async putReader(streamId: string, record: ReaderRecord): Promise<void> {
    await this.#db.write([put(`reader/${streamId}/${encodeURIComponent(record.name)}`, record)]);
  }

  async removeReader(streamId: string, name: string): Promise<void> {
    await this.#db.write([del(`reader/${streamId}/${encodeURIComponent(name)}`)]);
  }

  async putLease(streamId: string, record: LeaseRecord): Promise<void> {
    await this.#db.write([put(`lease/${streamId}/${encodeURIComponent(record.name)}`, record)]);
  }

  async removeLease(streamId: string, name: string): Promise<void> {
    await this.#db.write([del(`lease/${streamId}/${encodeURIComponent(name)}`)]);
  }

  /** LevelDB admits one process, so whoever held these has ended. */
  async dropLeases(): Promise<void> {
    await this.#db.write((await this.#db.keys(below("lease/"))).map(del));
  }

  async close(): Promise<void> {
    await this.#sidecar.close();
    await this.#db.close();
  }

  async #values<T>(
    prefix: string,
    entries: Entries<string> = (range) => this.#db.entries(range),
  ): Promise<T[]> {
    let found: Awaited<ReturnType<Entries<string>>>;
    try {
      found = await entries(below(prefix));
    } catch (error) {
      if (error instanceof HeadwaterError) throw error;
      throw foreignFile(error) ?? new MetadataDamagedError(this.#folder, "meta/ cannot be read", error);
    }
    return found.map(([key, value]) => {
      const text = value.slice(8);
      if (value.slice(0, 8) !== checksum(key, text)) {
        throw new MetadataDamagedError(this.#folder, `the checksum of ${key} does not match`);
      }
      return JSON.parse(text) as T;
    });
  }
}

function openError(folder: string, error: unknown): HeadwaterError {
  const cause = (error as { cause?: { code?: string; message?: string } }).cause;
  // LevelDB hands on the C library's words alone. Nothing is lost: whoever makes room can start again.
  if (/No space left|quota exceeded/.test(cause?.message ?? "")) return new DatabaseWriteError(folder, error);
  if (cause?.code === "LEVEL_LOCKED") {
    return new HeadwaterError("STREAMS_LOCKED", {
      message: `${folder} is in use by another process`,
      hint: "stop the other gateway, or give this one a dataDir of its own",
      cause: error,
    });
  }
  return foreignFile(cause) ?? new MetadataDamagedError(folder, "meta/ cannot be opened", error);
}

/** What is another user's is whole. LevelDB says so in the C library's words. */
function foreignFile(error: unknown): DataFolderError | undefined {
  const pattern = /(?:(\/.*): )?(Permission denied|Operation not permitted|Read-only file system)/;
  const [, path, words] = pattern.exec((error as Error | undefined)?.message ?? "") ?? [];
  if (words === undefined) return undefined;
  const code = words.startsWith("Read") ? "EROFS" : "EACCES";
  return new DataFolderError(Object.assign(new Error(words, { cause: error }), { code, path }));
}

async function exists(path: string): Promise<boolean> {
  try {
    await access(path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return false;
    throw error;
  }
}

/** Rises as text with the index. */
function shardKey(streamId: string, index: number): string {
  return `shard/${streamId}/${String(index).padStart(12, "0")}`;
}

/** The keys that begin so. */
function below(prefix: string): KeyRange {
  return { gte: prefix, lt: `${prefix}\uffff` };
}

/** The value is kept behind its checksum. */
function put(key: string, value: unknown): Operation {
  const text = JSON.stringify(value);
  return { type: "put", key, value: `${checksum(key, text)}${text}` };
}

function del(key: string): Operation {
  return { type: "del", key };
}
