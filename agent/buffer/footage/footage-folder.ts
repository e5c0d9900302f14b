/**
 * Opens the database of the footage buffer and finds out whether all is there.
 *
 *   units/      LevelDB             footage.json  sidecar: which units must be in it (.damaged: the last that was)
 *   snapshot/   hard links to the files of units/ as they were before it was opened; gone once all was found
 *   damaged/    the last folder in which something was missing, for whoever wants to look
 *   lock/       an empty LevelDB, of which the kernel lets one process be the owner
 *
 * LevelDB deletes the tables that a damaged MANIFEST does not name as soon as it opens. The links
 * cost nothing and keep them, so that a repair still finds them.
 */
import { randomBytes } from "node:crypto";
import { link, mkdir, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { Level } from "level";
import type { Epoch } from "../../../protocol/frame.ts";
import { readUInt53, writeUInt53 } from "../../../protocol/record-batch.ts";
import { describeError, HeadwaterError } from "../../../runtime/errors.ts";
import { type FolderLock, takeLock } from "../../../runtime/folder-lock.ts";
import type { Log } from "../../../runtime/log.ts";
import { type Database, hasLevelCode, repairDatabase } from "../level/leveldb.ts";
import { BufferDamagedError } from "../record-buffer.ts";
import { FootageIndex, type UnitEntry, type UnitRange } from "./footage-index.ts";
import { readSidecar, type Sidecar } from "./footage-sidecar.ts";

/** What stands under a unit's index key: u32 bytes | u64 producerUs | u64 endUs. */
const INDEX_BYTES = 20;
const KEY = /^i!([^!]+)!([0-9a-f]{8})!([0-9a-f]{16})!([0-9a-f]{16})$/;

/** 2020-01-01. A device that does not know the time of day yet gives times before it (agent/time). */
const CLOCK_SET_US = 1_577_836_800_000_000;

/** Another process has the buffer open. */
export class FootageLockedError extends HeadwaterError {
  constructor(folder: string, cause: unknown) {
    super("FOOTAGE_LOCKED", {
      message: `${folder} is open in another process`,
      hint: "stop the other agent, or give this one a dataDir of its own",
      cause,
    });
  }
}

export const sidecarFile = (dir: string): string => join(dir, "footage.json");

export interface OpenedFolder {
  readonly db: Database;
  readonly lock: FolderLock;
  readonly index: FootageIndex;
  /** What the sidecar says should be there and is not. */
  readonly missing: readonly UnitRange[];
  /** Then it cannot be known what is missing. */
  readonly sidecarDamaged: boolean;
  /** Of the newest epoch that was ever begun; 0 in a new folder. */
  readonly epochStart: number;
  /** Per camera, the end of the newest unit that was ever stored, in producer time. */
  readonly newestUs: Map<string, number>;
}

/** @throws FootageLockedError, FootageVersionError, and what the file system throws */
export async function openFootageFolder(dir: string, log: Log): Promise<OpenedFolder> {
  await mkdir(dir, { recursive: true, mode: 0o700 });
  // Before any file is moved: another process may be at work on them.
  const lock = await takeLock(join(dir, "lock"), (cause) => new FootageLockedError(dir, cause));
  try {
    return { ...(await openUnits(dir, log)), lock };
  } catch (error) {
    await lock.close();
    throw error;
  }
}

type OpenedUnits = Omit<OpenedFolder, "lock">;
type FoundUnits = Omit<OpenedUnits, "sidecarDamaged">;

async function openUnits(dir: string, log: Log): Promise<OpenedUnits> {
  const found = await readSidecar(sidecarFile(dir));
  if (found === "damaged") await putSidecarAside(sidecarFile(dir), log);
  const sidecar = found === "damaged" ? undefined : found;
  return { ...(await findUnits(dir, sidecar, log)), sidecarDamaged: found === "damaged" };
}

/** The database is all there is to be believed then: what it lacks is not missed. */
async function putSidecarAside(file: string, log: Log): Promise<void> {
  const kept = `${file}.damaged`;
  const damage = new BufferDamagedError(
    file,
    "its checksum does not match; the footage that is found is sent",
  );
  log.error({ kept, error: describeError(damage) }, "footage buffer's sidecar damaged");
  await rename(file, kept);
}

async function findUnits(dir: string, sidecar: Sidecar | undefined, log: Log): Promise<FoundUnits> {
  const units = join(dir, "units");
  const snapshot = join(dir, "snapshot");
  const fileCount = await takeSnapshot(units, snapshot);
  if (fileCount === 0) return finish(await openDb(units, true), new FootageIndex(), sidecar);
  try {
    const opened = await openFound(units, sidecar);
    if (opened.missing.length === 0) {
      await rm(snapshot, { recursive: true, force: true });
      return opened;
    }
    await opened.db.close();
    log.warn({ folder: units, ranges: opened.missing.length }, "footage is missing; repairing");
  } catch (error) {
    log.warn({ folder: units, error: describeError(error) }, "footage buffer does not open; repairing");
  }
  return repair(dir, sidecar, log);
}

/**
 * Hard links to all files as they are. One that an interrupted opening left is older, and so right:
 * it takes the folder's place. @returns how many files there are
 */
async function takeSnapshot(units: string, snapshot: string): Promise<number> {
  if ((await filesOf(snapshot)).length > 0) {
    await rm(units, { recursive: true, force: true });
    await rename(snapshot, units);
  }
  const files = (await filesOf(units)).filter((file) => file !== "LOCK" && !file.startsWith("LOG"));
  if (files.length === 0) return 0;
  // Made beside and renamed, so that a crash leaves a whole one or none.
  const making = `${snapshot}.tmp`;
  await rm(making, { recursive: true, force: true });
  await mkdir(making);
  for (const file of files) await link(join(units, file), join(making, file));
  await rename(making, snapshot);
  return files.length;
}

/** Without folders: a repair leaves one, `lost`, with the files that it did not use. */
async function filesOf(folder: string): Promise<string[]> {
  try {
    const entries = await readdir(folder, { withFileTypes: true });
    return entries.filter((entry) => entry.isFile()).map(({ name }) => name);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  }
}

/** Goes back to the snapshot and lets LevelDB rebuild its MANIFEST from the tables and logs. */
async function repair(dir: string, sidecar: Sidecar | undefined, log: Log): Promise<FoundUnits> {
  const units = join(dir, "units");
  const damaged = join(dir, "damaged");
  await rm(damaged, { recursive: true, force: true });
  await rename(units, damaged);
  await rename(join(dir, "snapshot"), units);
  try {
    await repairDatabase(units);
    const opened = await openFound(units, sidecar);
    if (opened.missing.length === 0) await rm(damaged, { recursive: true, force: true });
    return opened;
  } catch (error) {
    // Where not even a new one can be made the disk is at fault, and what is there stays where it is.
    const fresh = await openDb(join(dir, "fresh"), true);
    await fresh.close();
    const lost = new BufferDamagedError(damaged, "its footage could not be read; began a new one", error);
    log.error({ error: describeError(lost) }, "footage buffer lost");
    await rm(damaged, { recursive: true, force: true });
    await rename(units, damaged);
    await rename(join(dir, "fresh"), units);
    return finish(await openDb(units, false), new FootageIndex(), sidecar);
  }
}

/** @throws what LevelDB says; it is closed then, as nobody else, and no repair, could have the folder otherwise. */
async function openFound(units: string, sidecar: Sidecar | undefined): Promise<FoundUnits> {
  const db = await openDb(units, false);
  try {
    return finish(db, await readIndex(db), sidecar);
  } catch (error) {
    await db.close();
    throw error;
  }
}

/**
 * Opens the closed database again after a write failed. A damaged table would fail others for ever, whenever its turn
 * comes to be compacted: what can be read of it goes into new ones, and units that are gone with it are found out when
 * they are read. A crash meanwhile leaves what the next start repairs.
 */
export async function openAnew(dir: string, failure: unknown, log: Log): Promise<Database> {
  const units = join(dir, "units");
  if (hasLevelCode(failure, "LEVEL_CORRUPTION")) {
    log.warn({ folder: units, error: describeError(failure) }, "footage buffer damaged; repairing");
    await repairDatabase(units);
  }
  return openDb(units, false);
}

/** A repair that failed is still due, whatever the closed database said meanwhile. */
export function failureToMend(before: unknown, latest: unknown): unknown {
  return hasLevelCode(before, "LEVEL_CORRUPTION") ? before : latest;
}

/** Footage does not compress, is read once and in order, and the agent has little memory. */
export async function openDb(units: string, createIfMissing: boolean): Promise<Database> {
  const db: Database = new Level(units, {
    keyEncoding: "utf8",
    valueEncoding: "buffer",
    createIfMissing,
    compression: false,
    cacheSize: 512 * 1024,
    writeBufferSize: 1_048_576,
    maxOpenFiles: 100,
  });
  await db.open();
  return db;
}

async function readIndex(db: Database): Promise<FootageIndex> {
  const index = new FootageIndex();
  for await (const [key, value] of db.iterator({ gt: "i!", lt: "i~", fillCache: false })) {
    const entry = entryOf(key, value);
    if (entry !== undefined) index.add(entry);
  }
  return index;
}

function finish(db: Database, index: FootageIndex, sidecar: Sidecar | undefined): FoundUnits {
  const newestUs = new Map(sidecar?.newestUs);
  for (const { camera, toUs, epochStart } of index.ranges()) {
    // Of earlier epochs the sidecar knows all.
    if (epochStart < (sidecar?.epochStart ?? 0)) continue;
    newestUs.set(camera, Math.max(newestUs.get(camera) ?? 0, toUs));
  }
  const starts = [...index.ranges(), ...(sidecar?.waiting ?? [])].map((range) => range.epochStart);
  const epochStart = starts.reduce((most, start) => Math.max(most, start), sidecar?.epochStart ?? 0);
  return {
    db,
    index,
    missing: (sidecar?.waiting ?? []).flatMap((range) => holesIn(range, index)),
    epochStart,
    newestUs,
  };
}

/** The end of a camera's newest footage, with one more unit: what has no true time yet was made after all that has one. */
export function newestWith(beforeUs: number | undefined, endUs: number): number {
  return endUs < CLOCK_SET_US ? endUs : Math.max(beforeUs ?? 0, endUs);
}

/** The parts of `range` that are not in the index. */
function holesIn(range: UnitRange, index: FootageIndex): UnitRange[] {
  const holes: UnitRange[] = [];
  let fromUs = range.fromUs;
  let first = range.first;
  for (const entry of index.between(range.camera, range.epoch, range.first, range.last)) {
    if (entry.sequence > first) {
      holes.push({ ...range, first, last: entry.sequence - 1n, fromUs, toUs: entry.producerUs });
    }
    first = entry.sequence + 1n;
    fromUs = entry.endUs;
  }
  if (first <= range.last) holes.push({ ...range, first, fromUs });
  return holes;
}

/** @param prefix `u` the unit, `i` what the index needs of it, `x` a unit that could not be read */
export function unitKey(
  prefix: "u" | "i" | "x",
  entry: Omit<UnitEntry, "bytes" | "producerUs" | "endUs">,
): string {
  const start = entry.epochStart.toString(16).padStart(8, "0");
  const epoch = entry.epoch.toString(16).padStart(16, "0");
  return `${prefix}!${entry.camera}!${start}!${epoch}!${entry.sequence.toString(16).padStart(16, "0")}`;
}

export function indexValue(entry: UnitEntry): Buffer {
  const value = Buffer.alloc(INDEX_BYTES);
  value.writeUInt32BE(entry.bytes, 0);
  writeUInt53(value, entry.producerUs, 4);
  writeUInt53(value, entry.endUs, 12);
  return value;
}

function entryOf(key: string, value: Buffer): UnitEntry | undefined {
  const match = KEY.exec(key);
  if (match === null || value.length !== INDEX_BYTES) return undefined;
  const [, camera, start, epoch, sequence] = match as unknown as [string, string, string, string, string];
  return {
    camera,
    epochStart: Number.parseInt(start, 16),
    epoch: BigInt(`0x${epoch}`),
    sequence: BigInt(`0x${sequence}`),
    bytes: value.readUInt32BE(0),
    producerUs: readUInt53(value, 4),
    endUs: readUInt53(value, 12),
  };
}

export function randomEpoch(): Epoch {
  return randomBytes(8).readBigUInt64BE();
}
