/**
 * Names for requests, in the form of UUIDs and as unlikely to meet again, but one counted from the other:
 * a random UUID for each costs a microsecond, most of it where its many pieces are joined.
 */
import { randomBytes, randomUUID } from "node:crypto";

const COUNTED_DIGITS = 12;
/** Half of what twelve digits hold, so that it does not overflow in a program's life. */
const MAX_START = 2 ** 47;

export class RequestIds {
  readonly #head = randomUUID().slice(0, -COUNTED_DIGITS);
  #count = randomBytes(6).readUIntBE(0, 6) % MAX_START;

  next(): string {
    this.#count++;
    return this.#head + this.#count.toString(16).padStart(COUNTED_DIGITS, "0");
  }
}
