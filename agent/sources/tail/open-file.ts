/**
 * A file while it is read: how far, and by which samples it will be known again. Reads windows, and
 * says whether what it read belongs behind what was read before.
 */
import type { FileHandle } from "node:fs/promises";
import {
  type FilePlace,
  type FoundFile,
  holdsPlace,
  openFound,
  SAMPLE_BYTES,
  sample,
  samplesAt,
} from "./file-place.ts";
import { GzipFile, type ReadableFile } from "./gzip-file.ts";

/** Where a file is read on. */
export type Position = Pick<FilePlace, "offset" | "head" | "before" | "was">;

export const START: Position = { offset: 0, head: "", before: "" };

/** Times of files go in steps: what happens within one after a look leaves the time as it was. */
const TIME_STEP_MS = 20;

export class OpenFile {
  readonly found: FoundFile;
  readonly #file: ReadableFile;
  readonly #was: string | undefined;
  #offset: number;
  #head: Buffer;
  #before: Buffer;
  /** As last looked at, to see whether it changed. */
  #modifiedNs: bigint;
  #size: number;
  /** Before it was last seen to hold the place; once it was truncated, `#modifiedNs` is of what came later. */
  #heldNs: bigint;
  #quietSinceMs: number;
  /** Since when it may have changed without a trace in its size and time. */
  #unsureSinceMs: number | undefined;
  #looked = false;
  #removed = false;

  private constructor(found: FoundFile, file: ReadableFile, place: Position, nowMs: number) {
    this.found = found;
    this.#file = file;
    this.#offset = place.offset;
    this.#head = Buffer.from(place.head, "base64");
    this.#before = Buffer.from(place.before, "base64");
    this.#was = place.was;
    this.#modifiedNs = found.modifiedNs;
    this.#heldNs = found.modifiedNs;
    this.#size = found.size;
    this.#quietSinceMs = nowMs;
  }

  /**
   * @param place where it is read on. It keeps the samples that it came with: the file may have been
   *   truncated since it was found, which is seen by them at the first reading.
   * @throws FileMoved
   */
  static async open(found: FoundFile, place: Position, nowMs: number): Promise<OpenFile> {
    return new OpenFile(found, await openFound(found), place, nowMs);
  }

  get id(): string {
    return this.found.id;
  }

  /** Everything before is stored. */
  get offset(): number {
    return this.#offset;
  }

  get size(): number {
    return this.#size;
  }

  get modifiedNs(): bigint {
    return this.#modifiedNs;
  }

  /** Since when nothing came. */
  get quietSinceMs(): number {
    return this.#quietSinceMs;
  }

  /** It has no name any more. */
  get removed(): boolean {
    return this.#removed;
  }

  get compressed(): boolean {
    return this.found.compressed;
  }

  /** As if it had never been there: the one before it is still the last that was read. */
  get isUnread(): boolean {
    return this.#offset === 0 && !this.compressed;
  }

  /** Whether it is the file of the place; an inode alone is given to another once it is free. */
  isAt({ id, bornNs }: FilePlace): boolean {
    return id === this.id && bornNs === String(this.found.bornNs);
  }

  /** Why a compressed file ended before its end. */
  get damage(): string | undefined {
    return this.#file instanceof GzipFile ? this.#file.damage : undefined;
  }

  /**
   * True when it was written to since the last look, or may have been: at the first look, as it was found
   * before, and once more after each change. A compressed one is not looked at.
   */
  async changed(nowMs: number): Promise<boolean> {
    if (this.compressed) return false;
    const { size, mtimeNs, nlink } = await (this.#file as FileHandle).stat({ bigint: true });
    const changed = Number(size) !== this.#size || mtimeNs !== this.#modifiedNs;
    const sure = this.#looked && !changed;
    const again = this.#unsureSinceMs !== undefined && nowMs - this.#unsureSinceMs >= TIME_STEP_MS;
    if (changed) this.#quietSinceMs = nowMs;
    if (!sure) this.#unsureSinceMs = nowMs;
    else if (again) this.#unsureSinceMs = undefined;
    this.#looked = true;
    this.#size = Number(size);
    this.#modifiedNs = mtimeNs;
    this.#removed = nlink === 0n;
    return !sure || again;
  }

  /** Its last write, as it is now; not of a compressed one. */
  async writtenNs(): Promise<bigint> {
    return (await (this.#file as FileHandle).stat({ bigint: true })).mtimeNs;
  }

  /** Its first bytes, whatever was read. */
  async first(into: Buffer): Promise<Buffer> {
    const { bytesRead } = await this.#file.read(into, 0, into.length, 0);
    return into.subarray(0, bytesRead);
  }

  /**
   * What comes next, as much as there is and `into` holds. Undefined when the file was truncated or
   * replaced by a shorter or other content, even while it was read.
   */
  async read(into: Buffer): Promise<Buffer | undefined> {
    const { bytesRead } = await this.#file.read(into, 0, into.length, this.#offset);
    const window = into.subarray(0, bytesRead);
    // Looked at afterwards: what was true after the reading was so before it.
    if (!this.compressed && !(await this.#isBehind(window))) return undefined;
    this.#heldNs = this.#modifiedNs;
    return window;
  }

  async #isBehind(window: Buffer): Promise<boolean> {
    const { head, before } = this.#samples();
    if (!(await holdsPlace(this.#file, { offset: this.#offset, head, before }))) return false;
    const begin = window.subarray(0, SAMPLE_BYTES);
    return (await sample(this.#file, this.#offset, begin.length)).equals(begin);
  }

  #samples(): Pick<FilePlace, "head" | "before"> {
    return { head: this.#head.toString("base64"), before: this.#before.toString("base64") };
  }

  /** The first `end` bytes of the window are stored. */
  advance(window: Buffer, end: number): void {
    this.#head = this.#headAt(window, end);
    this.#before = this.#beforeAt(window, end);
    this.#offset += end;
  }

  #headAt(window: Buffer, end: number): Buffer {
    if (this.#head.length >= SAMPLE_BYTES) return this.#head;
    return Buffer.concat([this.#head, window.subarray(0, Math.min(end, SAMPLE_BYTES - this.#head.length))]);
  }

  #beforeAt(window: Buffer, end: number): Buffer {
    const from = Math.max(0, end - SAMPLE_BYTES);
    const added = window.subarray(from, end);
    if (added.length === SAMPLE_BYTES) return Buffer.from(added);
    return Buffer.concat([this.#before.subarray(-(SAMPLE_BYTES - added.length)), added]);
  }

  /** @param path the one that is followed @param window of which `end` bytes will be stored */
  place(path: string, timeUs: number, window?: Buffer, end = 0): FilePlace {
    const { id, bornNs } = this.found;
    const samples =
      window === undefined
        ? this.#samples()
        : {
            head: this.#headAt(window, end).toString("base64"),
            before: this.#beforeAt(window, end).toString("base64"),
          };
    return {
      path,
      id,
      bornNs: String(bornNs),
      offset: this.#offset + end,
      ...samples,
      modifiedNs: String(this.#heldNs),
      timeUs,
      ...(this.#was !== undefined && { was: this.#was }),
    };
  }

  /** The place behind all that it holds, read or not. */
  async end(path: string, timeUs: number): Promise<FilePlace> {
    return { ...this.place(path, timeUs), offset: this.#size, ...(await samplesAt(this.#file, this.#size)) };
  }

  async close(): Promise<void> {
    await this.#file.close();
  }
}
