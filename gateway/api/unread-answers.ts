/**
 * Large answers that their clients have not taken yet, over all connections: an HTTP/2 connection may
 * have 128 of them, and a client that reads none would otherwise fill the memory with them. Who calls with one key may hold no
 * more than a multiple of what is still free, as with bodies (body-budget.ts): so one that reads nothing leaves room for others.
 */
import { BusyError } from "./body-budget.ts";
import { isGone, type OutgoingReply } from "./exchange.ts";

/** Smaller answers are not worth the counting. */
const LARGE_BYTES = 65_536;

/** Whether an answer of so many bytes is to be counted. */
export function isLarge(bytes: number): boolean {
  return bytes >= LARGE_BYTES;
}

/** Alone a key may hold four fifths of all. */
const TIMES_FREE = 4;

export class UnreadAnswers {
  readonly #maxBytes: number;
  /** By the ids of keys; those that hold none are left out. */
  readonly #held = new Map<string, number>();
  #heldBytes = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  get heldBytes(): number {
    return this.#heldBytes;
  }

  /**
   * Counts an answer that is about to be sent, until it has gone.
   * @throws BusyError when those that are held leave no room for it; it must not be sent then
   */
  hold(reply: OutgoingReply, bytes: number, keyId: string): void {
    if (!isLarge(bytes)) return;
    if (!this.#hasRoom(bytes, keyId)) throw new BusyError();
    if (isGone(reply)) return;
    this.#add(bytes, keyId);
    reply.once("close", () => this.give(bytes, keyId));
  }

  /** Counts an answer until it is given back. @returns false, having counted nothing, when there is no room for it */
  take(bytes: number, keyId: string): boolean {
    if (!this.#hasRoom(bytes, keyId)) return false;
    this.#add(bytes, keyId);
    return true;
  }

  give(bytes: number, keyId: string): void {
    this.#add(-bytes, keyId);
  }

  #add(bytes: number, keyId: string): void {
    this.#heldBytes += bytes;
    const held = (this.#held.get(keyId) ?? 0) + bytes;
    if (held === 0) this.#held.delete(keyId);
    else this.#held.set(keyId, held);
  }

  /** A single answer is always taken, however large. */
  #hasRoom(bytes: number, keyId: string): boolean {
    if (this.#heldBytes === 0) return true;
    const freeBytes = this.#maxBytes - this.#heldBytes - bytes;
    return freeBytes >= 0 && (this.#held.get(keyId) ?? 0) + bytes <= TIMES_FREE * freeBytes;
  }
}
