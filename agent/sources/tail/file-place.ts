/**
 * How far a file has been read, in words that survive what happens to log files: it is renamed, copied
 * and truncated, compressed, removed, restored from a backup with another inode. A file is known by its
 * inode and by two samples of its bytes: its first, and those just before the place.
 */
import { open, stat } from "node:fs/promises";
import { pause } from "../../../runtime/backoff.ts";
import { GzipFile, type ReadableFile } from "./gzip-file.ts";
import { WINDOW_BYTES, type Window } from "./window.ts";

export const SAMPLE_BYTES = 64;
/** So many compressed files are looked into for a place: each has to be decompressed up to it. */
const MAX_DECOMPRESSED = 20;

export interface FilePlace {
  /** The path that is followed: another one means another file. */
  readonly path: string;
  /** Device and inode. */
  readonly id: string;
  readonly offset: number;
  /** The first bytes, at most 64 and none behind `offset`; base64. */
  readonly head: string;
  /** The bytes just before `offset`, at most 64; base64. */
  readonly before: string;
  /** When it was noted, µs. */
  readonly timeUs: number;
  /** It was read to its end and is gone: that it is not found again is no loss. */
  readonly done?: boolean;
  /** With nothing read of it: what was left for it. A file rotated since then was rotated unread. */
  readonly after?: Left;
  /** The place, as `placeKey` says it, that this one goes on from. */
  readonly was?: string;
}

export interface Left {
  readonly id: string;
  /** Of its last write, ns since 1970 UTC, as text: a number does not hold it. */
  readonly modifiedNs: string;
}

export function placeKey({ id, offset }: FilePlace): string {
  return `${id}@${offset}`;
}

export function encodePlace(place: FilePlace): Buffer {
  return Buffer.from(JSON.stringify(place));
}

/** Undefined for what is no place of this path, or of any when none is given. */
export function decodePlace(bytes: Uint8Array | undefined, path?: string): FilePlace | undefined {
  if (bytes === undefined) return undefined;
  const place = JSON.parse(Buffer.from(bytes).toString()) as FilePlace;
  return path === undefined || place.path === path ? place : undefined;
}

export interface FoundFile {
  readonly path: string;
  readonly id: string;
  readonly size: number;
  readonly modifiedNs: bigint;
  readonly compressed: boolean;
}

/** Undefined when there is none, or it is no ordinary file. */
export async function findFile(path: string): Promise<FoundFile | undefined> {
  try {
    const stats = await stat(path, { bigint: true });
    if (!stats.isFile()) return undefined;
    const { dev, ino, size, mtimeNs } = stats;
    const compressed = path.endsWith(".gz");
    return { path, id: `${dev}:${ino}`, size: Number(size), modifiedNs: mtimeNs, compressed };
  } catch (error) {
    if (["ENOENT", "ENOTDIR"].includes((error as NodeJS.ErrnoException).code ?? "")) return undefined;
    throw error;
  }
}

/**
 * Between two looks a file got another name, or another file its name, as happens while logs are rotated.
 * Never leaves the source: it looks again.
 */
export class FileMoved extends Error {
  constructor(path: string) {
    super(`${path} was renamed or replaced just now`);
  }
}

/** @throws FileMoved when another file has the name by now */
export async function openFound({ path, id, compressed }: FoundFile): Promise<ReadableFile> {
  const handle = await open(path, "r").catch((error: NodeJS.ErrnoException) => {
    throw error.code === "ENOENT" ? new FileMoved(path) : error;
  });
  const { dev, ino } = await handle.stat({ bigint: true });
  if (id === `${dev}:${ino}`) return compressed ? new GzipFile(handle, path) : handle;
  await handle.close();
  throw new FileMoved(path);
}

const STEADY_TRIES = 20;
const STEADY_WAIT_MS = 5;

/** Does again, from the first look on, what met a rotation under way. @throws FileMoved when it never ends */
export async function steadily<T>(look: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await look();
    } catch (error) {
      if (!(error instanceof FileMoved) || tries === STEADY_TRIES) throw error;
      await pause(STEADY_WAIT_MS);
    }
  }
}

/** True when the file begins and goes on as it did when the place was noted. */
export async function holdsPlace(
  file: ReadableFile,
  place: Pick<FilePlace, "offset" | "head" | "before">,
): Promise<boolean> {
  const head = Buffer.from(place.head, "base64");
  const before = Buffer.from(place.before, "base64");
  // The head first: where it differs a compressed file need not be decompressed any further.
  if (!(await sample(file, 0, head.length)).equals(head)) return false;
  return (await sample(file, place.offset - before.length, before.length)).equals(before);
}

/** False also for a file that is not for us to read. @throws FileMoved */
export async function foundHoldsPlace(found: FoundFile, place: FilePlace): Promise<boolean> {
  if (!found.compressed && found.size < place.offset) return false;
  let file: ReadableFile | undefined;
  try {
    file = await openFound(found);
    return await holdsPlace(file, place);
  } catch (error) {
    if (error instanceof FileMoved) throw error;
    return false;
  } finally {
    await file?.close();
  }
}

/** Of those found the one that holds the place: the same file, else a copy, else a compressed one. @throws FileMoved */
export async function fileOfPlace(
  files: readonly FoundFile[],
  place: FilePlace,
): Promise<FoundFile | undefined> {
  const isSame = ({ id, compressed }: FoundFile): boolean => id === place.id && !compressed;
  // With nothing read of it there is nothing to know a copy by.
  const copies = place.offset === 0 ? [] : files.filter((file) => !isSame(file));
  const newestFirst = copies.toReversed();
  const candidates = [
    ...files.filter(isSame),
    ...newestFirst.filter(({ compressed }) => !compressed),
    ...newestFirst.filter(({ compressed }) => compressed).slice(0, MAX_DECOMPRESSED),
  ];
  for (const file of candidates) if (await foundHoldsPlace(file, place)) return file;
  return undefined;
}

/** Behind the last whole line: one that is half written is read whole, so its beginning is searched backwards. */
export async function endOf(
  found: FoundFile,
  window: Window,
): Promise<Pick<FilePlace, "offset" | "head" | "before">> {
  const from = Math.max(0, found.size - WINDOW_BYTES);
  const file = await openFound(found);
  try {
    const lines = await window.use(async (bytes) => {
      const { bytesRead } = await file.read(bytes, 0, found.size - from, from);
      return bytes.subarray(0, bytesRead).lastIndexOf(10) + 1;
    });
    return { offset: from + lines, ...(await samplesAt(file, from + lines)) };
  } finally {
    await file.close();
  }
}

/** The samples of a place at `offset`. */
export async function samplesAt(
  file: ReadableFile,
  offset: number,
): Promise<{ head: string; before: string }> {
  const head = await sample(file, 0, Math.min(SAMPLE_BYTES, offset));
  const before = await sample(file, Math.max(0, offset - SAMPLE_BYTES), Math.min(SAMPLE_BYTES, offset));
  return { head: head.toString("base64"), before: before.toString("base64") };
}

async function sample(file: ReadableFile, from: number, length: number): Promise<Buffer> {
  if (length <= 0) return Buffer.alloc(0);
  const buffer = Buffer.alloc(length);
  const { bytesRead } = await file.read(buffer, 0, length, from);
  return buffer.subarray(0, bytesRead);
}
