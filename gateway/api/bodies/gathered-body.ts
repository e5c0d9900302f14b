/**
 * A body that comes in pieces whose memory is another's after the call (shared-read.ts, stream-read.ts): they
 * are copied into blocks, which bodies use one after the other. BodyChunks is the same for pieces that stay.
 * Where there may be many on one connection, the first block grows with what comes, so that those that never
 * end hold four times their bytes, or 16 KiB. Who knows what comes, and that it may hold it, reads it into its place.
 */
import { joinPieces } from "./body-chunks.ts";

/** A PutRecords of 500 middling records fits, and so is not copied again. */
export const BLOCK_BYTES = 256 * 1_024;
const BLOCK_SIZES = [16_384, 65_536, BLOCK_BYTES] as const;
/** Of each size. */
const MAX_IDLE_BLOCKS = 32;
/** By size. Of these the processor has the pages; the memory of a new one is faulted in as it is filled. */
const idle = new Map<number, Buffer[]>(BLOCK_SIZES.map((size) => [size, []]));

export class GatheredBody {
  readonly #firstBytes: number;
  #blocks: Buffer[] = [];
  /** Used of the last block. */
  #used = 0;
  #bytes = 0;

  /** @param grows whether the first block does; otherwise it is whole from the start, and nothing is copied twice */
  constructor(grows = false) {
    this.#firstBytes = grows ? 0 : BLOCK_BYTES;
  }

  /** Of all that was added, until it is cleared. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Copied in the call. */
  add(piece: Buffer): void {
    this.#bytes += piece.length;
    for (let done = 0; done < piece.length; ) {
      const copied = piece.copy(this.#roomFor(piece.length - done), this.#used, done);
      done += copied;
      this.#used += copied;
    }
  }

  /** So many bytes are all that come, BLOCK_BYTES at most: they may be put into `room`, and are not copied then. */
  expect(bytes: number): void {
    this.#begin(takeBlock(bytes));
  }

  /** What is free of the last block; undefined when that is nothing. */
  get room(): Buffer | undefined {
    const last = this.#blocks.at(-1);
    return last === undefined || this.#used === last.length ? undefined : last.subarray(this.#used);
  }

  /** Counts a piece that stands where `room` began. @returns false for another one, which has to be added */
  holds(piece: Buffer): boolean {
    const last = this.#blocks.at(-1);
    if (piece.buffer !== last?.buffer || piece.byteOffset !== last.byteOffset + this.#used) return false;
    this.#bytes += piece.length;
    this.#used += piece.length;
    return true;
  }

  /** The last block, with room for so much, or for a part of it. */
  #roomFor(bytes: number): Buffer {
    const last = this.#blocks.at(-1);
    if (last === undefined) return this.#begin(takeBlock(Math.max(bytes, this.#firstBytes)));
    if (this.#used + bytes <= last.length) return last;
    if (last.length === BLOCK_BYTES) {
      return this.#used < BLOCK_BYTES ? last : this.#begin(takeBlock(BLOCK_BYTES));
    }
    // None but the first is smaller.
    const larger = takeBlock(this.#used + bytes);
    last.copy(larger, 0, 0, this.#used);
    giveBack([last]);
    this.#blocks[0] = larger;
    return larger;
  }

  #begin(block: Buffer): Buffer {
    this.#blocks.push(block);
    this.#used = 0;
    return block;
  }

  /** What was added, in its order; good within the call. */
  get pieces(): readonly Buffer[] {
    const blocks = this.#blocks;
    return blocks.map((block, i) => (i < blocks.length - 1 ? block : block.subarray(0, this.#used)));
  }

  /** The whole body, once. @param use may look at the bytes within the call only, unless they are kept */
  use(kept: boolean, use: (body: Buffer) => void): void {
    const blocks = this.#blocks;
    const pieces = this.pieces;
    // Whoever uses it may already begin with the next body.
    this.#blocks = [];
    use(pieces.length === 1 && !kept ? pieces[0]! : joinPieces(pieces, this.#bytes, kept));
    giveBack(blocks);
  }

  /** For the next body. */
  clear(): void {
    this.#bytes = 0;
    giveBack(this.#blocks);
    this.#blocks = [];
  }

  /** Counts a body that was used where it stood. */
  count(bytes: number): void {
    this.#bytes += bytes;
  }
}

/** With room for so much, or as large as they get. */
function takeBlock(bytes: number): Buffer {
  const size = BLOCK_SIZES.find((each) => each >= bytes) ?? BLOCK_BYTES;
  return idle.get(size)!.pop() ?? Buffer.allocUnsafeSlow(size);
}

function giveBack(blocks: readonly Buffer[]): void {
  for (const block of blocks) {
    const alike = idle.get(block.length)!;
    if (alike.length < MAX_IDLE_BLOCKS) alike.push(block);
  }
}
