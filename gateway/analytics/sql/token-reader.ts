/** Walks the tokens of a statement. Whatever does not fit is refused by its name and place. */
import { SqlNotSupportedError } from "./errors.ts";
import { type Token, tokenize } from "./tokenizer.ts";

/** Words that Flink takes as a name only in backquotes; those that people use for columns, and our own keywords. */
const RESERVED = new Set(
  `ALL AND ANY AS AVG BETWEEN BIGINT BOOLEAN BY CASE CAST CHAR COUNT CREATE CROSS CURRENT DATE DAY DEFAULT
  DELETE DESCRIBE DISTINCT DOUBLE DROP END EXISTS EXTRACT FALSE FLOAT FROM FULL FUNCTION GROUP HAVING HOUR IN
  INSERT INT INTEGER INTERVAL INTO IS JOIN LEFT LIKE LIMIT LOCAL MAX METHOD MIN MINUTE MODULE MONTH NATURAL
  NOT NULL OFFSET ON OR ORDER OUTER OVER PARTITION POSITION PRECISION PRIMARY RANGE RANK RIGHT ROW ROWS SECOND
  SELECT SET SMALLINT START STATIC STREAM SUM SYMMETRIC SYSTEM TABLE THEN TIME TIMESTAMP TINYINT TO TRUE UNION
  UNIQUE UPDATE USER USING VALUE VALUES VARCHAR WATERMARK WHEN WHERE WINDOW WITH YEAR`.split(/\s+/),
);

export class TokenReader {
  readonly #tokens: readonly Token[];
  #at = 0;

  constructor(sql: string) {
    this.#tokens = tokenize(sql);
  }

  peek(): Token {
    return this.#tokens[this.#at]!;
  }

  take(): Token {
    const token = this.peek();
    if (token.kind !== "end") this.#at++;
    return token;
  }

  isWord(...words: string[]): boolean {
    return this.peek().kind === "word" && words.includes(this.peek().word);
  }

  isSymbol(symbol: string): boolean {
    return this.peek().kind === "symbol" && this.peek().text === symbol;
  }

  skipWord(word: string): boolean {
    if (!this.isWord(word)) return false;
    this.#at++;
    return true;
  }

  skipSymbol(symbol: string): boolean {
    if (!this.isSymbol(symbol)) return false;
    this.#at++;
    return true;
  }

  expectWords(...words: string[]): void {
    for (const word of words) if (!this.skipWord(word)) this.refuse(word);
  }

  expectSymbol(symbol: string): void {
    if (!this.skipSymbol(symbol)) this.refuse(symbol);
  }

  /** The name of a table, column or alias. */
  name(what: string): Token {
    const token = this.peek();
    if (token.kind === "name" && token.text.length > 0) return this.take();
    if (token.kind !== "word") this.refuse(`the name of ${what}`);
    if (RESERVED.has(token.word)) {
      throw new SqlNotSupportedError(
        token.place,
        `${token.word} is reserved and not supported here`,
        `the name of ${what}; a reserved word needs backquotes: \`${token.text}\``,
      );
    }
    return this.take();
  }

  string(what: string): Token {
    if (this.peek().kind !== "string") this.refuse(`${what} in 'single quotes'`);
    return this.take();
  }

  /** Refuses the next token by name. */
  refuse(accepted: string): never {
    throw new SqlNotSupportedError(
      this.peek().place,
      `${shown(this.peek())} is not supported here`,
      accepted,
    );
  }
}

/** As a person would name it. */
export function shown(token: Token): string {
  if (token.kind === "end") return "the end of the text";
  if (token.kind === "word") return token.word;
  const text = token.text.length > 40 ? `${token.text.slice(0, 40)}…` : token.text;
  return token.kind === "string" ? `'${text}'` : token.kind === "name" ? `\`${text}\`` : text;
}
