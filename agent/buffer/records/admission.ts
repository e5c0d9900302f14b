/**
 * Lets appends into the buffer while there is room, and does with the others what the config says:
 * `pause` keeps them waiting in their order, `reject` refuses, `drop-oldest` makes room.
 */

import { BufferFullError } from "../record-buffer.ts";
import type { Append } from "./group-commit.ts";

/** More than that does not wait in memory for room: clients that come and go would fill it. */
const MAX_PAUSED_BYTES = 8 * 1_048_576;
/** Of reports, or an eighth of a small buffer: dropping leaves some, and sources have some when it is full. */
const REPORTS_BYTES = 65_536;

export interface AdmissionOptions {
  readonly maxBytes: number;
  readonly whenFull: "pause" | "reject" | "drop-oldest";
  /** Bytes of frames that wait. */
  readonly storedBytes: () => number;
  /** True while the disk has less free space than the config leaves to others. */
  readonly diskIsShort: () => boolean;
  /** Stores it with the next group commit. */
  readonly store: (append: Append) => Promise<void>;
  /** Makes some room by dropping what is oldest; false when nothing is left to be dropped. */
  readonly drop: () => Promise<boolean>;
}

interface Paused extends Append {
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

export class Admission {
  readonly #options: AdmissionOptions;
  /** For an append of more there may never be room. */
  readonly #largestBytes: number;
  readonly #reportsBytes: number;
  /** Of reports that were let in although there was no room, since there was some. */
  #reportedBytes = 0;
  /** Bytes of appends that are admitted and not yet on disk. */
  #gatheringBytes = 0;
  #paused: Paused[] = [];
  #pausedBytes = 0;
  #makingRoom = false;
  #ended: Error | undefined;

  constructor(options: AdmissionOptions) {
    this.#options = options;
    const { maxBytes, whenFull } = options;
    this.#reportsBytes = Math.min(REPORTS_BYTES, maxBytes / 8);
    this.#largestBytes = whenFull === "drop-oldest" ? maxBytes - this.#reportsBytes : maxBytes;
  }

  get usedBytes(): number {
    return this.#options.storedBytes() + this.#gatheringBytes;
  }

  /** As `RecordBuffer.refuses`. */
  refuses(bytes: number): boolean {
    if (bytes > this.#largestBytes) return true;
    if (this.#paused.length > 0) return this.#pausedBytes + bytes > MAX_PAUSED_BYTES;
    return this.#options.whenFull === "reject" && !this.#fits(bytes);
  }

  admit(append: Append): Promise<void> {
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    const { maxBytes, whenFull } = this.#options;
    if (this.#paused.length === 0 && this.#fits(append.bytes)) return this.pass(append);
    if (this.refuses(append.bytes)) return Promise.reject(new BufferFullError(this.usedBytes, maxBytes));
    return new Promise((resolve, reject) => {
      this.#pausedBytes += append.bytes;
      this.#paused.push({ ...append, resolve, reject });
      if (whenFull === "drop-oldest") void this.#makeRoom();
    });
  }

  /** As `RecordBuffer.report`. */
  async report(append: Append): Promise<boolean> {
    if (this.#ended !== undefined) throw this.#ended;
    const fits = this.#paused.length === 0 && this.#fits(append.bytes);
    if (fits) this.#reportedBytes = 0;
    else if (this.#options.whenFull === "drop-oldest") return this.admit(append).then(() => true);
    else if (this.#reportedBytes + append.bytes > this.#reportsBytes)
      throw new BufferFullError(this.usedBytes, this.#options.maxBytes);
    else this.#reportedBytes += append.bytes;
    await this.pass(append);
    return fits;
  }

  /** Without asking for room: what is missing must be known, and marks take next to none. */
  async pass(append: Append): Promise<void> {
    this.#gatheringBytes += append.bytes;
    try {
      await this.#options.store(append);
    } finally {
      this.#gatheringBytes -= append.bytes;
      // The estimate was more than what it took.
      if (this.#paused.length > 0) this.roomReturned();
    }
  }

  #fits(bytes: number): boolean {
    return this.usedBytes + bytes <= this.#options.maxBytes && !this.#options.diskIsShort();
  }

  /** Something was acknowledged or dropped, or the disk has room again. */
  roomReturned(): void {
    while (this.#paused.length > 0 && this.#fits(this.#paused[0]!.bytes)) {
      const next = this.#paused.shift()!;
      this.#pausedBytes -= next.bytes;
      this.pass(next).then(next.resolve, next.reject);
    }
    if (this.#paused.length > 0 && this.#options.whenFull === "drop-oldest") void this.#makeRoom();
  }

  /** Drops until the first paused append fits, or nothing but reports is left: then it waits for the uplink, or the disk. */
  async #makeRoom(): Promise<void> {
    if (this.#makingRoom) return;
    this.#makingRoom = true;
    try {
      while (this.#paused.length > 0 && this.#ended === undefined) {
        if (this.#fits(this.#paused[0]!.bytes)) this.roomReturned();
        else if (this.usedBytes === 0) break;
        else {
          const gathered = this.#gatheringBytes > 0;
          if (!(await this.#options.drop()) && !gathered) break;
        }
      }
    } catch (error) {
      this.#rejectPaused(error);
    } finally {
      this.#makingRoom = false;
    }
  }

  #rejectPaused(error: unknown): void {
    this.#pausedBytes = 0;
    for (const waiting of this.#paused.splice(0)) waiting.reject(error);
  }

  /** Nothing more is admitted; what waits for room is refused. */
  end(error: Error): void {
    this.#ended ??= error;
    this.#rejectPaused(error);
  }
}
