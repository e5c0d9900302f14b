/** Tells whether the answers of a load are what they should be, by how their bodies begin. */

/** An answer of PutRecords, in JSON or in CBOR, all of whose records were taken. */
export const NONE_FAILED = /^.{1,3}FailedRecordCount(?:":0[,}]|\0)/s;

const LOOKED_AT = 64;

export class AnswerCheck {
  readonly #expected: RegExp | undefined;
  #begin = "";

  /** @param expected nothing: answers may be anything */
  constructor(expected: RegExp | undefined) {
    this.#expected = expected;
  }

  /** A piece of the body that is being answered: the bytes from `from` on, before `to`. */
  add(bytes: Buffer, from: number, to: number): void {
    if (this.#expected === undefined || this.#begin.length >= LOOKED_AT) return;
    this.#begin += bytes.toString("latin1", from, Math.min(to, from + LOOKED_AT));
  }

  /** The body has come to its end. @throws unless it began as expected */
  end(): void {
    const begin = this.#begin;
    this.#begin = "";
    if (this.#expected?.test(begin) === false) throw new Error(`not the answer that was expected: ${begin}`);
  }
}
