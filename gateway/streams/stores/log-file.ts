/**
 * A segment's file as the log writes it: past the page cache (O_DIRECT, open(2)) where the file
 * system knows how, through it where not.
 *
 * What a log writes is seldom read again from the disk, as readers at the tip get it from memory. A
 * copy of it in the page cache costs a fresh page for every four kilobytes, which is most of what
 * an append costs, and crowds out what somebody does read.
 *
 *   bytes at any position → [rest of the last block | bytes | zeros] in whole blocks → disk
 *
 * The block in which the last write ended is written again with the next one, as the page cache
 * does it. A crash in between leaves the same bytes there, or those and some new ones. Behind the
 * last write there are up to a block of zeros, which are no entries; `truncate` takes them away.
 */
import { constants, type FileHandle, open } from "node:fs/promises";
import { alignedMemory } from "../../../runtime/aligned-memory.ts";

/** What direct writes must be aligned to, in the file and in memory: the largest that disks in use ask for. */
export const BLOCK_BYTES = 4_096;
/** What one write takes from memory; larger ones are written in pieces. */
const STAGE_BYTES = 2 * 1_048_576;
/** As many as libuv has threads: more could not be written at once. */
const STAGES = 4;

export class LogFile {
  readonly #file: FileHandle;
  /** undefined where the file system refuses direct writes. */
  #direct: FileHandle | undefined;
  /** The last block that was written, of which `#blockAt` is the position; only what lies before the next write counts. */
  readonly #block = Buffer.alloc(BLOCK_BYTES);
  #blockAt = -1;
  /** Zeros stand behind what was written last. */
  #padded = false;

  private constructor(file: FileHandle, direct: FileHandle | undefined) {
    this.#file = file;
    this.#direct = direct;
  }

  /** @param flags "w+" for a new file, "r+" for one that is there */
  static async open(path: string, flags: "w+" | "r+"): Promise<LogFile> {
    const file = await open(path, flags);
    if (!stages.areThere) return new LogFile(file, undefined);
    // File systems in memory, and some in user space, know no direct writes: EINVAL.
    const direct = await open(path, constants.O_WRONLY | constants.O_DIRECT).catch(() => undefined);
    return new LogFile(file, direct);
  }

  /** How long the file is, in bytes, with what was written behind the log's end. */
  async size(): Promise<number> {
    return (await this.#file.stat()).size;
  }

  /** For reading; what is written through it is not known here. */
  get handle(): FileHandle {
    return this.#file;
  }

  /** Whether the file goes on behind what was written to it. */
  get isPadded(): boolean {
    return this.#padded;
  }

  /** On disk only after `datasync`. One at a time. @param position at most where the last write ended */
  async write(bytes: Buffer, position: number): Promise<void> {
    if (this.#direct === undefined) {
      await writeThrough(this.#file, bytes, position);
      return;
    }
    const stage = await stages.take();
    try {
      await this.#writeBlocks(this.#direct, stage, bytes, position);
    } catch (error) {
      // Some file systems say only now that they cannot; others need the pieces in other sizes.
      if ((error as NodeJS.ErrnoException).code !== "EINVAL") throw error;
      await this.#direct.close();
      this.#direct = undefined;
      await writeThrough(this.#file, bytes, position);
    } finally {
      stages.give(stage);
    }
  }

  async datasync(): Promise<void> {
    await this.#file.datasync();
  }

  /** Nothing stands behind `end` any more; on disk when this resolves. */
  async truncate(end: number): Promise<void> {
    await this.#file.truncate(end);
    await this.#file.datasync();
    this.#padded = false;
    this.#blockAt = -1;
  }

  async close(): Promise<void> {
    await Promise.all([this.#direct?.close(), this.#file.close()]);
  }

  async #writeBlocks(direct: FileHandle, stage: Buffer, bytes: Buffer, position: number): Promise<void> {
    const from = position - (position % BLOCK_BYTES);
    const before = position - from;
    if (before > 0) await this.#copyBlock(from, before, stage);
    let at = from;
    let staged = before;
    for (let done = 0; done < bytes.length; ) {
      const piece = Math.min(bytes.length - done, STAGE_BYTES - staged);
      bytes.copy(stage, staged, done, done + piece);
      done += piece;
      staged += piece;
      const whole = Math.ceil(staged / BLOCK_BYTES) * BLOCK_BYTES;
      stage.fill(0, staged, whole);
      for (let written = 0; written < whole; ) {
        written += (await direct.write(stage, written, whole - written, at + written)).bytesWritten;
        written -= written % BLOCK_BYTES;
      }
      this.#padded = whole > staged;
      this.#blockAt = at + whole - BLOCK_BYTES;
      stage.copy(this.#block, 0, whole - BLOCK_BYTES, whole);
      at += whole;
      staged = 0;
    }
  }

  /** Puts what stands in the block before the write into `stage`. */
  async #copyBlock(from: number, bytes: number, stage: Buffer): Promise<void> {
    if (this.#blockAt === from) {
      this.#block.copy(stage, 0, 0, bytes);
      return;
    }
    const { bytesRead } = await this.#file.read(stage, 0, bytes, from);
    stage.fill(0, bytesRead, bytes);
  }
}

async function writeThrough(file: FileHandle, bytes: Buffer, position: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    done += (await file.write(bytes, done, bytes.length - done, position + done)).bytesWritten;
  }
}

/** Memory that direct writes are made from, of all logs together. */
class Stages {
  #free: Buffer[] | undefined;
  #there = false;
  readonly #waiting: Array<(stage: Buffer) => void> = [];

  /** False where this process has no such memory. */
  get areThere(): boolean {
    this.#make();
    return this.#there;
  }

  take(): Promise<Buffer> | Buffer {
    return this.#make().pop() ?? new Promise((resolve) => this.#waiting.push(resolve));
  }

  give(stage: Buffer): void {
    const next = this.#waiting.shift();
    if (next !== undefined) next(stage);
    else this.#make().push(stage);
  }

  #make(): Buffer[] {
    if (this.#free !== undefined) return this.#free;
    const memory = alignedMemory(STAGES * STAGE_BYTES);
    this.#there = memory !== undefined;
    this.#free = [];
    for (let at = 0; at < (memory?.length ?? 0); at += STAGE_BYTES) {
      this.#free.push(memory!.subarray(at, at + STAGE_BYTES));
    }
    return this.#free;
  }
}

const stages = new Stages();
