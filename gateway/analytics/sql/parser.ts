/**
 * Flink SQL, as far as one shape goes: two CREATE TABLE, then one INSERT INTO … SELECT over a
 * tumbling window. A recursive descent without recursion into itself, so no text can exhaust the stack.
 */
import { SqlNotSupportedError, type SqlPlace } from "./errors.ts";
import type { AggregateFunction, Column, ColumnType } from "./plan.ts";
import { shown, TokenReader } from "./token-reader.ts";
import type { Token } from "./tokenizer.ts";

const MAX_COLUMNS = 256;
const AGGREGATES: readonly string[] = ["COUNT", "SUM", "AVG", "MIN", "MAX"];
const UNIT_MS: Readonly<Record<string, number>> = {
  SECOND: 1_000,
  SECONDS: 1_000,
  MINUTE: 60_000,
  MINUTES: 60_000,
  HOUR: 3_600_000,
  HOURS: 3_600_000,
};
const STATEMENTS = "CREATE TABLE and INSERT INTO … SELECT … FROM TABLE(TUMBLE(…)) GROUP BY …";

export interface TableDefinition {
  readonly name: string;
  readonly place: SqlPlace;
  readonly columns: readonly (Column & { readonly place: SqlPlace })[];
  readonly watermark: { readonly column: Token; readonly delayMs: number } | undefined;
  readonly options: ReadonlyMap<string, { readonly value: string; readonly place: SqlPlace }>;
}

export type SelectItem =
  | { readonly kind: "column"; readonly column: Token }
  | { readonly kind: "count_all"; readonly place: SqlPlace }
  | { readonly kind: "aggregate"; readonly function: AggregateFunction; readonly column: Token };

export interface InsertDefinition {
  readonly place: SqlPlace;
  readonly into: Token;
  readonly items: readonly SelectItem[];
  readonly from: Token;
  readonly descriptor: Token;
  readonly windowMs: number;
  readonly groupBy: readonly Token[];
}

/** @throws SqlNotSupportedError */
export function parse(sql: string): { tables: TableDefinition[]; insert: InsertDefinition } {
  const reader: TokenReader = new TokenReader(sql);
  const tables: TableDefinition[] = [];
  let insert: InsertDefinition | undefined;
  while (reader.peek().kind !== "end") {
    if (reader.skipSymbol(";")) continue;
    const place = reader.peek().place;
    if (insert !== undefined) {
      throw new SqlNotSupportedError(
        place,
        `${shown(reader.peek())} after INSERT INTO is not supported`,
        "nothing more",
      );
    }
    if (reader.skipWord("CREATE")) tables.push(createTable(reader, place));
    else if (reader.skipWord("INSERT")) insert = insertInto(reader, place);
    else reader.refuse(STATEMENTS);
    if (reader.peek().kind !== "end" && !reader.isSymbol(";")) reader.refuse("; between statements");
    if (tables.length > 2) {
      throw new SqlNotSupportedError(
        place,
        "a third table is not supported",
        "one input and one output table",
      );
    }
  }
  if (insert === undefined) reader.refuse(STATEMENTS);
  return { tables, insert };
}

function createTable(reader: TokenReader, place: SqlPlace): TableDefinition {
  if (!reader.skipWord("TABLE")) reader.refuse("CREATE TABLE");
  if (reader.skipWord("IF")) reader.expectWords("NOT", "EXISTS");
  const name = reader.name("a table");
  const columns: (Column & { place: SqlPlace })[] = [];
  let watermark: TableDefinition["watermark"];
  reader.expectSymbol("(");
  do {
    if (reader.isWord("WATERMARK")) {
      if (watermark !== undefined) reader.refuse("one WATERMARK a table");
      watermark = watermarkFor(reader);
    } else {
      if (columns.length >= MAX_COLUMNS) reader.refuse(`at most ${MAX_COLUMNS} columns`);
      columns.push(columnDefinition(reader));
    }
  } while (reader.skipSymbol(","));
  if (!reader.skipSymbol(")")) reader.refuse(", or ) after a column");
  if (!reader.skipWord("WITH")) reader.refuse("WITH ('connector' = 'kinesis', …)");
  return { name: name.text, place, columns, watermark, options: tableOptions(reader) };
}

function columnDefinition(reader: TokenReader): Column & { place: SqlPlace } {
  if (reader.isWord("PRIMARY", "UNIQUE", "CONSTRAINT")) reader.refuse("a column, or WATERMARK FOR …");
  const name = reader.name("a column");
  const type = columnType(reader);
  let notNull = false;
  if (reader.skipWord("NOT")) {
    reader.expectWords("NULL");
    notNull = true;
  } else reader.skipWord("NULL");
  return { name: name.text, type, notNull, place: name.place };
}

function columnType(reader: TokenReader): ColumnType {
  const accepted =
    "STRING, VARCHAR(n), BOOLEAN, TINYINT, SMALLINT, INT, BIGINT, FLOAT, DOUBLE, TIMESTAMP(3), TIMESTAMP_LTZ(3)";
  const token = reader.peek();
  if (token.kind !== "word") reader.refuse(accepted);
  reader.take();
  switch (token.word) {
    case "STRING":
    case "BOOLEAN":
    case "TINYINT":
    case "SMALLINT":
    case "INT":
    case "BIGINT":
    case "FLOAT":
      return token.word;
    case "INTEGER":
      return "INT";
    case "DOUBLE":
      reader.skipWord("PRECISION");
      return "DOUBLE";
    case "VARCHAR":
      if (length(reader) === undefined) reader.refuse("VARCHAR(n), or STRING");
      return "STRING";
    case "TIMESTAMP":
    case "TIMESTAMP_LTZ": {
      const precision = length(reader);
      if (reader.isWord("WITH", "WITHOUT")) reader.refuse("TIMESTAMP(3) or TIMESTAMP_LTZ(3)");
      if (precision !== 3) {
        throw new SqlNotSupportedError(
          token.place,
          `${token.word} of another precision than 3 is not supported`,
          accepted,
        );
      }
      return `${token.word}(3)`;
    }
    default:
      throw new SqlNotSupportedError(token.place, `the type ${token.word} is not supported`, accepted);
  }
}

function length(reader: TokenReader): number | undefined {
  if (!reader.skipSymbol("(")) return undefined;
  if (reader.peek().kind !== "number") reader.refuse("a number");
  const value = Number(reader.take().text);
  reader.expectSymbol(")");
  return value;
}

/** `WATERMARK FOR column AS column [- INTERVAL 'n' unit]` */
function watermarkFor(reader: TokenReader): { column: Token; delayMs: number } {
  reader.expectWords("WATERMARK", "FOR");
  const column = reader.name("the event time column");
  reader.expectWords("AS");
  const again = reader.name("the event time column");
  if (again.text !== column.text) {
    throw new SqlNotSupportedError(
      again.place,
      `a watermark from ${shown(again)} is not supported`,
      `\`${column.text}\` - INTERVAL '5' SECOND`,
    );
  }
  return { column, delayMs: reader.skipSymbol("-") ? interval(reader, true) : 0 };
}

/** `INTERVAL 'n' SECOND|MINUTE|HOUR` in milliseconds. */
function interval(reader: TokenReader, mayBeZero: boolean): number {
  if (!reader.skipWord("INTERVAL")) reader.refuse("INTERVAL '10' SECOND");
  const amount = reader.string("a number");
  const unit = UNIT_MS[reader.peek().word];
  if (unit === undefined) reader.refuse("SECOND, MINUTE or HOUR");
  reader.take();
  const ms = /^\d{1,9}(\.\d{1,3})?$/.test(amount.text) ? Math.round(Number(amount.text) * unit) : Number.NaN;
  if (!(ms >= (mayBeZero ? 0 : 1)) || ms > 366 * 86_400_000) {
    throw new SqlNotSupportedError(
      amount.place,
      `an interval of ${shown(amount)} is not supported`,
      "a number, as in '10', up to a year",
    );
  }
  return ms;
}

function tableOptions(reader: TokenReader): Map<string, { value: string; place: SqlPlace }> {
  const options = new Map<string, { value: string; place: SqlPlace }>();
  reader.expectSymbol("(");
  do {
    const key = reader.string("an option's name");
    reader.expectSymbol("=");
    const value = reader.string("an option's value");
    if (options.has(key.text)) {
      throw new SqlNotSupportedError(key.place, `${shown(key)} twice is not supported`, "each option once");
    }
    options.set(key.text, { value: value.text, place: key.place });
  } while (reader.skipSymbol(","));
  reader.expectSymbol(")");
  return options;
}

function insertInto(reader: TokenReader, place: SqlPlace): InsertDefinition {
  if (!reader.skipWord("INTO")) reader.refuse("INSERT INTO");
  const into = reader.name("the output table");
  if (!reader.skipWord("SELECT")) reader.refuse("SELECT, right after the output table's name");
  const items: SelectItem[] = [];
  do {
    if (items.length >= MAX_COLUMNS) reader.refuse(`at most ${MAX_COLUMNS} columns`);
    items.push(selectItem(reader));
  } while (reader.skipSymbol(","));
  if (!reader.skipWord("FROM")) reader.refuse("FROM TABLE(TUMBLE(…)), or a comma and another column");
  if (!reader.skipWord("TABLE")) reader.refuse("TABLE(TUMBLE(TABLE t, DESCRIPTOR(c), INTERVAL '10' SECOND))");
  reader.expectSymbol("(");
  if (!reader.skipWord("TUMBLE")) reader.refuse("TUMBLE");
  reader.expectSymbol("(");
  reader.expectWords("TABLE");
  const from = reader.name("the input table");
  reader.expectSymbol(",");
  reader.expectWords("DESCRIPTOR");
  reader.expectSymbol("(");
  const descriptor = reader.name("the event time column");
  reader.expectSymbol(")");
  reader.expectSymbol(",");
  const windowMs = interval(reader, false);
  if (!reader.skipSymbol(")")) reader.refuse(") : TUMBLE takes a table, a descriptor and a size");
  reader.expectSymbol(")");
  const accepted = "GROUP BY key, window_start, window_end";
  if (!reader.skipWord("GROUP")) reader.refuse(accepted);
  reader.expectWords("BY");
  const groupBy: Token[] = [];
  do {
    if (reader.isSymbol("(") || reader.isWord("GROUPING", "ROLLUP", "CUBE")) reader.refuse(accepted);
    groupBy.push(reader.name("a column"));
  } while (reader.skipSymbol(",") && groupBy.length < MAX_COLUMNS);
  return { place, into, items, from, descriptor, windowMs, groupBy };
}

/** `column`, `COUNT(*)` or `SUM(column)`, each with `[AS] alias`, which the output table's names outrank. */
function selectItem(reader: TokenReader): SelectItem {
  const item = selectExpression(reader);
  if (reader.skipWord("AS")) reader.name("an alias");
  else if (reader.peek().kind === "name" || (reader.peek().kind === "word" && !reader.isWord("FROM"))) {
    if (reader.isWord("OVER", "FILTER", "WITHIN")) reader.refuse("a plain aggregate over the window");
    reader.name("an alias");
  }
  return item;
}

function selectExpression(reader: TokenReader): SelectItem {
  const token = reader.peek();
  const accepted = `a column, window_start, window_end, COUNT(*), or ${AGGREGATES.join(", ")} of a column`;
  if (token.kind === "word" && AGGREGATES.includes(token.word)) {
    reader.take();
    return aggregate(reader, token);
  }
  if (token.kind !== "name" && token.kind !== "word") reader.refuse(accepted);
  if (reader.isWord("DISTINCT", "ALL", "CASE", "CAST")) reader.refuse(accepted);
  const column = reader.name("a column");
  if (reader.isSymbol("(")) {
    throw new SqlNotSupportedError(
      column.place,
      `the function ${column.word || shown(column)} is not supported`,
      AGGREGATES.join(", "),
    );
  }
  if (!reader.isSymbol(",") && reader.peek().kind === "symbol") reader.refuse(accepted);
  return { kind: "column", column };
}

function aggregate(reader: TokenReader, token: Token): SelectItem {
  reader.expectSymbol("(");
  if (token.word === "COUNT" && reader.skipSymbol("*")) {
    reader.expectSymbol(")");
    return { kind: "count_all", place: token.place };
  }
  const column = reader.name(`a column, as in ${token.word}(x)`);
  if (!reader.skipSymbol(")")) reader.refuse(`) : ${token.word} takes one column`);
  return { kind: "aggregate", function: token.word as AggregateFunction, column };
}
