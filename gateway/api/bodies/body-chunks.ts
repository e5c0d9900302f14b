/**
 * The pieces of a body as they come, put together at its end. Small ones are gathered at once: a body
 * that comes byte by byte would otherwise cost a hundred times its length.
 */

const SMALL_BYTES = 2_048;
const BLOCK_BYTES = 16_384;
/** Bodies of up to so many bytes, such as a PutRecords of 500 middling records, are put together in one piece of memory. */
const MAX_SHARED_BYTES = 8 * 1_048_576;
let shared = Buffer.alloc(0);

export class BodyChunks {
  #chunks: Buffer[] = [];
  #bytes = 0;
  /** Where small chunks are copied to, and the part of it that the last of `#chunks` takes. */
  #block: Buffer | undefined;
  #from = 0;
  #to = 0;

  /** Of all that was added. */
  get bytes(): number {
    return this.#bytes;
  }

  /** In their order. */
  get pieces(): readonly Buffer[] {
    return this.#chunks;
  }

  add(chunk: Buffer): void {
    if (chunk.length === 0) return;
    this.#bytes += chunk.length;
    // Most bodies come in one chunk.
    if (this.#chunks.length === 0 || chunk.length > SMALL_BYTES) {
      this.#chunks.push(chunk);
      this.#from = this.#to;
      return;
    }
    const isNew = this.#from === this.#to;
    if (this.#block === undefined || this.#to + chunk.length > BLOCK_BYTES) {
      this.#block = Buffer.allocUnsafeSlow(BLOCK_BYTES);
      this.#from = this.#to = 0;
    } else if (!isNew) this.#chunks.pop();
    this.#block.set(chunk, this.#to);
    this.#to += chunk.length;
    this.#chunks.push(this.#block.subarray(this.#from, this.#to));
  }

  clear(): void {
    this.#chunks = [];
    this.#bytes = 0;
    this.#block = undefined;
    this.#from = this.#to = 0;
  }

  /** @param kept otherwise the bytes are good until the next call of this on any body */
  join(kept: boolean): Buffer {
    return this.#chunks.length === 1 ? this.#chunks[0]! : joinPieces(this.#chunks, this.#bytes, kept);
  }
}

/** @param kept otherwise the bytes are good until the next call of this */
export function joinPieces(pieces: readonly Buffer[], bytes: number, kept: boolean): Buffer {
  if (kept || bytes > MAX_SHARED_BYTES) return Buffer.concat(pieces, bytes);
  // New memory costs more than to fill it: each page is faulted in and cleared.
  if (shared.length < bytes) shared = Buffer.allocUnsafeSlow(Math.min(MAX_SHARED_BYTES, bytes * 2));
  let at = 0;
  for (const piece of pieces) {
    shared.set(piece, at);
    at += piece.length;
  }
  return shared.subarray(0, bytes);
}
