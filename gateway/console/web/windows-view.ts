/** The newest results of a statement, with the columns that its SQL gives them. */
import type { NewestWindows, StatementStatus, WindowRow } from "./contract.ts";
import { type Column, DataTable } from "./data-table.ts";
import { byId, setText, setTone, updateSelect } from "./elements.ts";
import { fetchWindows } from "./gateway-client.ts";
import * as units from "./units.ts";

const ROWS = 12;
const MAX_COLUMNS = 10;
const NO_STATEMENT = "No statement yet: add one under analytics in gateway.yaml.";
const NOT_ALL = "not all are shown: some are too large";
const NO_RESULT = "No window has closed yet: the first comes when the watermark has passed its end.";

const NOTHING: NewestWindows = { rows: [] };

export class WindowsView {
  readonly #select = byId<HTMLSelectElement>("windows-statement");
  readonly #detail = byId("windows-detail");
  readonly #table = new DataTable("Newest windows, the newest first", [], "");
  #nowMs = 0;
  #results = new Map<string, number>();
  #shown = "";
  #isCut = false;

  constructor() {
    byId("windows").replaceChildren(this.#table.root);
    this.#select.addEventListener("change", () => void this.#refresh().catch(() => {}));
  }

  /** Asks for the windows only when there are new ones. */
  async update(statements: readonly StatementStatus[], nowMs: number): Promise<void> {
    this.#nowMs = nowMs;
    const chosen = updateSelect(
      this.#select,
      statements.map(({ name }) => name),
    );
    const statement = statements.find(({ name }) => name === chosen);
    this.#results = new Map(statements.map(({ name, results }) => [name, results]));
    await this.#refresh();
    // Only now: while they are being fetched nobody knows that there are none.
    this.#table.setEmptyText(statement === undefined ? NO_STATEMENT : NO_RESULT);
    const told = statement === undefined ? [] : factsOf(statement, nowMs);
    if (statement !== undefined && this.#isCut) told.push(NOT_ALL);
    setText(this.#detail, told.join(" · "));
    setTone(this.#detail, statement?.lastError === undefined ? undefined : "bad");
  }

  async #refresh(): Promise<void> {
    const name = this.#select.value;
    const version = `${this.#results.get(name) ?? 0} ${name}`;
    if (version === this.#shown) return;
    const { rows, isCut = false } = name === "" ? NOTHING : await fetchWindows(name, ROWS);
    // The choice may have changed while the answer was on its way.
    if (name !== this.#select.value) return;
    this.#shown = rows.length === 0 ? "" : version;
    this.#isCut = isCut;
    this.#show(rows);
  }

  #show(rows: readonly WindowRow[]): void {
    const names = [...new Set(rows.flatMap((row) => Object.keys(row)))].slice(0, MAX_COLUMNS);
    const columns: Column[] = names.map((name) => ({
      title: name.replaceAll("_", " "),
      numeric: rows.some((row) => typeof row[name] === "number"),
      wide: rows.some((row) => typeof row[name] === "string" && !units.isTime(row[name])),
    }));
    this.#table.setColumns(columns);
    this.#table.update(
      rows.slice(0, ROWS).map((row, i) => ({
        key: String(i),
        cells: names.map((name) => units.anything(row[name], this.#nowMs)),
      })),
    );
  }
}

function factsOf(statement: StatementStatus, nowMs: number): string[] {
  const { input, output, records, results, late, rejected, watermarkUs, lastError } = statement;
  const facts = [
    `${input} → ${output}`,
    `${units.count(records)} records read`,
    `${units.counted(results, "window")}`,
    `${units.count(late)} late`,
    `${units.count(rejected)} rejected`,
  ];
  if (watermarkUs !== undefined) facts.push(`watermark ${units.time(watermarkUs / 1_000, nowMs)}`);
  if (lastError !== undefined) facts.push(lastError);
  return facts;
}
