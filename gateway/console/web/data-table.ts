/** A table that is updated in place, with a caption, a text for when it is empty, and its own scroll bar. */
import { element, KeyedChildren, setText, setTone, type Tone } from "./elements.ts";

export interface Column {
  readonly title: string;
  readonly numeric?: boolean;
  /** Its text may be cut with an ellipsis; the whole of it shows when pointed at. */
  readonly wide?: boolean;
}

export type Cell = string | { readonly text: string; readonly tone?: Tone } | { readonly node: Element };

export interface Row {
  readonly key: string;
  readonly cells: readonly Cell[];
}

class TableRow {
  readonly root = element("tr");
  readonly #cells: HTMLTableCellElement[];

  constructor(columns: readonly Column[]) {
    this.#cells = columns.map((column, i) => {
      const cell = element(i === 0 ? "th" : "td", i === 0 ? { attributes: { scope: "row" } } : {});
      if (column.numeric) cell.classList.add("numeric");
      if (column.wide) cell.classList.add("wide");
      return cell as HTMLTableCellElement;
    });
    this.root.append(...this.#cells);
  }

  update(cells: readonly Cell[]): void {
    this.#cells.forEach((target, i) => {
      const cell = cells[i] ?? "";
      if (typeof cell !== "string" && "node" in cell) {
        if (target.firstElementChild !== cell.node) target.replaceChildren(cell.node);
        return;
      }
      const text = typeof cell === "string" ? cell : cell.text;
      setText(target, text);
      if (target.classList.contains("wide") && target.title !== text) target.title = text;
      setTone(target, typeof cell === "string" ? undefined : cell.tone);
    });
  }
}

export class DataTable {
  readonly root: HTMLElement;
  readonly #head = element("tr");
  readonly #scroller: HTMLElement;
  readonly #empty: HTMLElement;
  readonly #rows: KeyedChildren<Row, TableRow>;
  #columns: readonly Column[] = [];

  /** @param emptyText what to do when there is nothing to show */
  constructor(caption: string, columns: readonly Column[], emptyText: string) {
    const body = element("tbody");
    const table = element(
      "table",
      {},
      element("caption", { text: caption }),
      element("thead", {}, this.#head),
      body,
    );
    // Focusable, so that the keyboard can scroll it where it is wider than the screen.
    const attributes = { tabindex: "0", role: "region", "aria-label": caption };
    this.#scroller = element("div", { class: "scroller", attributes }, table);
    this.#empty = element("p", { class: "empty", text: emptyText });
    this.root = element("div", {}, this.#scroller, this.#empty);
    this.#rows = new KeyedChildren(body, () => new TableRow(this.#columns));
    this.setColumns(columns);
    this.update([]);
  }

  setColumns(columns: readonly Column[]): void {
    if (JSON.stringify(columns) === JSON.stringify(this.#columns)) return;
    this.#rows.update(
      [],
      () => "",
      () => {},
    );
    this.#columns = columns;
    this.#head.replaceChildren(
      ...columns.map(({ title, numeric }) =>
        element("th", { text: title, ...(numeric && { class: "numeric" }), attributes: { scope: "col" } }),
      ),
    );
  }

  setEmptyText(text: string): void {
    setText(this.#empty, text);
  }

  update(rows: readonly Row[]): void {
    this.#scroller.hidden = rows.length === 0;
    this.#empty.hidden = rows.length > 0;
    this.#rows.update(
      rows,
      (row) => row.key,
      (made, row) => made.update(row.cells),
    );
  }
}
