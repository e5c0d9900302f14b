/**
 * Large answers that their clients have not taken yet, over all connections: an HTTP/2 connection may
 * have 128 of them, and a client that reads none would otherwise fill the memory with them.
 */
import { BusyError } from "./body-budget.ts";
import { isGone, type OutgoingReply } from "./exchange.ts";

/** Smaller answers are not worth the counting. */
const LARGE_BYTES = 65_536;

/** Whether an answer of so many bytes is to be counted. */
export function isLarge(bytes: number): boolean {
  return bytes >= LARGE_BYTES;
}

export class UnreadAnswers {
  readonly #maxBytes: number;
  #heldBytes = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /**
   * Counts an answer that is about to be sent, until it has gone.
   * @throws BusyError when those that are held leave no room for it; it must not be sent then
   */
  hold(reply: OutgoingReply, bytes: number): void {
    if (!isLarge(bytes)) return;
    if (!this.#hasRoom(bytes)) throw new BusyError();
    if (isGone(reply)) return;
    this.#heldBytes += bytes;
    reply.once("close", () => this.give(bytes));
  }

  /** Counts an answer until it is given back. @returns false, having counted nothing, when there is no room for it */
  take(bytes: number): boolean {
    if (!this.#hasRoom(bytes)) return false;
    this.#heldBytes += bytes;
    return true;
  }

  give(bytes: number): void {
    this.#heldBytes -= bytes;
  }

  /** A single answer is always taken, however large. */
  #hasRoom(bytes: number): boolean {
    return this.#heldBytes === 0 || this.#heldBytes + bytes <= this.#maxBytes;
  }

  get heldBytes(): number {
    return this.#heldBytes;
  }
}
