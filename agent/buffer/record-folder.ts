/**
 * Opens the record buffer's folder and believes nothing that it cannot check.
 *
 *   db/            LevelDB                       sidecar    what must be in it (sidecar.ts)
 *   lock/          held while the folder is open
 *   before/        db as it was before this open, until the open was found good
 *   suspect        a table could not be read while the buffer was open: rebuild at the next open
 *   damaged-<n>/   db as it was before an open that was found bad; the newest two are kept
 *
 * LevelDB deletes tables that a damaged MANIFEST does not name, so the old state is put aside first.
 * Tables never change, so hard links do; a crash at any point leaves `before`, with which the next
 * open begins again. Nothing is appended before `before` is gone.
 */
import { copyFile, link, mkdir, readdir, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { syncFolder } from "../../runtime/durable.ts";
import { HeadwaterError } from "../../runtime/errors.ts";
import { type Database, openDatabase, repairDatabase } from "./leveldb.ts";
import { findLogDamage } from "./leveldb-log.ts";
import { type EpochState, frameKey, placeInKey, within } from "./record-keys.ts";
import { loadEpochs, salvage } from "./record-salvage.ts";
import { readSidecar, type Sidecar } from "./sidecar.ts";

export interface OpenedFolder {
  readonly database: Database;
  /** To be closed after the database: until then nobody else opens the folder. */
  readonly lock: Database;
  readonly sidecar: Sidecar | undefined;
  /** Epochs of earlier starts that the gateway was not yet told to forget, oldest first. */
  readonly epochs: EpochState[];
  /** What was found wrong; empty when nothing was. */
  readonly damage: string[];
  /** The folder in which the damaged state was kept. */
  readonly keptIn: string | undefined;
}

/** Another process has the folder open. */
export class BufferLockedError extends HeadwaterError {
  constructor(folder: string, cause: unknown) {
    super("BUFFER_LOCKED", {
      message: `${folder} is in use`,
      hint: "end the other agent, or give this one a dataDir of its own",
      cause,
    });
  }
}

export const sidecarFile = (dir: string): string => join(dir, "sidecar");
export const suspectFile = (dir: string): string => join(dir, "suspect");

export async function openRecordFolder(dir: string, device: string): Promise<OpenedFolder> {
  await mkdir(dir, { recursive: true, mode: 0o700 });
  const lock = await takeLock(dir);
  try {
    return { ...(await openLocked(dir, device)), lock };
  } catch (error) {
    await lock.close();
    throw error;
  }
}

async function openLocked(dir: string, device: string): Promise<Omit<OpenedFolder, "lock">> {
  const db = join(dir, "db");
  const before = join(dir, "before");
  if (await exists(before)) {
    await rm(db, { recursive: true, force: true });
    await rename(before, db);
  }
  const read = await readSidecar(sidecarFile(dir), device);
  const sidecar = read === "damaged" ? undefined : read;
  const damage = read === "damaged" ? ["the sidecar's checksum does not match"] : [];
  if (read === undefined && !(await holdsData(db))) {
    await rm(db, { recursive: true, force: true });
    return { database: await openDatabase(db, true), sidecar, epochs: [], damage, keptIn: undefined };
  }
  await copyDatabase(db, before);
  const found = await inspectFiles(before);
  const suspect = await readFile(suspectFile(dir), "utf8").catch(() => undefined);
  if (suspect !== undefined) {
    damage.push(suspect);
    found.rebuild = true;
  }
  damage.push(...found.details);
  let opened = found.rebuild ? undefined : await openAndCheck(db, sidecar, damage);
  if (opened === undefined) opened = await rebuild(dir, sidecar, damage);
  else if (damage.length > 0) opened.epochs = await salvage(opened.database, sidecar, damage);
  const keptIn = await settle(dir, before, damage.length > 0);
  await rm(suspectFile(dir), { force: true });
  return { ...opened, sidecar, damage, keptIn };
}

interface Checked {
  database: Database;
  epochs: EpochState[];
}

/** @returns undefined when it does not open or lacks what the sidecar names; `damage` says why. */
async function openAndCheck(
  db: string,
  sidecar: Sidecar | undefined,
  damage: string[],
): Promise<Checked | undefined> {
  let database: Database;
  try {
    database = await openDatabase(db, false);
  } catch (error) {
    damage.push(`LevelDB does not open: ${reasonOf(error)}`);
    return undefined;
  }
  try {
    const epochs = await loadEpochs(database, sidecar?.floorStart ?? 0);
    const missing = await compare(database, epochs, sidecar);
    if (missing.length === 0) return { database, epochs };
    damage.push(...missing);
  } catch (error) {
    damage.push(`LevelDB cannot be read: ${reasonOf(error)}`);
  }
  await database.close();
  return undefined;
}

/** What the sidecar promises and the database does not hold. */
async function compare(
  database: Database,
  epochs: EpochState[],
  sidecar: Sidecar | undefined,
): Promise<string[]> {
  const missing: string[] = [];
  for (const promised of sidecar?.epochs ?? []) {
    const epoch = epochs.find((state) => state.start === promised.start);
    if (epoch === undefined) missing.push(`epoch ${promised.start} is gone`);
    else if (epoch.epoch !== promised.epoch) missing.push(`epoch ${promised.start} is another one`);
    else if (epoch.last < promised.last) {
      missing.push(`epoch ${promised.start} ends at frame ${epoch.last}, not at ${promised.last}`);
    }
  }
  for (const epoch of epochs) {
    if (epoch.removedTo >= epoch.last) continue;
    const [last] = await database
      .keys({ ...within(`f/${frameKey(epoch.start, 0n).slice(2, 10)}/`), reverse: true, limit: 1 })
      .all();
    const reaches = last === undefined ? 0n : placeInKey(last).sequence;
    const aside = await database
      .keys({ ...within(`x/${frameKey(epoch.start, 0n).slice(2, 10)}/`), limit: 1 })
      .all();
    if (reaches < epoch.last && aside.length === 0) {
      missing.push(`epoch ${epoch.start} lacks frames ${reaches + 1n} to ${epoch.last}`);
    }
  }
  return missing;
}

/** LevelDB's own repair on a copy; when that fails too, an empty database. */
async function rebuild(dir: string, sidecar: Sidecar | undefined, damage: string[]): Promise<Checked> {
  const db = join(dir, "db");
  await rm(db, { recursive: true, force: true });
  await copyDatabase(join(dir, "before"), db);
  let database: Database;
  try {
    await repairDatabase(db);
    database = await openDatabase(db, true);
  } catch (error) {
    damage.push(`repair failed: ${reasonOf(error)}`);
    await rm(db, { recursive: true, force: true });
    database = await openDatabase(db, true);
  }
  return { database, epochs: await salvage(database, sidecar, damage) };
}

async function settle(dir: string, before: string, damaged: boolean): Promise<string | undefined> {
  const gone = join(dir, "gone");
  await rm(gone, { recursive: true, force: true });
  if (!damaged) {
    await rename(before, gone);
    await syncFolder(dir);
    await rm(gone, { recursive: true, force: true });
    return undefined;
  }
  const kept = (await readdir(dir)).filter((name) => /^damaged-\d+$/.test(name));
  const numbers = kept.map((name) => Number(name.slice(8))).sort((a, b) => a - b);
  const keptIn = join(dir, `damaged-${(numbers.at(-1) ?? 0) + 1}`);
  await rename(before, keptIn);
  await syncFolder(dir);
  for (const number of numbers.slice(0, -1)) await rm(join(dir, `damaged-${number}`), { recursive: true });
  return keptIn;
}

/** Tables are linked, all else is copied; what appears under `to` is complete. */
async function copyDatabase(from: string, to: string): Promise<void> {
  const making = `${to}.making`;
  await rm(making, { recursive: true, force: true });
  await mkdir(making);
  for (const entry of await readdir(from, { withFileTypes: true }).catch(() => [])) {
    if (!entry.isFile() || entry.name === "LOCK") continue;
    const [source, target] = [join(from, entry.name), join(making, entry.name)];
    if (!/\.(ldb|sst)$/.test(entry.name)) await copyFile(source, target);
    // A file system without hard links, such as FAT.
    else await link(source, target).catch(() => copyFile(source, target));
  }
  await rename(making, to);
}

/** Looks at LevelDB's own files before LevelDB does. */
async function inspectFiles(folder: string): Promise<{ details: string[]; rebuild: boolean }> {
  const details: string[] = [];
  const names = await readdir(folder);
  const current = names.includes("CURRENT") ? (await readFile(join(folder, "CURRENT"), "latin1")).trim() : "";
  const rebuild = current === "" || !names.includes(current);
  if (rebuild)
    details.push(current === "" ? "CURRENT is missing" : `CURRENT names ${current}, which is missing`);
  for (const name of names) {
    if (!name.endsWith(".log") && name !== current) continue;
    const at = findLogDamage(await readFile(join(folder, name)));
    if (at !== undefined) details.push(`${name} is damaged at byte ${at}`);
  }
  return { details, rebuild };
}

async function holdsData(db: string): Promise<boolean> {
  const names = await readdir(db).catch(() => []);
  if (names.some((name) => /\.(ldb|sst)$/.test(name))) return true;
  for (const name of names.filter((entry) => entry.endsWith(".log"))) {
    if ((await readFile(join(db, name))).length > 0) return true;
  }
  return false;
}

/**
 * A second, empty LevelDB, opened only for its lock: the kernel frees it when the process dies, and
 * unlike that of `db` it can be taken before anything is looked at or put aside.
 */
async function takeLock(dir: string): Promise<Database> {
  const folder = join(dir, "lock");
  try {
    return await openDatabase(folder, true);
  } catch (error) {
    if (isLocked(error)) throw new BufferLockedError(dir, error);
    // It holds nothing; what a power cut made of it can go.
    await rm(folder, { recursive: true, force: true });
    return openDatabase(folder, true);
  }
}

async function exists(path: string): Promise<boolean> {
  return readdir(path).then(
    () => true,
    (error: NodeJS.ErrnoException) => error.code === "ENOTDIR",
  );
}

function isLocked(error: unknown): boolean {
  const { code, cause } = error as { code?: string; cause?: { code?: string } };
  return code === "LEVEL_LOCKED" || cause?.code === "LEVEL_LOCKED";
}

function reasonOf(error: unknown): string {
  const { message, cause } = error as { message: string; cause?: { message?: string } };
  return cause?.message ?? message;
}
