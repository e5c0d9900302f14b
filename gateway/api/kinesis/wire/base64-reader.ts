/**
 * Reads the base64 texts of one body, one behind the other, into one piece of memory. A body that fits
 * the window is decoded where it lies in it; of larger ones each text passes through it in pieces.
 */
import { decodedBytes, makeBase64Window, WINDOW_BYTES } from "./base64-simd.ts";

/** Whole groups of four, and what the nearest cache of a processor holds. */
const PIECE_BYTES = 32_768;

/** Of large bodies, memory for so much data is kept: what is new for each costs more than it holds. */
const KEPT_BYTES = 8 * 1_048_576;

const window = makeBase64Window();
let kept = Buffer.alloc(0);

function memoryFor(bytes: number): Buffer {
  if (bytes > KEPT_BYTES) return Buffer.allocUnsafeSlow(bytes);
  if (kept.length < bytes) kept = Buffer.allocUnsafeSlow(Math.min(KEPT_BYTES, bytes * 2));
  return kept;
}

export class Base64Reader {
  readonly #body: Buffer;
  readonly #isWhole: boolean;
  /** Valid until the next reader is made. */
  readonly data: Buffer;
  dataEnd = 0;

  constructor(body: Buffer) {
    this.#body = body;
    this.#isWhole = body.length <= WINDOW_BYTES;
    if (this.#isWhole) {
      body.copy(window.text);
      window.text[body.length] = 0;
    }
    // All data together is at most three quarters of the body.
    this.data = this.#isWhole ? window.bytes : memoryFor(Math.ceil((body.length * 3) / 4) + 3);
  }

  /** @returns where the base64 at `at` ends, up to the first character that is none; -1 when it is not sound */
  read(at: number): number {
    if (!this.#isWhole) return this.#readByPieces(at);
    const end = window.decode(at, this.dataEnd);
    if (end > at) this.dataEnd += decodedBytes(this.#body, at, end);
    return end;
  }

  #readByPieces(from: number): number {
    const body = this.#body;
    for (let at = from; ; at += PIECE_BYTES) {
      const size = Math.min(PIECE_BYTES, body.length - at);
      body.copy(window.text, 0, at, at + size);
      window.text[size] = 0;
      const end = window.decode(0, 0);
      if (end < 0) return -1;
      const bytes = decodedBytes(window.text, 0, end);
      window.bytes.copy(this.data, this.dataEnd, 0, bytes);
      this.dataEnd += bytes;
      // A piece that is base64 to its end may go on in the next, unless it was padded.
      if (end < PIECE_BYTES || bytes < (PIECE_BYTES / 4) * 3) return at + end;
    }
  }
}
