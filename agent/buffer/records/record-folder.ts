/**
 * Opens the record buffer's folder and believes nothing that it cannot check.
 *
 *   chain/<part>/         small LevelDBs with the frames (chain-part.ts, record-chain.ts)
 *   marks/<generation>/   the sources' marks (mark-store.ts)
 *   sidecar, ends         what must be there (sidecar.ts)
 *   lock/                 held while the folder is open
 *   damaged-<n>/          what was found damaged, as it was; the newest two are kept
 *
 * Closed parts are known by their names and read when their turn comes. Only what a crash left
 * unsealed is read here, at most a few parts. Nothing is changed before all is known.
 */
import { mkdir, readdir, rm } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { syncFolder } from "../../../runtime/durable.ts";
import { HeadwaterError } from "../../../runtime/errors.ts";
import { type FolderLock, takeLock } from "../../../runtime/folder-lock.ts";
import { keepAside } from "../level/damaged-folders.ts";
import { findLevelDamage } from "../level/level-files.ts";
import { type ChainPart, holesIn, type PartScan, parsePartName, scanPart } from "./chain-part.ts";
import type { EpochState } from "./epoch-ledger.ts";
import { type Promises, settleEpochs } from "./epoch-settling.ts";
import { migrateFormerLayout } from "./former-layout.ts";
import { type ReadMarks, readMarks } from "./mark-store.ts";
import { EndsFile, readSidecar, type Sidecar } from "./sidecar.ts";

export interface OpenedFolder {
  /** To be closed last: until then nobody else opens the folder. */
  readonly lock: FolderLock;
  /** Oldest first; none is open. */
  readonly parts: ChainPart[];
  /** Those that a crash left without a full name, also without any frame. */
  readonly unsealed: ChainPart[];
  /** No part of this number or a higher one exists. */
  readonly nextNumber: number;
  /** Epochs of earlier starts that the gateway was not yet told to forget, oldest first. */
  readonly epochs: EpochState[];
  /** The highest epoch start ever used. */
  readonly epochStart: number;
  readonly serial: number;
  readonly marks: ReadMarks;
  /** What was found wrong; empty when nothing was. */
  readonly damage: string[];
  /** How many records that waited are not there any more, as far as is known. */
  readonly lostRecords: number;
  /** Since when something may be missing, µs. */
  readonly damagedFromUs: number;
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
export const endsFile = (dir: string): string => join(dir, "ends");
export const chainFolder = (dir: string): string => join(dir, "chain");
export const marksFolder = (dir: string): string => join(dir, "marks");

export async function openRecordFolder(dir: string, device: string): Promise<OpenedFolder> {
  await makeFolder(resolve(chainFolder(dir)));
  const lock = await takeLock(join(dir, "lock"), (cause) => new BufferLockedError(dir, cause));
  try {
    return { ...(await openLocked(dir, device)), lock };
  } catch (error) {
    await lock.close();
    throw error;
  }
}

/** A power cut that took a folder's name away would take all that was ever synced in it along. */
async function makeFolder(folder: string): Promise<void> {
  const made = await mkdir(folder, { recursive: true, mode: 0o700 });
  if (made === undefined) return;
  for (let at = folder; at.length >= resolve(made).length; at = dirname(at)) await syncFolder(dirname(at));
}

async function openLocked(dir: string, device: string): Promise<Omit<OpenedFolder, "lock">> {
  await migrateFormerLayout(dir, device);
  const promises = await readPromises(dir, device);
  const { latest, damage } = promises;
  const parts = await listParts(dir, promises.sidecar);
  const marks = await readMarks(marksFolder(dir));
  const aside: string[] = [...promises.damagedFiles];
  const scans = new Map<ChainPart, PartScan>();
  for (const part of parts.filter((each) => !each.sealed)) {
    const folder = join(chainFolder(dir), part.name);
    const scan = await takeUp(folder, part, marks);
    if (part.first > 0n && isForgotten(part, promises.sidecar)) {
      await rm(folder, { recursive: true });
      parts.splice(parts.indexOf(part), 1);
      continue;
    }
    if (scan.damage.length > 0) aside.push(folder);
    damage.push(...scan.damage);
    scans.set(part, scan);
  }
  const marksDamage = [...marks.damage, ...missingMarks(marks, latest)];
  if (marksDamage.length > 0) aside.push(marksFolder(dir));
  damage.push(...marksDamage);
  const holding = parts.filter((part) => part.first > 0n);
  if (promises.isMissing && holding.length > 0) damage.push("the sidecar is missing");
  const settled = await settleEpochs(promises, holding, scans, (part) =>
    scanPart(join(chainFolder(dir), part.name), part),
  );
  damage.push(...settled.damage);
  const starts = [latest?.epochStart ?? 0, ...holding.map((part) => part.epochStart)];
  return {
    parts: holding,
    unsealed: parts.filter((part) => !part.sealed),
    nextNumber: (parts.at(-1)?.number ?? 0) + 1,
    epochs: settled.epochs,
    epochStart: Math.max(...starts),
    serial: latest?.serial ?? 0,
    marks,
    damage,
    lostRecords: settled.lostRecords,
    damagedFromUs: latest?.oldestUs || latest?.writtenUs || 0,
    keptIn: damage.length > 0 ? await keepAside(dir, aside) : undefined,
  };
}

async function readPromises(dir: string, device: string): Promise<Promises> {
  const damage: string[] = [];
  const damagedFiles: string[] = [];
  const sidecar = await readSidecar(sidecarFile(dir), device);
  const ends = EndsFile.read(endsFile(dir), device);
  if (sidecar === "damaged") {
    damage.push("the sidecar's checksum does not match");
    damagedFiles.push(sidecarFile(dir));
  }
  if (ends === "damaged") {
    damage.push("neither slot of the file of ends can be believed");
    damagedFiles.push(endsFile(dir));
  }
  // It is made before the first sidecar is.
  if (ends === undefined && sidecar !== undefined) damage.push("the file of ends is missing");
  const good = [sidecar, ends].filter((each) => each !== undefined && each !== "damaged") as Sidecar[];
  const latest = good.sort((a, b) => b.serial - a.serial)[0];
  const known = sidecar === "damaged" ? undefined : sidecar;
  return {
    sidecar: known,
    ends: good.find((each) => each !== known),
    latest,
    damage,
    damagedFiles,
    isMissing: sidecar === undefined,
  };
}

/** Oldest first. Parts of epochs that the gateway has forgotten are removed: a power cut may bring them back. */
async function listParts(dir: string, sidecar: Sidecar | undefined): Promise<ChainPart[]> {
  const parts: ChainPart[] = [];
  for (const name of await readdir(chainFolder(dir))) {
    const part = parsePartName(name);
    if (part === undefined) continue;
    if (part.sealed && isForgotten(part, sidecar))
      await rm(join(chainFolder(dir), name), { recursive: true });
    else parts.push(part);
  }
  parts.sort((a, b) => a.number - b.number || a.epochStart - b.epochStart || b.records - a.records);
  const whole = new Set(parts.filter((part, i) => wasThinnedInto(part, parts[i + 1])));
  for (const part of whole) await rm(join(chainFolder(dir), part.name), { recursive: true });
  return parts.filter((part) => !whole.has(part));
}

/** The next one was made from this one, which had not gone yet (record-chain.ts). */
function wasThinnedInto(part: ChainPart, next: ChainPart | undefined): boolean {
  if (next?.holes !== true || next.number !== part.number) return false;
  return next.epoch === part.epoch && next.first === part.first && next.last === part.last;
}

function isForgotten(part: ChainPart, sidecar: Sidecar | undefined): boolean {
  if (sidecar === undefined || part.epochStart > sidecar.epochStart) return false;
  return !sidecar.epochs.some(({ start }) => start === part.epochStart);
}

/** Reads a part that was not sealed: what it holds, and its marks, which are nowhere else. */
async function takeUp(folder: string, part: ChainPart, marks: ReadMarks): Promise<PartScan> {
  const scan = await scanPart(folder, part);
  for (const [source, value] of scan.marks) {
    if (value.length === 0) marks.marks.delete(source);
    else marks.marks.set(source, value);
  }
  const { name, sizes } = part;
  Object.assign(part, scan.found, { name, sizes });
  // Of a part that was just being made anything may be missing.
  if (part.first === 0n && scan.marks.size === 0 && !scan.damage.some((detail) => /damaged/.test(detail))) {
    scan.damage.length = 0;
    return scan;
  }
  for (const detail of await findLevelDamage(folder)) scan.damage.push(`${name}: ${detail}`);
  part.holes = scan.damage.length > 0 || holesIn(scan.frames, part.first, part.last).length > 0;
  return scan;
}

function missingMarks(marks: ReadMarks, latest: Sidecar | undefined): string[] {
  const [generation, batches] = latest?.marks ?? [0, 0];
  if (marks.generation > generation || (marks.generation === generation && marks.batches >= batches))
    return [];
  if (marks.damage.length > 0) return [];
  return ["marks that sources had stored are gone, or older than they should be"];
}
