/**
 * How far a file has been read, in words that survive what happens to log files: it is renamed, copied
 * and truncated, removed, restored from a backup with another inode. A file is known by its inode and
 * by two samples of its bytes: its first, and those just before the place.
 */
import { type FileHandle, open, readdir, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";

const SAMPLE_BYTES = 64;
const COMPRESSED = /\.(gz|bz2|xz|zst|lz4|zip)$/;
/** A folder with more rotated files is none of a log. */
const MAX_SIBLINGS = 1_000;

export interface FilePlace {
  /** The path of the config: another one means another file. */
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
}

export function encodePlace(place: FilePlace): Buffer {
  return Buffer.from(JSON.stringify(place));
}

/** Undefined for what is no place of this path. */
export function decodePlace(bytes: Uint8Array | undefined, path: string): FilePlace | undefined {
  if (bytes === undefined) return undefined;
  const place = JSON.parse(Buffer.from(bytes).toString()) as FilePlace;
  return place.path === path ? place : undefined;
}

export interface FoundFile {
  readonly path: string;
  readonly id: string;
  readonly size: number;
  readonly modifiedNs: bigint;
}

/** Undefined when there is none, or it is no ordinary file. */
export async function findFile(path: string): Promise<FoundFile | undefined> {
  try {
    const { dev, ino, size, mtimeNs, isFile } = withMethods(await stat(path, { bigint: true }));
    return isFile ? { path, id: `${dev}:${ino}`, size: Number(size), modifiedNs: mtimeNs } : undefined;
  } catch (error) {
    if (["ENOENT", "ENOTDIR"].includes((error as NodeJS.ErrnoException).code ?? "")) return undefined;
    throw error;
  }
}

function withMethods<T extends { isFile(): boolean }>(stats: T): Omit<T, "isFile"> & { isFile: boolean } {
  return { ...stats, isFile: stats.isFile() };
}

/** What `path` was rotated to (`app.log.1`, `app.log-20261121`), oldest first, then `path` itself. */
export async function rotatedFiles(path: string): Promise<FoundFile[]> {
  const folder = dirname(path);
  const name = basename(path);
  const names = await readdir(folder).catch(() => []);
  const rotated = names.filter(
    (one) =>
      one.length > name.length &&
      one.startsWith(name) &&
      ".-_~".includes(one[name.length]!) &&
      !COMPRESSED.test(one),
  );
  const found: FoundFile[] = [];
  for (const one of rotated.slice(0, MAX_SIBLINGS)) {
    const file = await findFile(join(folder, one));
    if (file !== undefined) found.push(file);
  }
  // Renaming leaves the time of the last write alone.
  found.sort((a, b) =>
    a.modifiedNs === b.modifiedNs
      ? b.path.localeCompare(a.path, "en", { numeric: true })
      : a.modifiedNs < b.modifiedNs
        ? -1
        : 1,
  );
  const current = await findFile(path);
  return current === undefined ? found : [...found.filter(({ id }) => id !== current.id), current];
}

/** True when the file begins and goes on as it did when the place was noted. */
export async function holdsPlace(
  file: FileHandle,
  place: Pick<FilePlace, "offset" | "head" | "before">,
): Promise<boolean> {
  const head = Buffer.from(place.head, "base64");
  const before = Buffer.from(place.before, "base64");
  const [first, last] = [
    await sample(file, 0, head.length),
    await sample(file, place.offset - before.length, before.length),
  ];
  return first.equals(head) && last.equals(before);
}

/** The file among those found that holds the place: the same one, else a copy of it. */
export async function fileOfPlace(
  files: readonly FoundFile[],
  place: FilePlace,
): Promise<FoundFile | undefined> {
  const same = files.filter(({ id }) => id === place.id);
  // With nothing read of it there is nothing to know a copy by.
  const copies = place.offset === 0 ? [] : files.filter(({ id }) => id !== place.id);
  for (const file of [...same, ...copies.toReversed()]) {
    if (file.size < place.offset) continue;
    let handle: FileHandle | undefined;
    try {
      handle = await open(file.path, "r");
      if (await holdsPlace(handle, place)) return file;
    } catch {
      // Gone since it was listed, or not for us to read.
    } finally {
      await handle?.close();
    }
  }
  return undefined;
}

/** The samples of a place at `offset`. */
export async function samplesAt(file: FileHandle, offset: number): Promise<{ head: string; before: string }> {
  const head = await sample(file, 0, Math.min(SAMPLE_BYTES, offset));
  const before = await sample(file, Math.max(0, offset - SAMPLE_BYTES), Math.min(SAMPLE_BYTES, offset));
  return { head: head.toString("base64"), before: before.toString("base64") };
}

async function sample(file: FileHandle, from: number, length: number): Promise<Buffer> {
  if (length <= 0) return Buffer.alloc(0);
  const { bytesRead, buffer } = await file.read(Buffer.alloc(length), 0, length, from);
  return buffer.subarray(0, bytesRead);
}
