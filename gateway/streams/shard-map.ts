/**
 * From partition key to shard, as Kinesis does it: the MD5 of the key is a number of 128 bits, and
 * every shard owns a range of them.
 */
import { invariant } from "../../runtime/errors.ts";
import { md5, md5Words } from "./md5.ts";

export { md5 } from "./md5.ts";

const HASH_SPACE = 1n << 128n;
export const MAX_HASH = HASH_SPACE - 1n;
/** Keys remembered with their place: a look-up costs 8 ns, an MD5 120 and more. Two such halves are kept. */
const CACHED_KEYS = 32_768;

export interface HashRange {
  /** Inclusive. */
  readonly hashFrom: bigint;
  readonly hashTo: bigint;
}

/** The place of a partition key in the hash space, 0n to 2^128 - 1. */
export function partitionHash(partitionKey: string): bigint {
  return BigInt(`0x${md5(partitionKey)}`);
}

/** The hash space in `count` ranges of equal width; the last takes what division leaves. */
export function equalRanges(count: number): HashRange[] {
  invariant(Number.isInteger(count) && count >= 1, "a stream has at least one shard");
  const width = HASH_SPACE / BigInt(count);
  return Array.from({ length: count }, (_, i) => ({
    hashFrom: width * BigInt(i),
    hashTo: i === count - 1 ? MAX_HASH : width * BigInt(i + 1) - 1n,
  }));
}

export interface ShardRange extends HashRange {
  readonly index: number;
}

/** The open shards of a stream; together they cover the hash space without a gap or an overlap. */
export class ShardMap {
  readonly #ranges: readonly ShardRange[];
  #young = new Map<string, number>();
  #old = new Map<string, number>();
  /** Where each range begins, four words each, the first weighing most; made when a key first asks. */
  #begins: Uint32Array | undefined;

  /** @param order "joined" when they are known to rise and to cover all, as after steps from shards that do: that costs nothing */
  constructor(shards: readonly ShardRange[], order: "any" | "joined" = "any") {
    if (order === "joined") {
      this.#ranges = shards;
      return;
    }
    this.#ranges = [...shards].sort((a, b) => (a.hashFrom < b.hashFrom ? -1 : 1));
    checkCover(this.#ranges);
  }

  /** The shards by rising range, from 0 on: each stands at its place. */
  get ranges(): readonly ShardRange[] {
    return this.#ranges;
  }

  /** How many shards are open. */
  get size(): number {
    return this.#ranges.length;
  }

  /** The index of the shard that takes this key. */
  shardOfKey(partitionKey: string): number {
    return this.#ranges[this.placeOfKey(partitionKey)]!.index;
  }

  /** @param hash 0n to 2^128 - 1 */
  shardOfHash(hash: bigint): number {
    return this.#ranges[this.placeOfHash(hash)]!.index;
  }

  /** The index of the shard at a place. */
  indexAt(place: number): number {
    return this.#ranges[place]!.index;
  }

  /** The place of the shard that takes this key. */
  placeOfKey(partitionKey: string): number {
    if (this.#ranges.length === 1) return 0;
    let place = this.#young.get(partitionKey);
    if (place !== undefined) return place;
    place = this.#old.get(partitionKey);
    if (place === undefined) {
      md5Words(partitionKey, hashed);
      place = this.placeOfWords(hashed, 0);
    }
    // Keys that nobody used for a whole half fall out; those in use move on.
    if (this.#young.size >= CACHED_KEYS) {
      this.#old = this.#young;
      this.#young = new Map();
    }
    this.#young.set(partitionKey, place);
    return place;
  }

  /**
   * As `placeOfHash`, without a bigint.
   * @param words at `at` the four words of a hash, the first weighing most
   */
  placeOfWords(words: Uint32Array, at: number): number {
    const last = this.#ranges.length - 1;
    if (last === 0) return 0;
    this.#begins ??= Uint32Array.from(this.#ranges.flatMap(({ hashFrom }) => wordsOf(hashFrom)));
    const begins = this.#begins;
    // Where it is if all ranges are of one width, as they are until a shard is split or merged.
    const likely = Math.floor((words[at]! / 0x1_0000_0000) * (last + 1));
    if (
      beginsBy(begins, likely, words, at) &&
      (likely === last || !beginsBy(begins, likely + 1, words, at))
    ) {
      return likely;
    }
    let low = 0;
    let high = last;
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if (beginsBy(begins, middle, words, at)) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  /** @param hash 0n to 2^128 - 1 */
  placeOfHash(hash: bigint): number {
    return placeIn(this.#ranges, hash);
  }
}

/** The place of the range that has this hash, 0n to 2^128 - 1, among those that cover all hashes and rise. */
export function placeIn(ranges: readonly HashRange[], hash: bigint): number {
  invariant(hash >= 0n && hash <= MAX_HASH, "a hash has 128 bits");
  let low = 0;
  let high = ranges.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >>> 1;
    if (ranges[middle]!.hashFrom <= hash) low = middle;
    else high = middle - 1;
  }
  return low;
}

const hashed = new Uint32Array(4);

function wordsOf(hash: bigint): number[] {
  return [96n, 64n, 32n, 0n].map((shift) => Number((hash >> shift) & 0xffff_ffffn));
}

/** Whether the range at a place begins at or before the hash at `at`. */
function beginsBy(begins: Uint32Array, place: number, words: Uint32Array, at: number): boolean {
  const from = place * 4;
  for (let i = 0; i < 4; i++) {
    if (begins[from + i]! !== words[at + i]!) return begins[from + i]! < words[at + i]!;
  }
  return true;
}

/** @param ranges by rising range */
function checkCover(ranges: readonly ShardRange[]): void {
  let next = 0n;
  for (const range of ranges) {
    invariant(range.hashFrom === next && range.hashTo >= range.hashFrom, "hash ranges join up");
    next = range.hashTo + 1n;
  }
  invariant(next === HASH_SPACE, "hash ranges cover all hashes");
}
