/**
 * Large answers that their clients have not taken yet, over all connections: an HTTP/2 connection may
 * have 128 of them, and a client that reads none would otherwise fill the memory with them. Who calls with one key may hold no
 * more than a multiple of what is still free, as with bodies (body-budget.ts): so one that reads nothing leaves room for others.
 *
 * What costs much to make has its room set aside before (`AnswerRoom`): otherwise whoever asks without a pause has
 * the gateway make answers that it then throws away.
 */
import { BusyError } from "../bodies/body-budget.ts";
import { type Asker, AskerGoneError, isGone, type OutgoingReply } from "../exchange.ts";

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
   * @param room what was set aside for it
   * @throws BusyError when those that are held leave no room for it; it must not be sent then
   */
  hold(reply: OutgoingReply, bytes: number, keyId: string, room?: AnswerRoom): void {
    if (!isLarge(bytes) || isGone(reply)) return;
    if (!this.take(bytes, keyId, room)) throw new BusyError();
    reply.once("close", () => this.give(bytes, keyId));
  }

  /**
   * Counts an answer until it is given back.
   * @param room what was set aside for it: nothing is any more then
   * @returns false, having changed nothing, when there is no room for it
   */
  take(bytes: number, keyId: string, room?: AnswerRoom): boolean {
    const reservedBytes = room?.bytes ?? 0;
    if (!this.fits(bytes, keyId, reservedBytes)) return false;
    this.#add(bytes - reservedBytes, keyId);
    if (room !== undefined) room.bytes = 0;
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

  /**
   * Whether an answer could be taken. A single one always is, however large.
   * @param reservedBytes of it, that are counted already
   */
  fits(bytes: number, keyId: string, reservedBytes = 0): boolean {
    const moreBytes = bytes - reservedBytes;
    if (moreBytes <= 0 || this.#heldBytes === reservedBytes) return true;
    const freeBytes = this.#maxBytes - this.#heldBytes - moreBytes;
    return freeBytes >= 0 && (this.#held.get(keyId) ?? 0) + moreBytes <= TIMES_FREE * freeBytes;
  }
}

/** Room for one answer that is yet to be made. It counts as if that was held already. */
export class AnswerRoom {
  readonly #unread: UnreadAnswers;
  readonly #keyId: string;
  readonly asker: Asker;
  /** Set aside at this moment. */
  bytes = 0;

  constructor(unread: UnreadAnswers, keyId: string, asker: Asker) {
    this.#unread = unread;
    this.#keyId = keyId;
    this.asker = asker;
  }

  /** @throws AskerGoneError when nobody waits for the answer any more */
  checkWanted(): void {
    if (this.asker.isGone) throw new AskerGoneError();
  }

  /** Whether there is room for an answer of so many bytes. */
  fits(bytes: number): boolean {
    return !isLarge(bytes) || this.#unread.fits(bytes, this.#keyId, this.bytes);
  }

  /**
   * Sets aside so much in all, more or less than before.
   * @throws BusyError when there is no room for it; what was set aside before still is
   */
  reserve(bytes: number): void {
    if (!this.fits(bytes)) throw new BusyError();
    const wanted = isLarge(bytes) ? bytes : 0;
    this.#unread.give(this.bytes - wanted, this.#keyId);
    this.bytes = wanted;
  }

  /** What no answer took. Safe to call twice. */
  giveBack(): void {
    this.reserve(0);
  }
}
