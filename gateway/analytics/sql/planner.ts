/** From parsed SQL to a plan: names are looked up, types compared, and the one shape is enforced. */
import { SqlNotSupportedError, type SqlPlace } from "./errors.ts";
import { type InsertDefinition, parse, type SelectItem, type TableDefinition } from "./parser.ts";
import {
  type Column,
  type ColumnType,
  fits,
  isInteger,
  isNumeric,
  isTimestamp,
  type Output,
  type OutputSource,
  type Plan,
} from "./plan.ts";
import { shown } from "./token-reader.ts";
import type { Token } from "./tokenizer.ts";

const MAX_KEYS = 2;
/** Kinesis' stream names. */
const STREAM = /^[A-Za-z0-9_.-]{1,128}$/;
const STREAM_ARN = /^arn:[^:]+:kinesis:[^:]*:[^:]*:stream\/([A-Za-z0-9_.-]{1,128})$/;
/** What Flink needs to reach our endpoint means nothing in here. */
const IGNORED_OPTIONS = /^(aws\.|sink\.)/;

/**
 * Checks a statement without running it.
 * @throws SqlNotSupportedError with the place and what would be accepted
 */
export function planStatement(sql: string): Plan {
  const { tables, insert } = parse(sql);
  const input = tableNamed(tables, insert.from);
  const output = tableNamed(tables, insert.into);
  if (input === output) {
    throw new SqlNotSupportedError(
      insert.into.place,
      "a table that is input and output is not supported",
      "two tables",
    );
  }
  if (output.watermark !== undefined) {
    throw new SqlNotSupportedError(
      output.watermark.column.place,
      "WATERMARK in the output table is not supported",
      "columns only",
    );
  }
  const timeColumn = eventTime(input, insert);
  const keys = keyColumns(input, insert);
  const { measures, outputs } = select(input, output, insert, keys);
  const inputStream = streamOf(input);
  const outputStream = streamOf(output);
  if (inputStream === outputStream) {
    throw new SqlNotSupportedError(
      output.place,
      `writing into ${outputStream}, which is read, is not supported`,
      "two streams",
    );
  }
  return {
    inputStream,
    outputStream,
    columns: input.columns.map(bare),
    timeColumn: timeColumn.name,
    watermarkDelayMs: input.watermark!.delayMs,
    windowMs: insert.windowMs,
    keys,
    measures,
    outputs,
  };
}

function bare(column: Column): Column {
  return { name: column.name, type: column.type, notNull: column.notNull };
}

function tableNamed(tables: readonly TableDefinition[], name: Token): TableDefinition {
  const [table, second] = tables.filter((each) => each.name === name.text);
  if (table === undefined) {
    const known = tables.map((each) => `\`${each.name}\``).join(", ") || "a CREATE TABLE before it";
    throw new SqlNotSupportedError(name.place, `there is no table ${shown(name)}`, known);
  }
  if (second !== undefined) {
    throw new SqlNotSupportedError(
      second.place,
      `a second table \`${second.name}\` is not supported`,
      "another name",
    );
  }
  return table;
}

function columnNamed(table: TableDefinition, name: Token): Column {
  const column = table.columns.find((each) => each.name === name.text);
  if (column !== undefined) return bare(column);
  const known = table.columns.map((each) => `\`${each.name}\``).join(", ");
  throw new SqlNotSupportedError(
    name.place,
    `table \`${table.name}\` has no column ${shown(name)}`,
    known.slice(0, 300),
  );
}

function eventTime(input: TableDefinition, insert: InsertDefinition): Column {
  const seen = new Set<string>();
  for (const column of input.columns) {
    if (seen.has(column.name)) {
      throw new SqlNotSupportedError(
        column.place,
        `a second column \`${column.name}\` is not supported`,
        "each name once",
      );
    }
    seen.add(column.name);
  }
  if (input.watermark === undefined) {
    throw new SqlNotSupportedError(
      input.place,
      `table \`${input.name}\` without WATERMARK is not supported`,
      "WATERMARK FOR `time` AS `time` - INTERVAL '5' SECOND",
    );
  }
  const column = columnNamed(input, input.watermark.column);
  if (!isTimestamp(column.type)) {
    throw new SqlNotSupportedError(
      input.watermark.column.place,
      `a watermark over ${column.type} is not supported`,
      "a column of TIMESTAMP(3) or TIMESTAMP_LTZ(3)",
    );
  }
  if (insert.descriptor.text !== column.name) {
    throw new SqlNotSupportedError(
      insert.descriptor.place,
      `DESCRIPTOR(${shown(insert.descriptor)}) is not supported`,
      `DESCRIPTOR(\`${column.name}\`), the column of the watermark`,
    );
  }
  return column;
}

function keyColumns(input: TableDefinition, insert: InsertDefinition): Column[] {
  const keys: Column[] = [];
  const seen = new Set<string>();
  for (const token of insert.groupBy) {
    if (seen.has(token.text)) {
      throw new SqlNotSupportedError(
        token.place,
        `grouping by ${shown(token)} twice is not supported`,
        "each column once",
      );
    }
    seen.add(token.text);
    if (isWindowColumn(token)) continue;
    const column = columnNamed(input, token);
    if (column.type === "FLOAT" || column.type === "DOUBLE" || isTimestamp(column.type)) {
      throw new SqlNotSupportedError(
        token.place,
        `a key of ${column.type} is not supported`,
        "STRING, BOOLEAN or an integer",
      );
    }
    keys.push(column);
    if (keys.length > MAX_KEYS) {
      throw new SqlNotSupportedError(
        token.place,
        "a third key column is not supported",
        "one or two key columns",
      );
    }
  }
  if (!seen.has("window_start") || !seen.has("window_end") || keys.length === 0) {
    throw new SqlNotSupportedError(
      insert.groupBy[0]!.place,
      "this grouping is not supported",
      "GROUP BY with one or two columns, window_start and window_end",
    );
  }
  return keys;
}

function isWindowColumn(token: Token): boolean {
  return token.text === "window_start" || token.text === "window_end";
}

function select(
  input: TableDefinition,
  output: TableDefinition,
  insert: InsertDefinition,
  keys: readonly Column[],
): { measures: Column[]; outputs: Output[] } {
  if (insert.items.length !== output.columns.length) {
    throw new SqlNotSupportedError(
      insert.into.place,
      `${insert.items.length} selected columns for ${output.columns.length} of \`${output.name}\` are not supported`,
      "as many columns in the same order",
    );
  }
  const measures: Column[] = [];
  const names = new Set<string>();
  const outputs = insert.items.map((item, i): Output => {
    const target = output.columns[i]!;
    if (names.has(target.name)) {
      throw new SqlNotSupportedError(
        target.place,
        `a second column \`${target.name}\` is not supported`,
        "each name once",
      );
    }
    names.add(target.name);
    const { source, type } = resolve(item, input, keys, measures);
    if (!fits(type, target.type)) {
      throw new SqlNotSupportedError(
        target.place,
        `column \`${target.name}\` as ${target.type} for a value of ${type} is not supported`,
        type,
      );
    }
    return { name: target.name, type: target.type, source };
  });
  requireOnce(outputs, keys, insert.place);
  return { measures, outputs };
}

/** Two rows of one result would look alike without their key and window. */
function requireOnce(outputs: readonly Output[], keys: readonly Column[], place: SqlPlace): void {
  const selected = (test: (source: OutputSource) => boolean) =>
    outputs.filter((each) => test(each.source)).length;
  const wanted = [
    ...keys.map(
      (key, i) => [key.name, selected((source) => source.kind === "key" && source.key === i)] as const,
    ),
    ["window_start", selected((source) => source.kind === "window_start")] as const,
    ["window_end", selected((source) => source.kind === "window_end")] as const,
  ];
  for (const [name, times] of wanted) {
    if (times === 1) continue;
    throw new SqlNotSupportedError(
      place,
      times === 0
        ? `a SELECT without \`${name}\` is not supported`
        : `selecting \`${name}\` twice is not supported`,
      "every grouped column once",
    );
  }
}

function resolve(
  item: SelectItem,
  input: TableDefinition,
  keys: readonly Column[],
  measures: Column[],
): { source: OutputSource; type: ColumnType } {
  if (item.kind === "count_all") return { source: { kind: "count_all" }, type: "BIGINT" };
  if (item.kind === "column") {
    if (item.column.text === "window_start")
      return { source: { kind: "window_start" }, type: "TIMESTAMP(3)" };
    if (item.column.text === "window_end") return { source: { kind: "window_end" }, type: "TIMESTAMP(3)" };
    const column = columnNamed(input, item.column);
    const key = keys.findIndex((each) => each.name === column.name);
    if (key >= 0) return { source: { kind: "key", key }, type: column.type };
    throw new SqlNotSupportedError(
      item.column.place,
      `the column ${shown(item.column)}, which is not grouped by, is not supported`,
      `an aggregate of it, as in MAX(\`${column.name}\`)`,
    );
  }
  const column = columnNamed(input, item.column);
  if (item.function !== "COUNT" && !isNumeric(column.type)) {
    throw new SqlNotSupportedError(
      item.column.place,
      `${item.function} over ${column.type} is not supported`,
      "a numeric column",
    );
  }
  let measure = measures.findIndex((each) => each.name === column.name);
  if (measure < 0) measure = measures.push(column) - 1;
  const source: OutputSource = { kind: "aggregate", function: item.function, measure };
  return { source, type: item.function === "COUNT" ? "BIGINT" : resultType(column.type) };
}

/** Flink's: an aggregate of integers is an integer, also AVG, which then rounds towards zero. */
function resultType(type: ColumnType): ColumnType {
  return isInteger(type) ? type : type === "FLOAT" ? "FLOAT" : "DOUBLE";
}

function streamOf(table: TableDefinition): string {
  let stream: string | undefined;
  for (const [key, { value, place }] of table.options) {
    const refuse = (accepted: string): never => {
      throw new SqlNotSupportedError(place, `'${key}' = '${value.slice(0, 80)}' is not supported`, accepted);
    };
    if (key === "connector" && value !== "kinesis") refuse("'connector' = 'kinesis'");
    else if (key === "format" && value !== "json") refuse("'format' = 'json'");
    else if (key === "stream" || key === "stream.arn") {
      const found = key === "stream" ? (STREAM.test(value) ? value : undefined) : STREAM_ARN.exec(value)?.[1];
      if (found === undefined || (stream !== undefined && stream !== found)) {
        refuse("one stream: 'stream' = 'name', or 'stream.arn' = 'arn:aws:kinesis:…:stream/name'");
      }
      stream = found;
    } else if (key === "json.timestamp-format.standard") {
      if (value !== "ISO-8601") refuse(`'${key}' = 'ISO-8601'`);
    } else if (key === "json.ignore-parse-errors") {
      if (value !== "true") refuse(`'${key}' = 'true'`);
    } else if (key === "source.init.position" || key === "scan.stream.initpos") {
      if (value !== "TRIM_HORIZON") refuse(`'${key}' = 'TRIM_HORIZON'`);
    } else if (key !== "connector" && key !== "format" && !IGNORED_OPTIONS.test(key)) {
      refuse(
        "connector, stream, stream.arn, format, json.timestamp-format.standard, json.ignore-parse-errors, source.init.position, aws.…, sink.…",
      );
    }
  }
  for (const needed of ["connector", "format"]) {
    if (!table.options.has(needed)) {
      throw new SqlNotSupportedError(
        table.place,
        `table \`${table.name}\` without '${needed}' is not supported`,
        "'connector' = 'kinesis', 'stream' = 'name', 'format' = 'json'",
      );
    }
  }
  if (stream === undefined) {
    throw new SqlNotSupportedError(
      table.place,
      `table \`${table.name}\` without a stream is not supported`,
      "'stream' = 'name'",
    );
  }
  return stream;
}
