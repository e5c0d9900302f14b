/**
 * A batch of records as columns: typed arrays that DuckDB takes without a conversion. Keys become
 * small numbers of a dictionary, so that no string crosses over.
 */
import type { Column } from "./sql/plan.ts";
import { isInteger, isNumeric } from "./sql/plan.ts";

/** Values of the key columns; null stands for SQL's NULL. */
export type KeyValues = readonly (string | number | boolean | null)[];

/** How a measure is held: exact integers, doubles, or nothing but whether it is null. */
export type MeasureKind = "integer" | "double" | "presence";

export function measureKind(column: Column): MeasureKind {
  if (isInteger(column.type)) return "integer";
  return isNumeric(column.type) ? "double" : "presence";
}

const FIRST_CAPACITY = 2_048;

export class ColumnBatch {
  rows = 0;
  keyIds = new Int32Array(FIRST_CAPACITY);
  /** Start of the row's window, ms since 1970. A double holds it exactly. */
  paneMs = new Float64Array(FIRST_CAPACITY);
  readonly kinds: readonly MeasureKind[];
  readonly measures: Float64Array[];
  /** 1 where the measure is not null. */
  readonly present: Uint8Array[];
  /** The dictionary: `keys[id]`. */
  readonly keys: KeyValues[] = [];
  /** The same as one string each. */
  readonly keyNames: string[] = [];
  /** Keys and windows that the rows may be of, at most, and the characters of these keys. */
  groupsAtMost = 0;
  keyCharactersAtMost = 0;
  readonly #ids = new Map<string, number>();
  /** Of each key, the window of its last row. */
  readonly #lastPaneMs: number[] = [];

  constructor(measures: readonly Column[]) {
    this.kinds = measures.map(measureKind);
    this.measures = measures.map(() => new Float64Array(FIRST_CAPACITY));
    this.present = measures.map(() => new Uint8Array(FIRST_CAPACITY));
  }

  add(keyName: string, key: KeyValues, paneMs: number, measures: readonly (number | null)[]): void {
    if (this.rows === this.keyIds.length) this.#grow();
    const row = this.rows++;
    let id = this.#ids.get(keyName);
    if (id === undefined) {
      id = this.keys.push(key) - 1;
      this.keyNames.push(keyName);
      this.#ids.set(keyName, id);
    }
    this.keyIds[row] = id;
    this.paneMs[row] = paneMs;
    if (this.#lastPaneMs[id] !== paneMs) {
      this.#lastPaneMs[id] = paneMs;
      this.groupsAtMost++;
      this.keyCharactersAtMost += keyName.length;
    }
    for (let i = 0; i < this.measures.length; i++) {
      const value = measures[i]!;
      this.measures[i]![row] = value ?? 0;
      this.present[i]![row] = value === null ? 0 : 1;
    }
  }

  clear(): void {
    this.rows = 0;
    this.keys.length = 0;
    this.keyNames.length = 0;
    this.groupsAtMost = 0;
    this.keyCharactersAtMost = 0;
    this.#lastPaneMs.length = 0;
    this.#ids.clear();
  }

  #grow(): void {
    const capacity = this.keyIds.length * 2;
    const keyIds = new Int32Array(capacity);
    keyIds.set(this.keyIds);
    this.keyIds = keyIds;
    const paneMs = new Float64Array(capacity);
    paneMs.set(this.paneMs);
    this.paneMs = paneMs;
    for (let i = 0; i < this.measures.length; i++) {
      const values = new Float64Array(capacity);
      values.set(this.measures[i]!);
      this.measures[i] = values;
      const present = new Uint8Array(capacity);
      present.set(this.present[i]!);
      this.present[i] = present;
    }
  }
}
