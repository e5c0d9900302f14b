/**
 * How many records of one shard stand before a place, since this gateway follows the stream: offsets leave
 * numbers out, so they do not tell. Exact for the newest messages; of those before only some are remembered,
 * the fewer the longer ago, so that it takes up no more room as the shard grows.
 */
import type { Offset } from "../../../streams.ts";

/** Each of the newest messages, and as many of those before, at equal distances. */
const EXACT = 64;

interface Counted {
  /** Where the shard's records in a message begin. */
  readonly first: Offset;
  /** How many came before them. */
  readonly before: number;
}

export class RecordCounts {
  /** Of every `#stride`-th message that left the newest ones. */
  #old: Counted[] = [];
  #stride = 1;
  #left = 0;
  #newest: Counted[] = [];
  #end: Offset = 0;
  records = 0;

  /** The shard's part of a message behind all that were noted. */
  note(first: Offset, count: number): void {
    this.#newest.push({ first, before: this.records });
    this.records += count;
    this.#end = first + count;
    if (this.#newest.length === 2 * EXACT) for (const one of this.#newest.splice(0, EXACT)) this.#leave(one);
  }

  #leave(one: Counted): void {
    if (this.#left++ % this.#stride !== 0) return;
    this.#old.push(one);
    if (this.#old.length < EXACT) return;
    this.#old = this.#old.filter((_, i) => i % 2 === 0);
    this.#stride *= 2;
  }

  countBefore(offset: Offset): number {
    if (offset >= this.#end) return this.records;
    const isNew = this.#newest.length > 0 && offset >= this.#newest[0]!.first;
    const among = isNew ? this.#newest : this.#old;
    let low = 0;
    let high = among.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (among[middle]!.first <= offset) low = middle + 1;
      else high = middle;
    }
    const at = among[low - 1];
    if (at === undefined) return 0;
    const next = among[low] ?? (isNew ? undefined : this.#newest[0]);
    // Within a message they stand one behind the other.
    return Math.min(next?.before ?? this.records, at.before + offset - at.first);
  }
}
