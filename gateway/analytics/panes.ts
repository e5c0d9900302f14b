/**
 * The open windows of a statement: one accumulator for each key and window. Batches bring partial
 * aggregates, the watermark takes finished windows out.
 *
 * Sums of integers are exact (bigint). Sums of doubles come compensated from DuckDB for each batch
 * (Kahan) and are added here with Neumaier's compensation, so where batches begin and end changes a
 * result by about one unit in the last place.
 */
import { HeadwaterError } from "../../runtime/errors.ts";
import type { KeyValues } from "./columns.ts";

/** One measure over the rows of a key and window. `min` and `max` mean nothing while `count` is 0. */
export interface MeasurePartial {
  readonly count: number;
  readonly sum: number | bigint;
  readonly min: number;
  readonly max: number;
}

export interface GroupPartial {
  readonly key: KeyValues;
  readonly paneMs: number;
  readonly rows: number;
  readonly measures: readonly MeasurePartial[];
}

export interface Measure {
  count: number;
  /** Exact for integer columns; a double otherwise. */
  sum: number | bigint;
  /** What the double sum has lost so far. */
  lost: number;
  min: number;
  max: number;
}

export interface Group {
  readonly key: KeyValues;
  readonly paneMs: number;
  rows: number;
  readonly measures: Measure[];
}

/** The statement stops: going on would mean to guess. Its records stay in the stream. */
export class StateFullError extends HeadwaterError {
  constructor(groups: number) {
    super("ANALYTICS_STATE_FULL", {
      message: `more than ${groups} keys and windows are open at once`,
      hint: "group by a column with fewer values, or shorten the watermark's delay, under a new statement name",
    });
  }
}

export class Panes {
  readonly #maxGroups: number;
  /** By window start, then by the key's JSON. */
  readonly #panes = new Map<number, Map<string, Group>>();
  #groups = 0;

  constructor(maxGroups: number) {
    this.#maxGroups = maxGroups;
  }

  get groups(): number {
    return this.#groups;
  }

  /** All of the partials, or none. @throws StateFullError */
  merge(partials: readonly GroupPartial[]): void {
    let added = 0;
    for (const { paneMs, key } of partials) {
      if (!this.#panes.get(paneMs)?.has(JSON.stringify(key))) added++;
    }
    if (this.#groups + added > this.#maxGroups) throw new StateFullError(this.#maxGroups);
    for (const partial of partials) this.#mergeOne(partial);
  }

  #mergeOne(partial: GroupPartial): void {
    const name = JSON.stringify(partial.key);
    let pane = this.#panes.get(partial.paneMs);
    if (pane === undefined) {
      pane = new Map();
      this.#panes.set(partial.paneMs, pane);
    }
    let group = pane.get(name);
    if (group === undefined) {
      group = {
        key: partial.key,
        paneMs: partial.paneMs,
        rows: 0,
        measures: partial.measures.map(emptyMeasure),
      };
      pane.set(name, group);
      this.#groups++;
    }
    group.rows += partial.rows;
    for (let i = 0; i < partial.measures.length; i++) mergeMeasure(group.measures[i]!, partial.measures[i]!);
  }

  /** Takes out the windows that end at or before `watermarkMs`, by end and then by key. */
  close(watermarkMs: number, windowMs: number): Group[] {
    const starts = [...this.#panes.keys()].filter((start) => start + windowMs <= watermarkMs);
    const closed: Group[] = [];
    for (const start of starts.sort((a, b) => a - b)) {
      const pane = this.#panes.get(start)!;
      this.#panes.delete(start);
      this.#groups -= pane.size;
      for (const name of [...pane.keys()].sort()) closed.push(pane.get(name)!);
    }
    return closed;
  }

  /** Everything that is open, for a checkpoint. */
  all(): Group[] {
    return [...this.#panes.values()].flatMap((pane) => [...pane.values()]);
  }

  restore(groups: readonly Group[]): void {
    for (const group of groups) {
      const pane = this.#panes.get(group.paneMs) ?? new Map<string, Group>();
      this.#panes.set(group.paneMs, pane.set(JSON.stringify(group.key), group));
      this.#groups++;
    }
  }
}

function emptyMeasure(partial: MeasurePartial): Measure {
  return { count: 0, sum: typeof partial.sum === "bigint" ? 0n : 0, lost: 0, min: 0, max: 0 };
}

function mergeMeasure(into: Measure, partial: MeasurePartial): void {
  if (partial.count === 0) return;
  into.min = into.count === 0 ? partial.min : Math.min(into.min, partial.min);
  into.max = into.count === 0 ? partial.max : Math.max(into.max, partial.max);
  into.count += partial.count;
  if (typeof into.sum === "bigint" || typeof partial.sum === "bigint") {
    into.sum = BigInt(into.sum) + BigInt(partial.sum);
    return;
  }
  // A. Neumaier, "Rundungsfehleranalyse einiger Verfahren zur Summation endlicher Summen", 1974.
  const sum = into.sum + partial.sum;
  into.lost +=
    Math.abs(into.sum) >= Math.abs(partial.sum) ? into.sum - sum + partial.sum : partial.sum - sum + into.sum;
  into.sum = sum;
}

/** The sum with its compensation. */
export function sumOf(measure: Measure): number | bigint {
  return typeof measure.sum === "bigint" ? measure.sum : measure.sum + measure.lost;
}
