/** Columns in the making: what the scanners of put bodies fill, record by record. */
import type { PutColumns } from "../../../streams/streams.ts";
import { KnownKeys } from "./known-keys.ts";
import { MAX_RECORDS } from "./put-columns.ts";

const HASH_WORDS = 4;
const ends = new Uint32Array(MAX_RECORDS);
const hashWords = new Uint32Array(MAX_RECORDS * HASH_WORDS);

/** Of all bodies: clients send the same keys again and again. */
export const knownKeys = new KnownKeys();

/** There is one at a time, as all write to the same memory; making the next one ends the last. */
export class ColumnsDraft {
  count = 0;
  readonly #keys: string[] = [];
  #hashes: (bigint | undefined)[] | undefined;

  get hasHashes(): boolean {
    return this.#hashes !== undefined;
  }

  /**
   * @param slot of its key, among the known ones
   * @param dataEnd where its payload ends
   * @param hash the explicit one
   */
  add(slot: number, dataEnd: number, hash?: bigint): void {
    const i = this.count++;
    this.#keys.push(knownKeys.texts[slot]!);
    ends[i] = dataEnd;
    knownKeys.copyHash(slot, hashWords, i * HASH_WORDS);
    if (hash !== undefined) this.#hashes ??= new Array<bigint | undefined>(i).fill(undefined);
    this.#hashes?.push(hash);
  }

  /** @param data all payloads, one behind the other, and perhaps more */
  columns(data: Buffer): PutColumns {
    const { count } = this;
    return {
      count,
      keys: this.#keys,
      hashes: this.#hashes,
      hashWords: this.hasHashes ? undefined : hashWords.subarray(0, count * HASH_WORDS),
      data: data.subarray(0, count === 0 ? 0 : ends[count - 1]),
      ends: ends.subarray(0, count),
    };
  }
}
