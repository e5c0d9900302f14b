/** Cuts SQL text into tokens, each with its place. Comments and white space are dropped. */
import { SqlNotSupportedError, type SqlPlace } from "./errors.ts";

export const MAX_SQL_CHARACTERS = 65_536;

/** `word` is an unquoted name or keyword, `name` a name in backquotes, `string` text in single quotes. */
export type TokenKind = "word" | "name" | "string" | "number" | "symbol" | "end";

export interface Token {
  readonly kind: TokenKind;
  /** Without its quotes; a word as written. */
  readonly text: string;
  /** A word in capitals, for comparing keywords; "" for any other kind. */
  readonly word: string;
  readonly place: SqlPlace;
}

const WORD = /[A-Za-z_][A-Za-z0-9_$]*/y;
const NUMBER = /\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const BLANK = /\s+/y;
const LINE_COMMENT = /--[^\n]*/y;
const SYMBOLS = new Set([
  "(",
  ")",
  ",",
  ";",
  "*",
  "=",
  "-",
  "+",
  "/",
  "<",
  ">",
  ".",
  "%",
  "!",
  "[",
  "]",
  "|",
  ":",
  "?",
]);

/** @throws SqlNotSupportedError */
export function tokenize(sql: string): Token[] {
  if (sql.length > MAX_SQL_CHARACTERS) {
    throw new SqlNotSupportedError(
      { line: 1, column: 1 },
      `${sql.length} characters are too many`,
      `at most ${MAX_SQL_CHARACTERS} characters`,
    );
  }
  const tokens: Token[] = [];
  const place = placesOf(sql);
  let at = 0;
  const take = (pattern: RegExp): string | undefined => {
    pattern.lastIndex = at;
    return pattern.exec(sql)?.[0];
  };
  while (at < sql.length) {
    const blank = take(BLANK) ?? take(LINE_COMMENT);
    if (blank !== undefined) {
      at += blank.length;
    } else if (sql.startsWith("/*", at)) {
      at = endOfComment(sql, at, place(at));
    } else {
      const here = place(at);
      const character = sql[at]!;
      const word = take(WORD);
      const number = word === undefined ? take(NUMBER) : undefined;
      if (word !== undefined) {
        tokens.push({ kind: "word", text: word, word: word.toUpperCase(), place: here });
        at += word.length;
      } else if (number !== undefined) {
        tokens.push({ kind: "number", text: number, word: "", place: here });
        at += number.length;
      } else if (character === "'" || character === "`") {
        const { text, end } = quoted(sql, at, here);
        tokens.push({ kind: character === "'" ? "string" : "name", text, word: "", place: here });
        at = end;
      } else if (SYMBOLS.has(character)) {
        tokens.push({ kind: "symbol", text: character, word: "", place: here });
        at++;
      } else {
        throw new SqlNotSupportedError(
          here,
          `${JSON.stringify(String.fromCodePoint(sql.codePointAt(at)!))} is no part of SQL`,
          "names in `backquotes`, text in 'single quotes'",
        );
      }
    }
  }
  tokens.push({ kind: "end", text: "the end", word: "", place: place(sql.length) });
  return tokens;
}

/** A quote is written twice to stand for itself. */
function quoted(sql: string, at: number, here: SqlPlace): { text: string; end: number } {
  const quote = sql[at]!;
  let text = "";
  for (let from = at + 1; ; ) {
    const close = sql.indexOf(quote, from);
    if (close < 0) {
      const what = quote === "'" ? "text" : "name";
      throw new SqlNotSupportedError(here, `the ${what} that begins here never ends`, `a closing ${quote}`);
    }
    text += sql.slice(from, close);
    if (sql[close + 1] !== quote) return { text, end: close + 1 };
    text += quote;
    from = close + 2;
  }
}

function endOfComment(sql: string, at: number, here: SqlPlace): number {
  const close = sql.indexOf("*/", at + 2);
  if (close < 0)
    throw new SqlNotSupportedError(here, "the comment that begins here never ends", "a closing */");
  return close + 2;
}

/** Offsets are asked for in rising order, so each line break is found once. */
function placesOf(sql: string): (at: number) => SqlPlace {
  let line = 1;
  let lineStart = 0;
  let lineBreak = sql.indexOf("\n");
  return (at) => {
    while (lineBreak >= 0 && lineBreak < at) {
      line++;
      lineStart = lineBreak + 1;
      lineBreak = sql.indexOf("\n", lineStart);
    }
    return { line, column: at - lineStart + 1 };
  };
}
