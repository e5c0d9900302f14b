/**
 * Reads a LevelDB write-ahead log record by record, without LevelDB, while it may still grow.
 *
 * A small database of the chain keeps all that it holds in its one log. Opening such a database with
 * LevelDB would write every byte once more, as a table, and would pass over damage in silence; this
 * reads it as it is and counts what is damaged. Format: see leveldb-log.ts.
 *
 * Behind damage it goes on where it can: with the next record when the damaged one's length still
 * leads to one, else with the next block.
 */
import type { FileHandle } from "node:fs/promises";
import { crc32c } from "../../../runtime/crc32c.ts";
import { BLOCK_BYTES, LOG_HEAD_BYTES, unmaskCrc } from "./leveldb-log.ts";

const WINDOW_BYTES = 8 * BLOCK_BYTES;
/** A record of our own is a group commit; one call may be large, but not without end. */
const MAX_RECORD_BYTES = 1_073_741_824;

const FULL = 1;
const FIRST = 2;
const LAST = 4;

/** What stands at a place in the window. */
type Piece = { readonly type: number; readonly bytes: Buffer } | "bad" | "more" | "padding" | "zeros";

export class LogReader {
  readonly #handle: FileHandle;
  /** Whole blocks of the file from `#windowAt` on, of which `#windowBytes` are there. */
  #window = Buffer.allocUnsafeSlow(0);
  #windowAt = 0;
  #windowBytes = 0;
  /** The next piece of a record stands here. */
  #at = 0;
  /** The record that is being put together began here. */
  #recordAt = 0;
  #pieces: Buffer[] = [];
  #pieceBytes = 0;
  /** After damage, pieces are passed over until a record begins. */
  #skipping = false;
  #damaged = 0;
  /** Damage behind which nothing good was found yet. */
  #trailing = 0;
  #firstDamageAt: number | undefined;

  constructor(handle: FileHandle) {
    this.#handle = handle;
  }

  /**
   * How many records, or blocks of unknown records, could not be read and have a good one behind them.
   * What is bad at the very end may be a write that a power cut stopped, of which nobody was told.
   */
  get damaged(): number {
    return this.#damaged;
  }

  get firstDamageAt(): number | undefined {
    return this.#damaged > 0 ? this.#firstDamageAt : undefined;
  }

  /**
   * The next whole record, in memory of its own; undefined where none is, or not yet: asking again
   * goes on from there.
   */
  async next(): Promise<Buffer | undefined> {
    for (;;) {
      const piece = this.#piece();
      if (piece === "padding") continue;
      if (piece === "more" || piece === "zeros") {
        const goesOn = piece === "more" ? await this.#fill() : !(await this.#zerosToEnd());
        if (goesOn && piece === "zeros") this.#resync();
        if (goesOn) continue;
        this.#restart();
        return undefined;
      }
      if (piece === "bad") this.#resync();
      else {
        const record = this.#add(piece.type, piece.bytes);
        if (record !== undefined) return record;
      }
    }
  }

  async close(): Promise<void> {
    this.#window = Buffer.allocUnsafeSlow(0);
    this.#windowBytes = 0;
    await this.#handle.close();
  }

  /** Looks at `#at` and, unless more bytes are needed or all is bad, moves it behind. */
  #piece(): Piece {
    const blockLeft = BLOCK_BYTES - (this.#at % BLOCK_BYTES);
    if (blockLeft < LOG_HEAD_BYTES) {
      this.#at += blockLeft;
      return "padding";
    }
    const read = this.#readAt(this.#at);
    if (typeof read !== "string") this.#at += LOG_HEAD_BYTES + read.bytes.length;
    return read;
  }

  #readAt(at: number): Piece {
    const from = at - this.#windowAt;
    const left = this.#windowBytes - from;
    if (from < 0 || left < LOG_HEAD_BYTES) return "more";
    const blockLeft = BLOCK_BYTES - (at % BLOCK_BYTES);
    const window = this.#window;
    const length = window.readUInt16LE(from + 4);
    const type = window[from + 6]!;
    // Zeros: allocated and not written. What stands in later blocks decides whether that is an end.
    if (type === 0 && length === 0 && isZero(window, from, from + Math.min(left, blockLeft))) {
      return left > blockLeft ? "zeros" : "more";
    }
    if (type === 0 || type > LAST || LOG_HEAD_BYTES + length > blockLeft) return "bad";
    const end = from + LOG_HEAD_BYTES + length;
    if (end > this.#windowBytes) return "more";
    if (crc32c(window, from + 6, end) !== unmaskCrc(window.readUInt32LE(from))) return "bad";
    return { type, bytes: window.subarray(from + LOG_HEAD_BYTES, end) };
  }

  #add(type: number, bytes: Buffer): Buffer | undefined {
    const begins = type === FULL || type === FIRST;
    if (begins) {
      if (this.#pieces.length > 0) this.#noteDamage(this.#recordAt);
      this.#skipping = false;
      this.#restart(this.#at - LOG_HEAD_BYTES - bytes.length);
    } else if (this.#skipping) return undefined;
    else if (this.#pieces.length === 0) {
      this.#noteDamage(this.#at - LOG_HEAD_BYTES - bytes.length);
      this.#skipping = true;
      return undefined;
    }
    this.#pieces.push(bytes);
    this.#pieceBytes += bytes.length;
    if (this.#pieceBytes > MAX_RECORD_BYTES) {
      this.#noteDamage(this.#recordAt);
      this.#skipping = true;
      this.#pieces = [];
      return undefined;
    }
    if (type !== FULL && type !== LAST) return undefined;
    const record = Buffer.concat(this.#pieces, this.#pieceBytes);
    this.#pieces = [];
    this.#recordAt = this.#at;
    this.#damaged += this.#trailing;
    this.#trailing = 0;
    return record;
  }

  #noteDamage(at: number): void {
    this.#trailing++;
    this.#firstDamageAt ??= at;
  }

  /** A record whose end is not there yet is read again from its beginning. */
  #restart(at?: number): void {
    if (at !== undefined) this.#recordAt = at;
    else if (this.#pieces.length > 0) this.#at = this.#recordAt;
    this.#pieces = [];
    this.#pieceBytes = 0;
  }

  #resync(): void {
    this.#noteDamage(this.#pieces.length > 0 ? this.#recordAt : this.#at);
    this.#pieces = [];
    this.#pieceBytes = 0;
    this.#skipping = true;
    const nextBlock = this.#at - (this.#at % BLOCK_BYTES) + BLOCK_BYTES;
    const length = this.#window.readUInt16LE(this.#at - this.#windowAt + 4);
    const next = this.#at + LOG_HEAD_BYTES + length;
    this.#at = next < nextBlock && typeof this.#readAt(next) !== "string" ? next : nextBlock;
  }

  /** Reads the blocks from `#at` on. @returns false when the file holds no more than was known */
  async #fill(): Promise<boolean> {
    // Pieces are views of the window that is about to be overwritten.
    this.#pieces = this.#pieces.map((piece) =>
      piece.buffer === this.#window.buffer ? Buffer.from(piece) : piece,
    );
    if (this.#window.length === 0) this.#window = Buffer.allocUnsafeSlow(WINDOW_BYTES);
    const blockAt = this.#at - (this.#at % BLOCK_BYTES);
    const knownEnd = this.#windowAt + this.#windowBytes;
    this.#windowBytes = await this.#readBlocks(blockAt);
    this.#windowAt = blockAt;
    return blockAt + this.#windowBytes > Math.max(knownEnd, this.#at);
  }

  /** Zeros to the end are what some file systems leave of a write that a power cut stopped: no damage. */
  async #zerosToEnd(): Promise<boolean> {
    const block = Buffer.alloc(BLOCK_BYTES);
    for (let at = this.#at; ; ) {
      const { bytesRead } = await this.#handle.read(block, 0, BLOCK_BYTES, at);
      if (bytesRead === 0) return true;
      if (!isZero(block, 0, bytesRead)) return false;
      at += bytesRead;
    }
  }

  async #readBlocks(at: number): Promise<number> {
    try {
      return (await this.#handle.read(this.#window, 0, WINDOW_BYTES, at)).bytesRead;
    } catch {
      // A disk that cannot read one sector fails the whole call; the other blocks may be good.
      const { size } = await this.#handle.stat();
      let bytes = 0;
      for (; bytes < WINDOW_BYTES && at + bytes < size; bytes += BLOCK_BYTES) {
        const block = this.#window.subarray(bytes, bytes + BLOCK_BYTES);
        await this.#handle.read(block, 0, BLOCK_BYTES, at + bytes).catch(() => block.fill(0xff));
      }
      return Math.min(bytes, size - at);
    }
  }
}

function isZero(bytes: Buffer, from: number, to: number): boolean {
  for (let at = from; at < to; at++) if (bytes[at] !== 0) return false;
  return true;
}
