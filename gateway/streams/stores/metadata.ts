/**
 * What the streams are, who reads them and how far: in one LevelDB, written in synced batches.
 *
 * LevelDB may lose what it holds without an error, and opens a folder without its CURRENT file as
 * an empty database. So every value carries a checksum over its key and itself, and a file beside
 * the database, `streams.json`, names the streams that must be in it.
 *
 *   stream/{streamId}            StreamRecord
 *   consumer/{streamId}/{name}   ConsumerRecord
 *   lease/{streamId}/{name}      LeaseRecord
 */
import { access, readFile } from "node:fs/promises";
import { join } from "node:path";
import { Level } from "level";
import { crc32c } from "../../../runtime/crc32c.ts";
import { syncFolder, writeDurably } from "../../../runtime/durable.ts";
import { HeadwaterError } from "../../../runtime/errors.ts";

export interface ShardRecord {
  readonly index: number;
  readonly shardId: string;
  /** 32 hex digits, inclusive. */
  readonly hashFrom: string;
  readonly hashTo: string;
  readonly createdMs: number;
}

export interface StreamRecord {
  readonly name: string;
  /** 32 hex digits. */
  readonly streamId: string;
  readonly createdMs: number;
  readonly retentionHours: number;
  readonly shards: readonly ShardRecord[];
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

/** How far making or deleting a stream has come; a start finishes or undoes what a crash left. */
export type StreamPhase = "creating" | "active" | "deleting";

/** The metadata is not what it was. The gateway does not start, as it would have to guess. */
export class MetadataDamagedError extends HeadwaterError {
  constructor(folder: string, detail: string, cause?: unknown) {
    super("STREAM_METADATA_DAMAGED", {
      message: `${folder}: ${detail}`,
      hint: "restore the folder from a backup; the records in logs/ are untouched. Without a backup, move the whole folder away to start with empty streams",
      cause,
    });
  }
}

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

  async activeStreams(): Promise<StreamRecord[]> {
    const records = await this.#values<StreamRecord>("stream/");
    return records.filter(({ streamId }) => this.#phases.get(streamId)?.phase === "active");
  }

  /** A crash leaves it "creating", and the next start removes what there is. */
  async beginStream(streamId: string, name: string): Promise<void> {
    await this.#setPhase(streamId, { name, phase: "creating" });
  }

  /** The record first: a crash between the two leaves it "creating". */
  async activateStream(record: StreamRecord): Promise<void> {
    await this.#put(`stream/${record.streamId}`, record);
    await this.#setPhase(record.streamId, { name: record.name, phase: "active" });
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
    for (const prefix of [`consumer/${streamId}/`, `lease/${streamId}/`]) {
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

  async putLease(streamId: string, record: LeaseRecord): Promise<void> {
    await this.#put(`lease/${streamId}/${encodeURIComponent(record.name)}`, record);
  }

  async removeLease(streamId: string, name: string): Promise<void> {
    await this.#db.batch([{ type: "del", key: `lease/${streamId}/${encodeURIComponent(name)}` }], {
      sync: true,
    });
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
    const text = JSON.stringify(value);
    await this.#db.batch([{ type: "put", key, value: `${checksum(key, text)}${text}` }], { sync: true });
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

type Phases = ReadonlyMap<string, { name: string; phase: StreamPhase }>;

function writeSidecar(folder: string, phases: Phases): Promise<void> {
  const text = JSON.stringify({ streams: Object.fromEntries(phases) }, undefined, 2);
  return writeDurably(join(folder, "streams.json"), `${checksum("streams.json", text)}\n${text}\n`);
}

async function readSidecar(
  folder: string,
): Promise<Map<string, { name: string; phase: StreamPhase }> | undefined> {
  let file: string;
  try {
    file = await readFile(join(folder, "streams.json"), "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
  const text = file.slice(9, -1);
  if (file.slice(0, 8) !== checksum("streams.json", text)) {
    throw new MetadataDamagedError(folder, "the checksum of streams.json does not match");
  }
  return new Map(
    Object.entries(
      (JSON.parse(text) as { streams: Record<string, { name: string; phase: StreamPhase }> }).streams,
    ),
  );
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

/** 8 hex digits. */
function checksum(key: string, text: string): string {
  return crc32c(Buffer.from(`${key}\n${text}`))
    .toString(16)
    .padStart(8, "0");
}
