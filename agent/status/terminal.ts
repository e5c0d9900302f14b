/** The status as lines of text: columns stand below one another, colours only where they are wanted. */
import type { Cell, Presentation, Section, Tone } from "./presentation.ts";

/** ECMA-48 §8.3.117, select graphic rendition. */
const COLOURS: Readonly<Record<Tone, string>> = { good: "32", warn: "33", bad: "31", quiet: "2" };
const GAP = "  ";

export function terminalText(shown: Presentation, coloured: boolean): string {
  const paint = (text: string, code: string | undefined): string =>
    coloured && code !== undefined && text !== "" ? `\x1b[${code}m${text}\x1b[0m` : text;
  const { headline } = shown;
  const lines = [
    `${paint(plain(shown.device), "1")}  ${paint(plain(headline.text), headline.tone && COLOURS[headline.tone])}`,
  ];
  for (const section of shown.sections) {
    lines.push("", paint(section.title, "1"), ...sectionLines(section, paint));
  }
  return `${lines.join("\n")}\n`;
}

function sectionLines(section: Section, paint: (text: string, code: string | undefined) => string): string[] {
  const { columns, rows, empty = "" } = section;
  if (rows.length === 0) return [`${GAP}${empty}`];
  const table: Cell[][] = [];
  if (columns !== undefined) table.push(columns.map(({ title }) => ({ text: title, tone: "quiet" })));
  for (const row of rows) table.push(row.map((cell) => ({ ...cell, text: plain(cell.text) })));
  // A column that says nothing is left out.
  const kept = table[0]!.map((_, i) =>
    table.slice(columns === undefined ? 0 : 1).some((row) => row[i]?.text),
  );
  const widths = table[0]!.map((_, i) => Math.max(...table.map((row) => (row[i]?.text ?? "").length)));
  return table.map((row) => {
    let line = "";
    for (const [i, { text, tone }] of row.entries()) {
      if (!kept[i]) continue;
      const fill = " ".repeat(widths[i]! - text.length);
      const cell = paint(text, tone && COLOURS[tone]);
      line += GAP + (columns?.[i]?.numeric ? fill + cell : cell + fill);
    }
    return line.trimEnd();
  });
}

/** A device's name or an error's text must not steer the terminal. */
function plain(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: those are what is taken out
  return text.replace(/[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g, "?");
}
