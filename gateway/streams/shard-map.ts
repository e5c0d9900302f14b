/**
 * From partition key to shard, as Kinesis does it: the MD5 of the key is a number of 128 bits, and
 * every shard owns a range of them.
 */
import crypto from "node:crypto";
import { invariant } from "../../runtime/errors.ts";

const HASH_SPACE = 1n << 128n;
export const MAX_HASH = HASH_SPACE - 1n;
/** Keys remembered with their shard: a look-up costs 8 ns, an MD5 250. Two such halves are kept. */
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

/** 32 hex digits. `crypto.hash` is four times as fast as `createHash`, but came with Node 20.12. */
export function md5(data: string | Uint8Array): string {
  if (typeof crypto.hash === "function") return crypto.hash("md5", data, "hex");
  return crypto.createHash("md5").update(data).digest("hex");
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

/** The open shards of a stream; together they cover the hash space without a gap or an overlap. */
export class ShardMap {
  readonly #ranges: ReadonlyArray<HashRange & { readonly index: number }>;
  #young = new Map<string, number>();
  #old = new Map<string, number>();

  constructor(shards: ReadonlyArray<HashRange & { readonly index: number }>) {
    this.#ranges = [...shards].sort((a, b) => (a.hashFrom < b.hashFrom ? -1 : 1));
    let next = 0n;
    for (const range of this.#ranges) {
      invariant(range.hashFrom === next && range.hashTo >= range.hashFrom, "hash ranges join up");
      next = range.hashTo + 1n;
    }
    invariant(next === HASH_SPACE, "hash ranges cover all hashes");
  }

  /** The index of the shard that takes this key. */
  shardOfKey(partitionKey: string): number {
    if (this.#ranges.length === 1) return this.#ranges[0]!.index;
    let shard = this.#young.get(partitionKey);
    if (shard !== undefined) return shard;
    shard = this.#old.get(partitionKey) ?? this.shardOfHash(partitionHash(partitionKey));
    // Keys that nobody used for a whole half fall out; those in use move on.
    if (this.#young.size >= CACHED_KEYS) {
      this.#old = this.#young;
      this.#young = new Map();
    }
    this.#young.set(partitionKey, shard);
    return shard;
  }

  /** @param hash 0n to 2^128 - 1 */
  shardOfHash(hash: bigint): number {
    invariant(hash >= 0n && hash <= MAX_HASH, "a hash has 128 bits");
    let low = 0;
    let high = this.#ranges.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if (this.#ranges[middle]!.hashFrom <= hash) low = middle;
      else high = middle - 1;
    }
    return this.#ranges[low]!.index;
  }
}
