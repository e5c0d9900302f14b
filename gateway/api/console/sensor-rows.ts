/** The newest readings of each sensor of a stream, in bounded memory: those that are silent for longest are forgotten. */
import type { Reading } from "./reading.ts";

const MAX_KEYS = 2_000;
const MAX_ROWS_PER_KEY = 5_000;
/** In the rows of all keys of a stream, which share them, at some 30 bytes each. */
const MAX_VALUES = 1_000_000;
const MIN_ROWS_PER_KEY = 10;
/** Values of further fields are left out: records of which each brings names of its own would fill the memory. */
const MAX_FIELDS_PER_KEY = 64;

export interface SensorSummary {
  readonly key: string;
  readonly fields: readonly string[];
  readonly lastUs: number;
  readonly lastValues: Readonly<Record<string, number>>;
}

interface KeyTail {
  rows: Reading[];
  /** In `rows`. */
  values: number;
  readonly fields: Map<string, number>;
  lastUs: number;
  /** Of the last row that was dropped; 0 when none was. */
  droppedUs: number;
}

export class SensorRows {
  /** In order of last use: the key that has been silent for longest comes first. */
  readonly #keys = new Map<string, KeyTail>();
  /** In all rows. */
  #values = 0;

  /** Sorted by key. */
  summaries(): SensorSummary[] {
    return [...this.#keys]
      .map(([key, tail]) => ({
        key,
        fields: [...tail.fields.keys()].sort(),
        lastUs: tail.lastUs,
        lastValues: Object.fromEntries(tail.fields),
      }))
      .filter((summary) => summary.fields.length > 0)
      .sort((a, b) => (a.key < b.key ? -1 : 1));
  }

  of(key: string): readonly Reading[] {
    return (this.#keys.get(key)?.rows ?? []).slice(-MAX_ROWS_PER_KEY);
  }

  /** When the last reading of the key was measured that is not kept any more; 0 when all are. */
  droppedUs(key: string): number {
    return this.#keys.get(key)?.droppedUs ?? 0;
  }

  keep(key: string, fresh: readonly Reading[]): void {
    let tail = this.#keys.get(key);
    if (tail === undefined) {
      tail = { rows: [], values: 0, fields: new Map(), lastUs: 0, droppedUs: 0 };
      if (this.#keys.size >= MAX_KEYS) this.#forgetSilent();
    } else this.#keys.delete(key);
    this.#keys.set(key, tail);
    for (const reading of fresh) this.#keepRow(tail, reading);
    const fair = Math.floor(MAX_VALUES / this.#keys.size / Math.max(1, tail.fields.size));
    const max = Math.min(MAX_ROWS_PER_KEY, Math.max(MIN_ROWS_PER_KEY, fair));
    // A quarter more than wanted may stand, so that rows are moved once in a while and not each time.
    if (tail.rows.length > max * 1.25) this.#dropRows(tail, tail.rows.length - max);
    // Those that were written when there were fewer keys have more than their share.
    while (this.#values > 2 * MAX_VALUES && this.#keys.size > 1) this.#forgetSilent();
  }

  #keepRow(tail: KeyTail, { timeUs, values }: Reading): void {
    const kept: [string, number][] = [];
    for (const [field, value] of Object.entries(values)) {
      if (!tail.fields.has(field) && tail.fields.size >= MAX_FIELDS_PER_KEY) continue;
      tail.fields.set(field, value);
      kept.push([field, value]);
    }
    tail.lastUs = Math.max(tail.lastUs, timeUs);
    if (kept.length === 0) return;
    tail.rows.push({ timeUs, values: Object.fromEntries(kept) });
    tail.values += kept.length;
    this.#values += kept.length;
  }

  #dropRows(tail: KeyTail, count: number): void {
    let values = 0;
    for (let i = 0; i < count; i++) {
      const { timeUs, values: dropped } = tail.rows[i]!;
      values += Object.keys(dropped).length;
      tail.droppedUs = Math.max(tail.droppedUs, timeUs);
    }
    tail.rows = tail.rows.slice(count);
    tail.values -= values;
    this.#values -= values;
  }

  /** The key that has been silent for longest. */
  #forgetSilent(): void {
    for (const [silent, { values }] of this.#keys) {
      this.#keys.delete(silent);
      this.#values -= values;
      return;
    }
  }
}
