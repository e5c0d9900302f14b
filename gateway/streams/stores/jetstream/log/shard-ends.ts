/** How far each shard of a stream reaches, and how much came to it, since this gateway follows the stream. */
import type { Clock } from "../../../../../runtime/clock.ts";
import type { Offset } from "../../../streams.ts";
import { offsetOf, sequenceOf } from "./entry.ts";
import { RecordCounts } from "./record-counts.ts";
import type { TailEntry } from "./tail-entry.ts";

/** What is further ahead comes of a clock that is wrong. */
export const CLOCKS_DIFFER_MS = 3_600_000;

interface Appended {
  readonly counts: RecordCounts;
  bytes: number;
}

export class ShardEnds {
  readonly #appended = new Map<number, Appended>();
  /** Shard index → behind its newest record. */
  readonly #ends = new Map<number, Offset>();
  /** Of shards that were empty when their next record came: where they had ended, and where that one stands. */
  readonly #quiet = new Map<number, { readonly from: Offset; readonly to: Offset }>();
  #begin: Offset = 0;
  #messages = 0;
  readonly #clock: Clock;
  #arrivalMs = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** The latest time at which a message came, by its writer's clock, if that was not wrong. */
  get arrivalMs(): number {
    return this.#arrivalMs;
  }

  /** One came, before this gateway followed the stream or since. */
  arrived(arrivalMs: number): void {
    if (arrivalMs <= this.#clock.nowUs() / 1000 + CLOCKS_DIFFER_MS) {
      this.#arrivalMs = Math.max(this.#arrivalMs, arrivalMs);
    }
  }

  /** What came up to this message is not counted. */
  begin(lastSequence: number): void {
    this.#begin = offsetOf(lastSequence + 1);
  }

  /** @param firstSequence of what is kept */
  take(entry: TailEntry, firstSequence: number): void {
    this.#messages++;
    this.arrived(entry.arrivalMs);
    for (const [shard, parts] of entry.parts) {
      const from = this.latest(shard);
      if (from <= offsetOf(firstSequence)) this.#quiet.set(shard, { from, to: parts[0]!.first });
      let appended = this.#appended.get(shard);
      if (appended === undefined) {
        appended = { counts: new RecordCounts(), bytes: 0 };
        this.#appended.set(shard, appended);
      }
      let records = 0;
      for (const { count, runs } of parts) {
        records += count;
        for (const { body } of runs) appended.bytes += body.length;
      }
      appended.counts.note(parts[0]!.first, records);
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

  /**
   * Of what came before this gateway followed the stream only the messages are known, of all shards together; they
   * are put at the size of what came since.
   */
  recordsBetween(shard: number, from: Offset, to: Offset, openShards: number): number {
    const counts = this.#appended.get(shard)?.counts;
    const seen = counts?.records ?? 0;
    const mean = seen > 0 ? seen / this.#messages : 1 / Math.max(1, openShards);
    const at = (offset: Offset): number =>
      offset >= this.#begin
        ? (counts?.countBefore(offset) ?? 0)
        : (sequenceOf(offset) - sequenceOf(this.#begin)) * mean;
    return Math.max(0, Math.round(at(to) - at(from)));
  }

  appended(shard: number): { readonly records: number; readonly bytes: number } {
    const appended = this.#appended.get(shard);
    return { records: appended?.counts.records ?? 0, bytes: appended?.bytes ?? 0 };
  }
}
