/**
 * A body that comes in pieces whose memory is another's after the call (shared-read.ts): they are copied
 * into blocks, which bodies use one after the other. BodyChunks is the same for pieces that stay.
 */
import { joinPieces } from "./body-chunks.ts";

/** A PutRecords of 500 middling records fits, and so is not copied again. */
export const BLOCK_BYTES = 256 * 1_024;
const MAX_IDLE_BLOCKS = 32;
/** Of these the processor has the pages; the memory of a new one is faulted in as it is filled. */
const idle: Buffer[] = [];

export class GatheredBody {
  #blocks: Buffer[] = [];
  /** Used of the last block. */
  #used = 0;
  #bytes = 0;

  /** Of all that was added, until it is cleared. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Copied in the call. */
  add(piece: Buffer): void {
    this.#bytes += piece.length;
    for (let done = 0; done < piece.length; ) {
      if (this.#blocks.length === 0 || this.#used === BLOCK_BYTES) {
        this.#blocks.push(takeBlock());
        this.#used = 0;
      }
      const copied = piece.copy(this.#blocks.at(-1)!, this.#used, done);
      done += copied;
      this.#used += copied;
    }
  }

  /** The whole body, once. @param use may look at the bytes within the call only, unless they are kept */
  use(kept: boolean, use: (body: Buffer) => void): void {
    const blocks = this.#blocks;
    const pieces = blocks.map((block, i) => (i < blocks.length - 1 ? block : block.subarray(0, this.#used)));
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

function takeBlock(): Buffer {
  return idle.pop() ?? Buffer.allocUnsafeSlow(BLOCK_BYTES);
}

function giveBack(blocks: readonly Buffer[]): void {
  for (const block of blocks) if (idle.length < MAX_IDLE_BLOCKS) idle.push(block);
}
