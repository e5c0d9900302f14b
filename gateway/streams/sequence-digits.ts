/**
 * Sequence numbers of one shard, written as digits into a buffer, quickly where offsets follow one
 * another: the number of the next offset is 2^80 more, so fourteen additions make it of the last.
 * `formatSequenceNumber` is the plain way, and what every run of offsets begins with.
 */
import { formatSequenceNumber } from "./sequence-number.ts";

export const SEQUENCE_NUMBER_DIGITS = 56;
const LIMB_DIGITS = 4;
const LIMB = 10_000;
const LIMBS = SEQUENCE_NUMBER_DIGITS / LIMB_DIGITS;
const ZERO = 0x30;

/** All limbs as ASCII. */
const ascii = Buffer.from(
  Array.from({ length: LIMB }, (_, limb) => String(limb).padStart(LIMB_DIGITS, "0")).join(""),
  "latin1",
);

/** What one offset more adds, the least weight first: the offset stands 20 hex digits from the end. */
const step = Int32Array.from({ length: LIMBS }, (_, limb) =>
  Number(((1n << 80n) / BigInt(LIMB) ** BigInt(limb)) % BigInt(LIMB)),
);

export class SequenceDigits {
  readonly #shardCreatedMs: number;
  readonly #shardIndex: number;
  readonly #limbs = new Int32Array(LIMBS);
  /** What the limbs hold: of the arrival only the second counts. */
  #offset = -1;
  #arrivalSecond = -1;

  constructor(shardCreatedMs: number, shardIndex: number) {
    this.#shardCreatedMs = shardCreatedMs;
    this.#shardIndex = shardIndex;
  }

  /** Writes 56 digits at `at`. */
  write(target: Uint8Array, at: number, offset: number, arrivalMs: number): void {
    const arrivalSecond = Math.floor(arrivalMs / 1000);
    if (arrivalSecond !== this.#arrivalSecond || offset !== this.#offset + 1) {
      this.#begin(offset, arrivalMs);
      this.#arrivalSecond = arrivalSecond;
    } else this.#next();
    this.#offset = offset;
    const limbs = this.#limbs;
    let to = at;
    for (let i = LIMBS - 1; i >= 0; i--) {
      const from = limbs[i]! * LIMB_DIGITS;
      target[to] = ascii[from]!;
      target[to + 1] = ascii[from + 1]!;
      target[to + 2] = ascii[from + 2]!;
      target[to + 3] = ascii[from + 3]!;
      to += LIMB_DIGITS;
    }
  }

  #next(): void {
    const limbs = this.#limbs;
    let carry = 0;
    for (let i = 0; i < LIMBS; i++) {
      let sum = limbs[i]! + step[i]! + carry;
      carry = 0;
      if (sum >= LIMB) {
        sum -= LIMB;
        carry = 1;
      }
      limbs[i] = sum;
    }
  }

  #begin(offset: number, arrivalMs: number): void {
    const text = formatSequenceNumber({
      shardCreatedMs: this.#shardCreatedMs,
      shardIndex: this.#shardIndex,
      offset,
      arrivalMs,
    });
    for (let limb = 0, end = text.length; limb < LIMBS; limb++, end -= LIMB_DIGITS) {
      let value = 0;
      for (let i = end - LIMB_DIGITS; i < end; i++) value = value * 10 + text.charCodeAt(i) - ZERO;
      this.#limbs[limb] = value;
    }
  }
}
