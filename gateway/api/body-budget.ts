/**
 * The bytes of bodies that may be held at once, over all connections. A signature covers the body, so most
 * bodies are held before anybody knows who sent them; and a key's id, which is all that is looked at before,
 * is no secret. So who has proven nothing yet gets half, and cannot keep out those who have.
 *
 *   connection ─a call's signature is right→ proven, to its end: all of the budget
 *              └none was so far→ half of it; what finds no room is hashed as it is thrown away, so
 *                                that whoever tries again on the same connection is known
 *
 * A device's certificate proves nothing here: a device has no business with these calls.
 *
 * Where nobody has a signature, as who signs in or joins, those bodies yield that have been coming in for
 * longest: their senders hold them open, while all others' come in at once.
 *
 * A proxy that sends the calls of many clients over one connection makes one sender of them.
 */
import { HeadwaterError } from "../../runtime/errors.ts";

/** All bodies that are held at this moment fill the memory set aside for them. */
export class BusyError extends HeadwaterError {
  constructor() {
    super("API_BUSY", { message: "too many requests are being read", retryable: true });
  }
}

/** The same, of senders none of whose signatures has been found right yet. Their next call on that connection may be taken. */
export class UnprovenBusyError extends HeadwaterError {
  constructor() {
    super("API_BUSY_UNPROVEN", {
      message: "too many requests are being read whose senders are not known yet",
      hint: "try again on the same connection",
      retryable: true,
    });
  }
}

/** Who sends a body. */
export interface BodySender {
  /** Whether something that it signed has been found right. */
  readonly isProven: boolean;
  /** Hears all pieces of a body for which there is no room, in turn, while it is not proven. Within the call. */
  discard(piece: Buffer): void;
}

export class BodyBudget {
  readonly #maxBytes: number;
  readonly #maxUnprovenBytes: number;
  readonly #proven = new WeakSet<object>();
  readonly #oldestYield: boolean;
  /** Bodies that are coming in, in the order in which they began; each by what takes its bytes from it. */
  readonly #coming = new Set<() => void>();
  #usedBytes = 0;
  #unprovenBytes = 0;

  /** @param oldestYield whether bodies that are coming in make room for newer ones */
  constructor(maxBytes: number, oldestYield = false) {
    this.#oldestYield = oldestYield;
    this.#maxBytes = maxBytes;
    this.#maxUnprovenBytes = maxBytes / 2;
  }

  get usedBytes(): number {
    return this.#usedBytes;
  }

  /** Part of `usedBytes`. */
  get unprovenBytes(): number {
    return this.#unprovenBytes;
  }

  /** @param isProven the same for all bytes of a body, also when they are given back */
  take(bytes: number, isProven = true): boolean {
    if (this.#usedBytes + bytes > this.#maxBytes) return false;
    if (!isProven) {
      if (this.#unprovenBytes + bytes > this.#maxUnprovenBytes) return false;
      this.#unprovenBytes += bytes;
    }
    this.#usedBytes += bytes;
    return true;
  }

  give(bytes: number, isProven = true): void {
    this.#usedBytes -= bytes;
    if (!isProven) this.#unprovenBytes -= bytes;
  }

  /**
   * As `take`, for a body that is coming in, until `came`.
   * @param giveUp gives back, in the call, what the body holds
   */
  takeComing(bytes: number, isProven: boolean, giveUp: () => void): boolean {
    if (!this.#oldestYield) return this.take(bytes, isProven);
    this.#coming.add(giveUp);
    if (this.take(bytes, isProven)) return true;
    for (const oldest of this.#coming) {
      if (oldest === giveUp) continue;
      this.#coming.delete(oldest);
      oldest();
      if (this.take(bytes, isProven)) return true;
    }
    return false;
  }

  came(giveUp: () => void): void {
    this.#coming.delete(giveUp);
  }

  /** @param connection a socket, or a session of HTTP/2 */
  isProven(connection: object): boolean {
    return this.#proven.has(connection);
  }

  prove(connection: object): void {
    this.#proven.add(connection);
  }
}
