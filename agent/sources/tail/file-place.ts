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

export interface FilePlace {
  /** The path that is followed: another one means another file. */
  readonly path: string;
  /** Device and inode; empty where there was no file yet. */
  readonly id: string;
  /** When that was made, ns since 1970 UTC, as text: a number does not hold it. A copy of it is younger. */
  readonly bornNs: string;
  /** 0 only with `done`, where nothing is known of the content. */
  readonly offset: number;
  /** The first bytes, at most 64 and none behind `offset`; base64. */
  readonly head: string;
  /** The bytes just before `offset`, at most 64; base64. */
  readonly before: string;
  /** Of its last write as it was seen, ns since 1970 UTC, as text. */
  readonly modifiedNs: string;
  /** When it was noted, µs. */
  readonly timeUs: number;
  /** It was read to its end and left: what comes after it is read next, and that it is gone is no loss. */
  readonly done?: boolean;
  /** With `done`: the file that came next, of which nothing was read yet. */
  readonly next?: string;
  /** The place, as `placeKey` says it, that this one goes on from. */
  readonly was?: string;
}

type FormerPlace = Omit<FilePlace, "bornNs" | "modifiedNs"> & Partial<FilePlace>;

export function placeKey({ id, offset }: FilePlace): string {
  return `${id}@${offset}`;
}

export function encodePlace(place: FilePlace): Buffer {
  return Buffer.from(JSON.stringify(place));
}

/** Undefined for what is no place of this path, or of any when none is given. */
export function decodePlace(bytes: Uint8Array | undefined, path?: string): FilePlace | undefined {
  if (bytes === undefined) return undefined;
  const stored = JSON.parse(Buffer.from(bytes).toString()) as FormerPlace;
  // The first form of places had no times of the file: it was last written before they were noted.
  const place = { bornNs: "0", modifiedNs: String(BigInt(Math.floor(stored.timeUs)) * 1_000n), ...stored };
  return path === undefined || place.path === path ? place : undefined;
}

export interface FoundFile {
  readonly path: string;
  readonly id: string;
  readonly bornNs: bigint;
  readonly size: number;
  readonly modifiedNs: bigint;
  readonly compressed: boolean;
}

/** Undefined when there is none, or it is no ordinary file. */
export async function findFile(path: string): Promise<FoundFile | undefined> {
  try {
    const stats = await stat(path, { bigint: true });
    if (!stats.isFile()) return undefined;
    const { dev, ino, size, mtimeNs, birthtimeNs } = stats;
    const compressed = path.endsWith(".gz");
    const id = `${dev}:${ino}`;
    return { path, id, bornNs: birthtimeNs, size: Number(size), modifiedNs: mtimeNs, compressed };
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
  // Noted of a file that was truncated in that moment: nobody holds it.
  if (before.length < Math.min(SAMPLE_BYTES, place.offset)) return false;
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
): Promise<Pick<FilePlace, "head" | "before">> {
  const head = await sample(file, 0, Math.min(SAMPLE_BYTES, offset));
  const before = await sample(file, Math.max(0, offset - SAMPLE_BYTES), Math.min(SAMPLE_BYTES, offset));
  return { head: head.toString("base64"), before: before.toString("base64") };
}

export async function sample(file: ReadableFile, from: number, length: number): Promise<Buffer> {
  if (length <= 0) return Buffer.alloc(0);
  const buffer = Buffer.alloc(length);
  const { bytesRead } = await file.read(buffer, 0, length, from);
  return buffer.subarray(0, bytesRead);
}
