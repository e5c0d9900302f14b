/**
 * Large answers that their clients have not taken yet, over all connections: an HTTP/2 connection may
 * have 128 of them, and a client that reads none would otherwise fill the memory with them.
 */
import { BusyError, type OutgoingReply } from "./exchange.ts";

/** Smaller answers are not worth the counting. */
const LARGE_BYTES = 65_536;

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
    if (bytes < LARGE_BYTES) return;
    // A single answer is always taken, however large.
    if (this.#heldBytes > 0 && this.#heldBytes + bytes > this.#maxBytes) throw new BusyError();
    // It goes nowhere, and nobody would tell when.
    if ("stream" in reply ? reply.stream.closed || reply.stream.destroyed : reply.destroyed) return;
    this.#heldBytes += bytes;
    reply.once("close", () => {
      this.#heldBytes -= bytes;
    });
  }

  get heldBytes(): number {
    return this.#heldBytes;
  }
}
