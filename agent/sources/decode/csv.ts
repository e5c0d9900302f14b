/**
 * CSV with a header, RFC 4180 within one line: a quoted field holds delimiters and doubled quotes, no
 * line ends. Numbers become numbers, empty cells are left out.
 *
 * The first line names the columns, unless the config does. A line that repeats the header, as boards
 * send it after a reset, makes nothing; other names in it make it the new header.
 */
import type { CsvConfig } from "../../../config/source-config.ts";
import type { Decoded } from "../source.ts";
import { decodeBareNumber } from "./bare-number.ts";
import { readingOf } from "./json-object.ts";

const MAX_COLUMNS = 1_000;
const MAX_NAME_CHARACTERS = 200;
const DEFAULTS = { delimiter: ",", columns: undefined, sensorColumn: "sensor", timeColumn: "time" };

export class CsvDecoder {
  readonly #sensor: string;
  readonly #config: { delimiter: string; sensorColumn: string; timeColumn: string };
  readonly #fixed: boolean;
  #columns: readonly string[] | undefined;

  constructor(sensor: string, config: CsvConfig = undefined) {
    const { columns, ...rest } = config ?? DEFAULTS;
    this.#sensor = sensor;
    this.#config = rest;
    this.#columns = columns;
    this.#fixed = columns !== undefined;
  }

  /** @param line a header that was read before */
  prime(line: string): void {
    if (this.#fixed || this.#columns !== undefined) return;
    const cells = splitCsvLine(line, this.#config.delimiter);
    if (cells !== undefined && looksLikeNames(cells)) this.#columns = cells.map(trimmed);
  }

  decode(line: string, arrivalUs: number): Decoded {
    const cells = splitCsvLine(line, this.#config.delimiter);
    if (cells === undefined) return { reason: "CSV: a quote out of its place, or too many columns" };
    if (!this.#fixed && looksLikeNames(cells) && this.#mayBeHeader(cells)) {
      this.#columns = cells.map(trimmed);
      return { readings: [] };
    }
    const columns = this.#columns;
    if (columns === undefined) return { reason: "CSV: no header came before this line" };
    if (this.#fixed && cells.every((cell, i) => trimmed(cell) === columns[i])) return { readings: [] };
    if (cells.length !== columns.length)
      return { reason: `CSV: ${cells.length} columns where the header has ${columns.length}` };
    return { readings: [this.#reading(columns, cells, arrivalUs)] };
  }

  /** Before the first header everything that looks like one is; later it must name a column that is known. */
  #mayBeHeader(cells: readonly string[]): boolean {
    const known = this.#columns;
    if (known === undefined) return true;
    return cells.some((cell, i) => trimmed(cell) === known[i]);
  }

  #reading(columns: readonly string[], cells: readonly string[], arrivalUs: number) {
    const { sensorColumn, timeColumn } = this.#config;
    const fields: [string, unknown][] = [];
    let sensor = this.#sensor;
    columns.forEach((name, i) => {
      const cell = cells[i]!;
      if (cell === "") return;
      if (name === sensorColumn) sensor = cell.slice(0, MAX_NAME_CHARACTERS);
      else fields.push([name, numberOr(cell)]);
    });
    return readingOf(sensor, Object.fromEntries(fields), timeColumn, arrivalUs);
  }
}

function trimmed(cell: string): string {
  return cell.trim();
}

function numberOr(cell: string): unknown {
  return decodeBareNumber("", cell)?.fields.value ?? cell;
}

/** Names are not empty, not numbers, and all different. */
function looksLikeNames(cells: readonly string[]): boolean {
  const names = cells.map(trimmed);
  return (
    new Set(names).size === names.length &&
    names.every(
      (name) =>
        name !== "" &&
        name.length <= MAX_NAME_CHARACTERS &&
        Number.isNaN(Number(name)) &&
        !/^\d{4}-\d\d/.test(name),
    )
  );
}

/** RFC 4180 §2, rules 4 to 7, for one line; undefined when a quote stays open, or ends within a cell. */
export function splitCsvLine(line: string, delimiter: string): string[] | undefined {
  const cells: string[] = [];
  let at = 0;
  for (;;) {
    if (cells.length >= MAX_COLUMNS) return undefined;
    if (line[at] === '"') {
      let cell = "";
      let end = at + 1;
      for (;;) {
        const quote = line.indexOf('"', end);
        if (quote < 0) return undefined;
        cell += line.slice(end, quote);
        end = quote + 1;
        if (line[end] !== '"') break;
        cell += '"';
        end++;
      }
      const next = line.indexOf(delimiter, end);
      // Rule 5: nothing but a delimiter follows the quote. Spaces are common, and say nothing.
      if (line.slice(end, next < 0 ? undefined : next).trim() !== "") return undefined;
      cells.push(cell);
      if (next < 0) return cells;
      at = next + 1;
    } else {
      const next = line.indexOf(delimiter, at);
      cells.push(next < 0 ? line.slice(at) : line.slice(at, next));
      if (next < 0) return cells;
      at = next + 1;
    }
  }
}
