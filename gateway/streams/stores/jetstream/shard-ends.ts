/** How far each shard of a stream reaches, and how much came to it, since this gateway follows the stream. */
import type { Offset } from "../../streams.ts";
import { offsetOf } from "./entry.ts";
import type { TailEntry } from "./tail-entry.ts";

interface Appended {
  records: number;
  bytes: number;
}

const NOTHING: Readonly<Appended> = { records: 0, bytes: 0 };

export class ShardEnds {
  readonly #appended = new Map<number, Appended>();
  /** Shard index → behind its newest record. */
  readonly #ends = new Map<number, Offset>();
  /** Of shards that were empty when their next record came: where they had ended, and where that one stands. */
  readonly #quiet = new Map<number, { readonly from: Offset; readonly to: Offset }>();
  #begin: Offset = 0;

  /** What came up to this message is not counted. */
  begin(lastSequence: number): void {
    this.#begin = offsetOf(lastSequence + 1);
  }

  /** @param firstSequence of what is kept */
  take(entry: TailEntry, firstSequence: number): void {
    for (const [shard, parts] of entry.parts) {
      const from = this.latest(shard);
      if (from <= offsetOf(firstSequence)) this.#quiet.set(shard, { from, to: parts[0]!.first });
      let appended = this.#appended.get(shard);
      if (appended === undefined) {
        appended = { records: 0, bytes: 0 };
        this.#appended.set(shard, appended);
      }
      for (const { count, runs } of parts) {
        appended.records += count;
        for (const { body } of runs) appended.bytes += body.length;
      }
      const last = parts.at(-1)!;
      this.#ends.set(shard, last.first + last.count);
    }
  }

  /** Behind the newest record of a shard; behind the whole log at the beginning when none came since. */
  latest(shard: number): Offset {
    return this.#ends.get(shard) ?? this.#begin;
  }

  /** The first place at or behind `from` where a record of the shard may have stood, as far as is known. */
  nextBehind(shard: number, from: Offset): Offset {
    const quiet = this.#quiet.get(shard);
    return quiet !== undefined && from >= quiet.from ? Math.max(from, quiet.to) : from;
  }

  appended(shard: number): Readonly<Appended> {
    return this.#appended.get(shard) ?? NOTHING;
  }
}
