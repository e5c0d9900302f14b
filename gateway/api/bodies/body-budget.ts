/**
 * The bytes of bodies that may be held at once, over all connections. Who holds some may go on for as long as it
 * holds no more than a multiple of what is still free. So nobody fills the memory, however many try, and what
 * one may hold shrinks as others come (dynamic thresholds: Choudhury and Hahne, IEEE/ACM Transactions on
 * Networking 6 (2), 1998).
 *
 *   connection ─a call's signature is right→ its key's: 4 times what is free; alone, four fifths of all
 *              └none was so far→ all strangers together: as much as is free; alone, half of all. What finds no
 *                                room is hashed as it is thrown away, so that whoever tries again on the
 *                                same connection is known
 *
 * A signature covers the body, so most bodies are held before anybody knows who sent them; and a key's id, which
 * is all that is looked at before, is no secret. So it counts whose signature was found right last on the
 * connection. A device's certificate proves nothing here: a device has no business with these calls.
 *
 * Where nobody has a signature, as who signs in or joins, those bodies yield that have been coming in for
 * longest: their senders hold them open, while all others' come in at once.
 *
 * A proxy that sends the calls of many clients over one connection makes one sender of them.
 */
import { HeadwaterError } from "../../../runtime/errors.ts";

/** All bodies that are held at this moment, or large answers that nobody has taken, fill the memory set aside for them, or the sender's fair share of it. */
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
  /** Whose signature it is, by the id of its key. */
  readonly keyId: string;
  /** Whether something that it signed has been found right. */
  readonly isProven: boolean;
  /** Hears all pieces of a body for which there is no room, in turn, while it is not proven. Within the call. */
  discard(piece: Buffer): void;
}

/** Alone it leaves room for three of the largest bodies. */
const KEYS_TIMES_FREE = 4;
const STRANGERS_TIMES_FREE = 1;

/** Those who share what they hold: who calls with one key, or all strangers. */
export class BodyHolder {
  /** Undefined of strangers. */
  readonly keyId: string | undefined;
  readonly timesFree: number;
  heldBytes = 0;

  constructor(keyId: string | undefined, timesFree: number) {
    this.keyId = keyId;
    this.timesFree = timesFree;
  }
}

export class BodyBudget {
  /** Whose connections have proven nothing yet. */
  readonly strangers = new BodyHolder(undefined, STRANGERS_TIMES_FREE);
  readonly #maxBytes: number;
  /** By the ids of their keys. */
  readonly #holders = new Map<string, BodyHolder>();
  readonly #proven = new WeakMap<object, BodyHolder>();
  readonly #oldestYield: boolean;
  /** Bodies that are coming in, in the order in which they began; each by what takes its bytes from it. */
  readonly #coming = new Set<() => void>();
  #usedBytes = 0;

  /** @param oldestYield whether bodies that are coming in make room for newer ones */
  constructor(maxBytes: number, oldestYield = false) {
    this.#oldestYield = oldestYield;
    this.#maxBytes = maxBytes;
  }

  get usedBytes(): number {
    return this.#usedBytes;
  }

  /** @param holder the same for all bytes of a body, also when they are given back; without one all that is free may be taken */
  take(bytes: number, holder?: BodyHolder): boolean {
    const freeBytes = this.#maxBytes - this.#usedBytes - bytes;
    if (freeBytes < 0) return false;
    if (holder !== undefined) {
      if (holder.heldBytes + bytes > holder.timesFree * freeBytes) return false;
      holder.heldBytes += bytes;
    }
    this.#usedBytes += bytes;
    return true;
  }

  give(bytes: number, holder?: BodyHolder): void {
    this.#usedBytes -= bytes;
    if (holder !== undefined) holder.heldBytes -= bytes;
  }

  /**
   * As `take`, for a body that is coming in, until `came`.
   * @param giveUp gives back, in the call, what the body holds
   */
  takeComing(bytes: number, giveUp: () => void, holder?: BodyHolder): boolean {
    if (!this.#oldestYield) return this.take(bytes, holder);
    this.#coming.add(giveUp);
    if (this.take(bytes, holder)) return true;
    for (const oldest of this.#coming) {
      if (oldest === giveUp) continue;
      this.#coming.delete(oldest);
      oldest();
      if (this.take(bytes, holder)) return true;
    }
    return false;
  }

  came(giveUp: () => void): void {
    this.#coming.delete(giveUp);
  }

  /** Of the bodies that come by it from now on. @param connection a socket, or a session of HTTP/2 */
  holderOf(connection: object): BodyHolder {
    return this.#proven.get(connection) ?? this.strangers;
  }

  /** @param keyId of a key that there is, so that holders are as few as keys */
  prove(connection: object, keyId: string): BodyHolder {
    let holder = this.#holders.get(keyId);
    if (holder === undefined) {
      holder = new BodyHolder(keyId, KEYS_TIMES_FREE);
      this.#holders.set(keyId, holder);
    }
    this.#proven.set(connection, holder);
    return holder;
  }
}
