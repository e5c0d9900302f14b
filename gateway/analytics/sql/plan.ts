/** What a statement asks for, after parsing and checking: all that the rest of analytics knows of SQL. */

/** Flink's types that are understood. */
export type ColumnType =
  | "STRING"
  | "BOOLEAN"
  | "TINYINT"
  | "SMALLINT"
  | "INT"
  | "BIGINT"
  | "FLOAT"
  | "DOUBLE"
  | "TIMESTAMP(3)"
  | "TIMESTAMP_LTZ(3)";

export interface Column {
  readonly name: string;
  readonly type: ColumnType;
  readonly notNull: boolean;
}

export type AggregateFunction = "COUNT" | "SUM" | "AVG" | "MIN" | "MAX";

/** Where an output column comes from. Indexes are those of the arrays in `Plan`. */
export type OutputSource =
  | { readonly kind: "key"; readonly key: number }
  | { readonly kind: "window_start" }
  | { readonly kind: "window_end" }
  | { readonly kind: "count_all" }
  | { readonly kind: "aggregate"; readonly function: AggregateFunction; readonly measure: number };

export interface Output {
  /** The output table's column, which is the field of the result record. */
  readonly name: string;
  readonly type: ColumnType;
  readonly source: OutputSource;
}

/** One tumbling window per key over one stream. */
export interface Plan {
  readonly inputStream: string;
  readonly outputStream: string;
  readonly columns: readonly Column[];
  /** The event time's column. */
  readonly timeColumn: string;
  readonly watermarkDelayMs: number;
  readonly windowMs: number;
  readonly keys: readonly Column[];
  /** Columns that some aggregate takes; each once. */
  readonly measures: readonly Column[];
  readonly outputs: readonly Output[];
}

const INTEGER_TYPES: readonly ColumnType[] = ["TINYINT", "SMALLINT", "INT", "BIGINT"];
const NUMERIC_TYPES: readonly ColumnType[] = [...INTEGER_TYPES, "FLOAT", "DOUBLE"];

export function isInteger(type: ColumnType): boolean {
  return INTEGER_TYPES.includes(type);
}

export function isNumeric(type: ColumnType): boolean {
  return NUMERIC_TYPES.includes(type);
}

export function isTimestamp(type: ColumnType): boolean {
  return type === "TIMESTAMP(3)" || type === "TIMESTAMP_LTZ(3)";
}

/** Flink's implicit cast: a number into the same type or a wider one; anything else into its own. */
export function fits(from: ColumnType, to: ColumnType): boolean {
  if (isNumeric(from) && isNumeric(to)) return NUMERIC_TYPES.indexOf(from) <= NUMERIC_TYPES.indexOf(to);
  return from === to || (isTimestamp(from) && isTimestamp(to));
}
