/**
 * The marks of all sources, in memory and on disk.
 *
 * A mark is stored in the part of the chain that holds its records. Before a part can go, its marks
 * are merged here: into a small LevelDB `marks/<generation>`, which begins with all marks in one
 * synced batch and is only ever added to. Like a part of the chain it is read by its log alone. Each
 * open begins a new generation, as does one that has grown large; the old one goes after the new one
 * is whole, so a crash leaves at least one that is.
 */
import { mkdir, open, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { syncFolder } from "../../../runtime/durable.ts";
import { findLevelDamage } from "../level/level-files.ts";
import { type Database, type Operation, openDatabase, writeSynced } from "../level/leveldb.ts";
import { LogReader } from "../level/log-reader.ts";
import { generationPrefix, markKey, markPrefix } from "./record-keys.ts";
import { decodeWriteBatch } from "./write-batch.ts";

/** A generation that was given so much more than its marks take is begun anew. */
const SPARE_BYTES = 1_048_576;

export interface ReadMarks {
  readonly marks: Map<string, Buffer>;
  readonly generation: number;
  readonly batches: number;
  readonly damage: string[];
}

/** What the newest whole generation holds. */
export async function readMarks(dir: string): Promise<ReadMarks> {
  const damage: string[] = [];
  for (const generation of await generations(dir)) {
    const read = await readGeneration(join(dir, nameOf(generation)), generation, damage);
    if (read === undefined) continue;
    const details = await findLevelDamage(join(dir, nameOf(generation)));
    damage.push(...details.map((detail) => `marks of generation ${generation}: ${detail}`));
    return { ...read, generation, damage };
  }
  return { marks: new Map(), generation: 0, batches: 0, damage };
}

async function generations(dir: string): Promise<number[]> {
  const names = await readdir(dir).catch(() => []);
  const numbers = names.filter((name) => /^\d{8}$/.test(name)).map(Number);
  return numbers.sort((a, b) => b - a);
}

const nameOf = (generation: number): string => String(generation).padStart(8, "0");

async function readGeneration(
  folder: string,
  generation: number,
  damage: string[],
): Promise<{ marks: Map<string, Buffer>; batches: number } | undefined> {
  const name = (await readdir(folder)).filter((entry) => /^\d+\.log$/.test(entry)).sort()[0];
  if (name === undefined) return undefined;
  const log = new LogReader(await open(join(folder, name), "r"));
  const marks = new Map<string, Buffer>();
  let whole = false;
  let batches = 0;
  try {
    for (let record = await log.next(); record !== undefined; record = await log.next()) {
      batches++;
      for (const { key, value } of decodeWriteBatch(record) ?? []) {
        if (key.startsWith(generationPrefix)) whole = true;
        else if (key.startsWith(markPrefix)) apply(marks, key.slice(markPrefix.length), value);
      }
    }
    if (log.damaged > 0) damage.push(`marks of generation ${generation} are damaged: some are older or gone`);
  } finally {
    await log.close();
  }
  return whole || log.damaged > 0 ? { marks, batches } : undefined;
}

function apply(marks: Map<string, Buffer>, source: string, value: Uint8Array | undefined): void {
  if (value === undefined || value.length === 0) marks.delete(source);
  else marks.set(source, Buffer.from(value));
}

export class MarkStore {
  readonly #dir: string;
  readonly #marks: Map<string, Buffer>;
  #database: Database | undefined;
  #generation: number;
  #batches = 0;
  #addedBytes = 0;

  /** @param read what the folder holds, with what unsealed parts add to it */
  constructor(dir: string, read: ReadMarks) {
    this.#dir = dir;
    this.#marks = read.marks;
    this.#generation = read.generation;
  }

  async start(): Promise<void> {
    await mkdir(this.#dir, { recursive: true, mode: 0o700 });
    await this.#renew();
  }

  /** As the sidecar keeps it. */
  get state(): [generation: number, batches: number] {
    return [this.#generation, this.#batches];
  }

  get(source: string): Buffer | undefined {
    return this.#marks.get(source);
  }

  names(prefix: string, limit: number): string[] {
    const names = [...this.#marks.keys()].filter((name) => name.startsWith(prefix)).sort();
    return names.slice(0, limit);
  }

  /** They are on disk already, in a part of the chain. */
  set(marks: ReadonlyMap<string, Uint8Array>): void {
    for (const [source, value] of marks) apply(this.#marks, source, value);
  }

  /** Resolves once they are on disk here, so that the part which brought them may go. */
  async merge(marks: ReadonlyMap<string, Uint8Array>): Promise<void> {
    if (marks.size === 0) return;
    const operations = [...marks].map(([source, value]) => put(source, value));
    this.#addedBytes += bytesOf(marks);
    // What is in memory is newer than these, and is stored too by the time it counts.
    if (this.#addedBytes > SPARE_BYTES + 2 * bytesOf(this.#marks)) return this.#renew();
    await writeSynced(this.#database!, operations);
    this.#batches++;
  }

  async #renew(): Promise<void> {
    const generation = Math.max(this.#generation, (await generations(this.#dir))[0] ?? 0) + 1;
    const folder = join(this.#dir, nameOf(generation));
    const bytes = bytesOf(this.#marks);
    const database = await openDatabase(folder, true, 4 * bytes + 8 * SPARE_BYTES);
    const operations: Operation[] = [...this.#marks].map(([source, value]) => put(source, value));
    operations.push({ type: "put", key: generationPrefix + generation, value: Buffer.alloc(0) });
    await writeSynced(database, operations);
    await syncFolder(folder);
    await syncFolder(this.#dir);
    await this.#database?.close();
    this.#database = database;
    this.#generation = generation;
    this.#batches = 1;
    this.#addedBytes = 0;
    for (const old of await generations(this.#dir)) {
      if (old !== generation) await rm(join(this.#dir, nameOf(old)), { recursive: true, force: true });
    }
  }

  async close(): Promise<void> {
    await this.#database?.close();
  }
}

function put(source: string, value: Uint8Array): Operation {
  return { type: "put", key: markKey(source), value: Buffer.from(value) };
}

function bytesOf(marks: ReadonlyMap<string, Uint8Array>): number {
  let bytes = 0;
  for (const [source, value] of marks) bytes += source.length + value.length + 16;
  return bytes;
}
