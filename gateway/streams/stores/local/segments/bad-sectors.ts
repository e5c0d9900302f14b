/**
 * A segment's file on a disk of which some sectors can no longer be read. What stands there reads as zeros, which are
 * no entry: so it is told as damage, with its place, and all the rest is read.
 *
 *   read → EIO → block by block, past the page cache → the blocks that fail again: zeros
 *                                └ none can be read, nor any near them → the disk is gone, not a sector: EIO
 *
 * Past the page cache, as that would answer in place of a disk that was unplugged, and what is merely out of reach would
 * be taken for lost.
 */
import { constants, type FileHandle, open } from "node:fs/promises";
import { alignedMemory } from "../../../../../runtime/aligned-memory.ts";
import { BLOCK_BYTES } from "./log-file.ts";
import type { Extent } from "./segment-index.ts";

/** Where a walk reads: an open file, or one that is opened when it must be. */
export type ReadableFile = {
  read(
    into: Buffer,
    offset: number,
    bytes: number,
    position: number,
  ): Promise<{ readonly bytesRead: number }>;
};

/** Of all files, one block at a time: undefined where this process has no such memory. */
let memory: Buffer | undefined;
let lastTurn: Promise<unknown> = Promise.resolve();

export class PastBadSectors implements ReadableFile {
  readonly #path: string;
  readonly #file: ReadableFile;
  /** What could not be read so far, in whole blocks. */
  readonly unreadable: Extent[] = [];

  /** @param file open at `path`; the caller's to close */
  constructor(path: string, file: ReadableFile) {
    this.#path = path;
    this.#file = file;
  }

  /** @throws EIO where the disk answers nothing; what else the file says */
  async read(into: Buffer, offset: number, bytes: number, position: number): Promise<{ bytesRead: number }> {
    try {
      return await this.#file.read(into, offset, bytes, position);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EIO") throw error;
      const turn = lastTurn.then(() => this.#readBlocks(into.subarray(offset, offset + bytes), position));
      lastTurn = turn.catch(() => undefined);
      const bytesRead = await turn;
      if (bytesRead === undefined) throw withPath(error as Error, this.#path);
      return { bytesRead };
    }
  }

  /** Whether the block in the middle of which `end` lies could not be read. */
  isUnreadableAt(end: number): boolean {
    return this.unreadable.some(({ from, to }) => from < end && end < to);
  }

  /** @returns how many bytes there are; undefined where the disk answers nothing, or cannot be asked */
  async #readBlocks(into: Buffer, position: number): Promise<number | undefined> {
    memory ??= alignedMemory(BLOCK_BYTES);
    if (memory === undefined) return undefined;
    const file = await open(this.#path, constants.O_RDONLY | constants.O_DIRECT).catch(() => undefined);
    if (file === undefined) return undefined;
    try {
      const { size } = await file.stat();
      const end = Math.min(position + into.length, size);
      const bad: number[] = [];
      let answers = false;
      for (let at = position - (position % BLOCK_BYTES); at < end; at += BLOCK_BYTES) {
        const from = Math.max(at, position);
        const to = Math.min(at + BLOCK_BYTES, end);
        if (await isReadable(file, memory, at)) {
          memory.copy(into, from - position, from - at, to - at);
          answers = true;
        } else {
          into.fill(0, from - position, to - position);
          bad.push(at);
        }
      }
      if (!answers && !(await answersNear(file, memory, position, size))) return undefined;
      for (const at of bad) this.unreadable.push({ from: at, to: at + BLOCK_BYTES });
      return Math.max(0, end - position);
    } catch {
      // What knows no direct reads says so here.
      return undefined;
    } finally {
      await file.close();
    }
  }
}

/** A read of an open file says what failed, and not where. */
function withPath(error: Error, path: string): Error {
  if (!error.message.includes(path)) error.message += ` '${path}'`;
  return error;
}

/** A bad place may be as large as what a flash memory erases at once: looked for twice as far away each time, on both sides. */
async function answersNear(
  file: FileHandle,
  block: Buffer,
  position: number,
  size: number,
): Promise<boolean> {
  const around = position - (position % BLOCK_BYTES);
  for (let far = BLOCK_BYTES; far < size; far *= 2) {
    for (const at of [around - far, around + far]) {
      if (at >= 0 && at < size && (await isReadable(file, block, at))) return true;
    }
  }
  return false;
}

/** Leaves the block's bytes in `block`. @throws what is not the sector's fault */
async function isReadable(file: FileHandle, block: Buffer, at: number): Promise<boolean> {
  try {
    await file.read(block, 0, BLOCK_BYTES, at);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EIO") return false;
    throw error;
  }
}
