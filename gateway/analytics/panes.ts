/**
 * The open windows of a statement: one accumulator for each key and window. Batches bring partial
 * aggregates, the watermark takes finished windows out.
 *
 * Sums of integers are exact (bigint). Sums of doubles come compensated from DuckDB for each batch
 * (Kahan) and are added here with Neumaier's compensation, so where batches begin and end changes a
 * result by about one unit in the last place.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import { HeadwaterError } from "../../runtime/errors.ts";
import type { KeyValues } from "./columns.ts";

/** There may be 100,000 of them, and the event loop is everybody's. */
const GROUPS_A_TURN = 2_000;
/** Of all that are open: each commit writes them, and a key may have 1,024 characters a column. */
const MAX_KEY_CHARACTERS = 32 * 1_048_576;

/** One measure over the rows of a key and window. `min` and `max` mean nothing while `count` is 0. */
export interface MeasurePartial {
  readonly count: number;
  readonly sum: number | bigint;
  readonly min: number;
  readonly max: number;
}

export interface GroupPartial {
  /** JSON of the key. */
  readonly keyName: string;
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
  constructor(maxGroups: number, maxKeyCharacters: number) {
    super("ANALYTICS_STATE_FULL", {
      message: `more than ${maxGroups} keys and windows, or more than ${maxKeyCharacters} characters of keys, are open at once`,
      hint: "group by a column with fewer values, or shorten the watermark's delay, under a new statement name",
    });
  }
}

export class Panes {
  readonly #maxGroups: number;
  /** By window start, then by the key's JSON. */
  readonly #panes = new Map<number, Map<string, Group>>();
  readonly #maxKeyCharacters: number;
  #groups = 0;
  #keyCharacters = 0;

  constructor(maxGroups: number, maxKeyCharacters = MAX_KEY_CHARACTERS) {
    this.#maxGroups = maxGroups;
    this.#maxKeyCharacters = maxKeyCharacters;
  }

  get groups(): number {
    return this.#groups;
  }

  /** How full it would be with so many more: 1 is all that it holds. */
  fill(moreGroups: number, moreKeyCharacters: number): number {
    const groups = (this.#groups + moreGroups) / this.#maxGroups;
    return Math.max(groups, (this.#keyCharacters + moreKeyCharacters) / this.#maxKeyCharacters);
  }

  /**
   * All of the partials, or none. Each key and window stands once among them. Nothing else may be asked of the
   * panes before this resolved. @throws StateFullError
   */
  async merge(partials: readonly GroupPartial[]): Promise<void> {
    let groups = this.#groups;
    let keyCharacters = this.#keyCharacters;
    await inTurns(partials, ({ paneMs, keyName }) => {
      if (this.#panes.get(paneMs)?.has(keyName)) return;
      groups++;
      keyCharacters += keyName.length;
    });
    if (groups > this.#maxGroups || keyCharacters > this.#maxKeyCharacters) {
      throw new StateFullError(this.#maxGroups, this.#maxKeyCharacters);
    }
    await inTurns(partials, (partial) => this.#mergeOne(partial));
  }

  #mergeOne(partial: GroupPartial): void {
    const { keyName, key, paneMs } = partial;
    let group = this.#panes.get(paneMs)?.get(keyName);
    if (group === undefined) {
      group = { key, paneMs, rows: 0, measures: partial.measures.map(emptyMeasure) };
      this.#open(keyName, group);
    }
    group.rows += partial.rows;
    for (let i = 0; i < partial.measures.length; i++) mergeMeasure(group.measures[i]!, partial.measures[i]!);
  }

  #open(keyName: string, group: Group): void {
    const pane = this.#panes.get(group.paneMs) ?? new Map<string, Group>();
    this.#panes.set(group.paneMs, pane.set(keyName, group));
    this.#groups++;
    this.#keyCharacters += keyName.length;
  }

  /** Takes out the windows that end at or before `watermarkMs`, by end and then by key. */
  close(watermarkMs: number, windowMs: number): Group[] {
    const starts = [...this.#panes.keys()].filter((start) => start + windowMs <= watermarkMs);
    const closed: Group[] = [];
    for (const start of starts.sort((a, b) => a - b)) {
      const pane = this.#panes.get(start)!;
      this.#panes.delete(start);
      this.#groups -= pane.size;
      for (const name of [...pane.keys()].sort()) {
        this.#keyCharacters -= name.length;
        closed.push(pane.get(name)!);
      }
    }
    return closed;
  }

  /** Everything that is open, for a checkpoint. */
  all(): Group[] {
    return [...this.#panes.values()].flatMap((pane) => [...pane.values()]);
  }

  async restore(groups: readonly Group[]): Promise<void> {
    await inTurns(groups, (group) => this.#open(JSON.stringify(group.key), group));
  }
}

async function inTurns<T>(items: readonly T[], visit: (item: T) => void): Promise<void> {
  for (let at = 0; at < items.length; at++) {
    if (at % GROUPS_A_TURN === GROUPS_A_TURN - 1) await nextTurn();
    visit(items[at]!);
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
