/**
 * Sequence numbers of one shard, written as digits, quickly where offsets follow one another: the
 * number of the next offset is 2^80 more. Numbers are held as limbs of four digits, and put down four
 * digits at once. `formatSequenceNumber` is the plain way.
 */

export const SEQUENCE_NUMBER_DIGITS = 56;
const LIMB_DIGITS = 4;
const LIMB = 10_000;
const LIMBS = SEQUENCE_NUMBER_DIGITS / LIMB_DIGITS;
const MAX_SECONDS = 0xf_ffff_ffff;
/** Products of a limb and a piece of so many bits are added without loss. */
const PIECE_BITS = 24;
const PIECE = 1 << PIECE_BITS;

/** All limbs as ASCII, the first digit in the lowest byte. */
const ascii = Int32Array.from({ length: LIMB }, (_, limb) =>
  Buffer.from(String(limb).padStart(LIMB_DIGITS, "0"), "latin1").readInt32LE(),
);

/** The limbs of 2^bits, the least weight first. */
function powerOfTwo(bits: number): Float64Array {
  return Float64Array.from({ length: LIMBS }, (_, limb) =>
    Number(((1n << BigInt(bits)) / BigInt(LIMB) ** BigInt(limb)) % BigInt(LIMB)),
  );
}

/** Powers for the pieces of what begins at that bit; see sequence-number.ts for what stands where. */
const powersFrom = (bit: number, pieces: number): Float64Array[] =>
  Array.from({ length: pieces }, (_, piece) => powerOfTwo(bit + piece * PIECE_BITS));
const ENDING = powersFrom(0, 1);
const INDEX = powersFrom(4, 2);
const ARRIVAL = powersFrom(36, 2);
const OFFSET = powersFrom(80, 3);
const NIBBLE = powersFrom(144, 1);
const CREATED = powersFrom(148, 2);
const VERSION = powersFrom(184, 1);
/** What one offset more adds; above these limbs only what is carried. */
const step = Int32Array.from(OFFSET[0]!);
const STEP_LIMBS = step.findLastIndex((limb) => limb > 0) + 1;

function add(sums: Float64Array, value: number, powers: readonly Float64Array[]): void {
  let rest = value;
  for (const power of powers) {
    const above = Math.floor(rest / PIECE);
    const piece = rest - above * PIECE;
    if (piece > 0) for (let i = 0; i < LIMBS; i++) sums[i]! += piece * power[i]!;
    rest = above;
  }
}

/** Puts four digits at `at`. */
export function writeFourDigits(target: DataView, at: number, value: number): void {
  target.setInt32(at, ascii[value]!, true);
}

const sums = new Float64Array(LIMBS);
const scratch = Buffer.alloc(SEQUENCE_NUMBER_DIGITS);

export class SequenceDigits {
  /** What is the same for all numbers of the shard. */
  readonly #base = new Float64Array(LIMBS);
  /** The number that was written last. */
  readonly #limbs = new Int32Array(LIMBS);
  #offset = -1;
  /** Of the arrival only the second counts. */
  #arrivalSecond = -1;

  constructor(shardCreatedMs: number, shardIndex: number) {
    add(this.#base, 2, VERSION);
    add(this.#base, secondOf(shardCreatedMs), CREATED);
    add(this.#base, shardIndex % 16, NIBBLE);
    add(this.#base, shardIndex, INDEX);
    add(this.#base, 2, ENDING);
  }

  /** Writes 56 digits at `at`. */
  write(target: Uint8Array, at: number, offset: number, arrivalMs: number): void {
    this.#moveTo(offset, arrivalMs);
    const limbs = this.#limbs;
    let to = at;
    for (let i = LIMBS - 1; i >= 0; i--, to += LIMB_DIGITS) {
      const word = ascii[limbs[i]!]!;
      target[to] = word;
      target[to + 1] = word >>> 8;
      target[to + 2] = word >>> 16;
      target[to + 3] = word >>> 24;
    }
  }

  /** As `write`, in half the time. */
  writeTo(target: DataView, at: number, offset: number, arrivalMs: number): void {
    this.#moveTo(offset, arrivalMs);
    const limbs = this.#limbs;
    let to = at;
    for (let i = LIMBS - 1; i >= 0; i--, to += LIMB_DIGITS) target.setInt32(to, ascii[limbs[i]!]!, true);
  }

  /** As `formatSequenceNumber`. */
  text(offset: number, arrivalMs: number): string {
    this.write(scratch, 0, offset, arrivalMs);
    return scratch.toString("latin1", 0, SEQUENCE_NUMBER_DIGITS);
  }

  #moveTo(offset: number, arrivalMs: number): void {
    const arrivalSecond = secondOf(arrivalMs);
    if (arrivalSecond !== this.#arrivalSecond || offset !== this.#offset + 1) {
      this.#begin(offset, arrivalSecond);
      this.#arrivalSecond = arrivalSecond;
    } else this.#next();
    this.#offset = offset;
  }

  #next(): void {
    const limbs = this.#limbs;
    let carry = 0;
    for (let i = 0; i < STEP_LIMBS; i++) {
      let sum = limbs[i]! + step[i]! + carry;
      carry = 0;
      if (sum >= LIMB) {
        sum -= LIMB;
        carry = 1;
      }
      limbs[i] = sum;
    }
    for (let i = STEP_LIMBS; carry > 0 && i < LIMBS; i++) {
      const isFull = limbs[i] === LIMB - 1;
      limbs[i] = isFull ? 0 : limbs[i]! + 1;
      carry = isFull ? 1 : 0;
    }
  }

  #begin(offset: number, arrivalSecond: number): void {
    sums.set(this.#base);
    add(sums, offset, OFFSET);
    add(sums, arrivalSecond, ARRIVAL);
    let carry = 0;
    for (let i = 0; i < LIMBS; i++) {
      const sum = sums[i]! + carry;
      carry = Math.floor(sum / LIMB);
      this.#limbs[i] = sum - carry * LIMB;
    }
  }
}

function secondOf(ms: number): number {
  return Math.min(Math.max(0, Math.floor(ms / 1000)), MAX_SECONDS);
}

/** Numberings that are kept for the next who write numbers of the same shards. */
const KEPT = 64;

interface Kept {
  readonly shardCreatedMs: number;
  readonly shardIndex: number;
  readonly digits: SequenceDigits;
}

const kept: Array<Kept | undefined> = new Array(KEPT).fill(undefined);

/** For numbers that are written at once, with nothing awaited in between: others are given the same object. */
export function digitsOf(shardCreatedMs: number, shardIndex: number): SequenceDigits {
  const known = kept[shardIndex % KEPT];
  if (known?.shardIndex === shardIndex && known.shardCreatedMs === shardCreatedMs) return known.digits;
  const digits = new SequenceDigits(shardCreatedMs, shardIndex);
  kept[shardIndex % KEPT] = { shardCreatedMs, shardIndex, digits };
  return digits;
}
