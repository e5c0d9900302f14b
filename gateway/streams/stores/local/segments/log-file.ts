/**
 * A segment's file as the log writes it: past the page cache (O_DIRECT, open(2)) where the file
 * system knows how, through it where not. A direct write is on disk when it returns (O_DSYNC: as if an fdatasync followed
 * it), so that the event loop, which may be busy for milliseconds, need not come by between the two.
 *
 * What a log writes is seldom read again from the disk, as readers at the tip get it from memory. A
 * copy of it in the page cache costs a fresh page for every four kilobytes, which is most of what
 * an append costs, and crowds out what somebody does read.
 *
 *   bytes at any position → [rest of the last block | bytes | zeros] in whole blocks → disk
 *
 * The block in which the last write ended is written again with the next one, as the page cache
 * does it. A crash in between leaves the same bytes there, or those and some new ones.
 *
 * A small write that makes the file longer writes some zeros behind itself, so that those that follow
 * only write over what is there: then no table of the file system has to be written with them.
 * What stands behind the last write is zeros, no more than `MAX_PADDING_BYTES`, and no entries;
 * `truncate` takes them away.
 *
 * The usual write, of one piece behind the last one, and each fdatasync are one call of node:fs and one
 * promise (file-calls.ts). Any other write, and one that the kernel took in part, goes the plain way, piece by
 * piece.
 */
import { constants, type FileHandle, open } from "node:fs/promises";
import { alignedMemory } from "../../../../../runtime/aligned-memory.ts";
import { FileCalls } from "./file-calls.ts";

/** What direct writes must be aligned to, in the file and in memory: the largest that disks in use ask for. */
export const BLOCK_BYTES = 4_096;
/** A write of up to so many bytes is a small one. */
const SMALL_BYTES = 32 * 1024;
const AHEAD_BYTES = 64 * 1024;
export const MAX_PADDING_BYTES = AHEAD_BYTES + BLOCK_BYTES;
/** What one write takes from memory; larger ones are written in pieces. */
const STAGE_BYTES = 2 * 1_048_576;
const MAX_IDLE_TRIES = 4;
/** As many as libuv has threads: more could not be written at once. */
const STAGES = 4;

export class LogFile {
  readonly #file: FileHandle;
  /** undefined where the file system refuses direct writes. */
  #direct: FileHandle | undefined;
  /** The block in which the last write ended, of which `#blockAt` is the position. */
  readonly #block = Buffer.alloc(BLOCK_BYTES);
  #blockAt = -1;
  /** Where the last write ended, and where the file does. */
  #end: number;
  #size: number;
  /** All that was written is on disk. Not so at the start: an earlier process may have left what is not. */
  #isSynced = false;
  readonly #syncs: FileCalls;
  readonly #writes: FileCalls | undefined;

  private constructor(file: FileHandle, direct: FileHandle | undefined, size: number) {
    this.#file = file;
    this.#direct = direct;
    this.#syncs = new FileCalls(file.fd);
    this.#writes = direct && new FileCalls(direct.fd);
    this.#end = size;
    this.#size = size;
  }

  /** @param flags "w+" for a new file, "r+" for one that is there */
  static async open(path: string, flags: "w+" | "r+"): Promise<LogFile> {
    const file = await open(path, flags);
    const { size } = await file.stat();
    if (!stages.areThere) return new LogFile(file, undefined, size);
    // File systems in memory, and some in user space, know no direct writes: EINVAL.
    const { O_WRONLY, O_DIRECT, O_DSYNC } = constants;
    const direct = await open(path, O_WRONLY | O_DIRECT | O_DSYNC).catch(() => undefined);
    return new LogFile(file, direct, size);
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
    return this.#size > this.#end;
  }

  /** On disk only after `datasync`. One at a time. @param position at most where the last write ended */
  write(bytes: Buffer, position: number): Promise<void> {
    const before = position % BLOCK_BYTES;
    const isUsual =
      this.#direct !== undefined &&
      before + bytes.length <= STAGE_BYTES &&
      (before === 0 || this.#blockAt === position - before);
    const stage = isUsual && this.#writes!.isFree ? stages.takeFree() : undefined;
    return stage === undefined
      ? this.#writeAnyhow(bytes, position)
      : this.#writeAtOnce(stage, bytes, position, before);
  }

  async datasync(): Promise<void> {
    if (this.#isSynced) return;
    await (this.#syncs.isFree ? this.#syncs.datasync() : this.#file.datasync());
    this.#isSynced = this.#direct !== undefined;
  }

  /** Nothing stands behind `end` any more; on disk when this resolves. */
  async truncate(end: number): Promise<void> {
    await this.#file.truncate(end);
    await this.#file.datasync();
    this.#end = end;
    this.#size = end;
    this.#blockAt = -1;
  }

  async close(): Promise<void> {
    this.#isSynced = false;
    // The kernel may give the number of a closed file to the next one that is opened.
    await Promise.all([this.#writes?.end(), this.#syncs.end()]);
    await Promise.all([this.#direct?.close(), this.#file.close()]);
  }

  /** @param before bytes of the last block that stand before `position` */
  #writeAtOnce(stage: Buffer, bytes: Buffer, position: number, before: number): Promise<void> {
    if (before > 0) this.#block.copy(stage, 0, 0, before);
    bytes.copy(stage, before);
    const at = position - before;
    const staged = before + bytes.length;
    const whole = this.#wholeBytes(at, staged, bytes.length);
    stage.fill(0, staged, whole);
    return this.#writes!.write(stage, whole, at, (error, written) => {
      const isWhole = error === null && written === whole;
      if (isWhole) this.#note(stage, at, staged, whole);
      stages.give(stage);
      if (isWhole) return undefined;
      this.#isSynced = false;
      if (error !== null && error.code !== "EINVAL") throw error;
      // The same bytes go to the same places once more: what stands there already stays what it is.
      return this.#writeAnyhow(bytes, position);
    });
  }

  async #writeAnyhow(bytes: Buffer, position: number): Promise<void> {
    if (this.#direct === undefined) return this.#writeThrough(bytes, position);
    const stage = await stages.take();
    try {
      await this.#writeBlocks(this.#direct, stage, bytes, position);
    } catch (error) {
      this.#isSynced = false;
      // Some file systems say only now that they cannot; others need the pieces in other sizes.
      if ((error as NodeJS.ErrnoException).code !== "EINVAL") throw error;
      await this.#direct.close();
      this.#direct = undefined;
      await this.#writeThrough(bytes, position);
    } finally {
      stages.give(stage);
    }
  }

  /** The file holds `whole` bytes of the stage at `at`, of which `staged` were asked for. */
  #note(stage: Buffer, at: number, staged: number, whole: number): void {
    const tail = staged - (staged % BLOCK_BYTES);
    this.#blockAt = tail < staged ? at + tail : -1;
    if (tail < staged) stage.copy(this.#block, 0, tail, tail + BLOCK_BYTES);
    this.#end = at + staged;
    this.#size = Math.max(this.#size, at + whole);
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
      const whole = this.#wholeBytes(at, staged, bytes.length);
      stage.fill(0, staged, whole);
      await writeWhole(direct, stage, whole, at);
      this.#note(stage, at, staged, whole);
      at += whole;
      staged = 0;
    }
  }

  async #writeThrough(bytes: Buffer, position: number): Promise<void> {
    this.#isSynced = false;
    for (let done = 0; done < bytes.length; ) {
      done += (await this.#file.write(bytes, done, bytes.length - done, position + done)).bytesWritten;
    }
    this.#end = position + bytes.length;
    this.#size = Math.max(this.#size, this.#end);
  }

  /** What is written of a stage that holds `staged` bytes: whole blocks, and zeros ahead where that pays. */
  #wholeBytes(at: number, staged: number, writeBytes: number): number {
    const whole = Math.ceil(staged / BLOCK_BYTES) * BLOCK_BYTES;
    const isAhead = writeBytes <= SMALL_BYTES && at + whole > this.#size;
    return isAhead ? whole + AHEAD_BYTES : whole;
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

/** A short write is gone on with at the block that it ended in; one that gets nowhere again and again is an error. */
async function writeWhole(direct: FileHandle, stage: Buffer, whole: number, at: number): Promise<void> {
  let tries = 0;
  for (let written = 0; written < whole; ) {
    const { bytesWritten } = await direct.write(stage, written, whole - written, at + written);
    const reached = written + bytesWritten - ((written + bytesWritten) % BLOCK_BYTES);
    tries = reached > written ? 0 : tries + 1;
    if (tries === MAX_IDLE_TRIES) throw Object.assign(new Error("a write gets no further"), { code: "EIO" });
    written = reached;
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

  /** undefined when all are in use. */
  takeFree(): Buffer | undefined {
    return this.#make().pop();
  }

  take(): Promise<Buffer> | Buffer {
    return this.takeFree() ?? new Promise((resolve) => this.#waiting.push(resolve));
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
