/** How far each shard of a stream reaches, and how much came to it, since this gateway follows the stream. */
import type { Offset } from "../../streams.ts";
import { offsetOf } from "./entry.ts";
import type { TailEntry } from "./tail-entry.ts";

export class ShardEnds {
  readonly #appended = new Map<number, number>();
  /** Shard index → behind its newest record. */
  readonly #ends = new Map<number, Offset>();
  #begin: Offset = 0;

  /** What came up to this message is not counted. */
  begin(lastSequence: number): void {
    this.#begin = offsetOf(lastSequence + 1);
  }

  take(entry: TailEntry): void {
    for (const [shard, parts] of entry.parts) {
      const count = parts.reduce((sum, part) => sum + part.count, 0);
      this.#appended.set(shard, (this.#appended.get(shard) ?? 0) + count);
      const last = parts.at(-1)!;
      this.#ends.set(shard, last.first + last.count);
    }
  }

  /** Behind the newest record of a shard; behind the whole log at the beginning when none came since. */
  latest(shard: number): Offset {
    return this.#ends.get(shard) ?? this.#begin;
  }

  appendedRecords(shard: number): number {
    return this.#appended.get(shard) ?? 0;
  }
}
