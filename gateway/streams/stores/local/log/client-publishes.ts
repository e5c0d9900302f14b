/**
 * What is remembered of one plain client, so that what it sends again is not stored again: its last 64 publishes on
 * disk, and behind them those that wait for it. They come to the disk in the order in which they were expected.
 *
 *   bytes, as a ring:   … [stored, at most 64][waiting] …      18 bytes of identity each
 *
 * Bytes, as each publish is remembered for the time of 64 others: its identity as a string, or a table that empties and
 * fills with each of them, would be garbage that only a collection of the whole heap finds.
 */
import { IDENTITY_BYTES } from "../../entry-producer.ts";
import type { Linked } from "./last-used.ts";

/** Publishes remembered per plain client. */
export const REMEMBERED_PUBLISHES = 64;
/** Many clients send a single one and are never heard again. */
const FIRST_ROOM = 4;
/** More room than this is for what waits, and is given back once nothing does. */
const KEPT_ROOM = 4 * REMEMBERED_PUBLISHES;
const NONE = Buffer.alloc(0);

export class ClientPublishes implements Linked<ClientPublishes> {
  readonly clientId: string;
  older: ClientPublishes | undefined;
  newer: ClientPublishes | undefined;
  #bytes = NONE;
  /** So many have room. */
  #room = 0;
  /** The place of the oldest one. */
  #first = 0;
  #stored = 0;
  #waiting = 0;
  /** Of sessions that have ended, how many wait for the disk still: they come before all others, and are not remembered. */
  #ended = 0;

  constructor(clientId: string) {
    this.clientId = clientId;
  }

  get hasStored(): boolean {
    return this.#stored > 0;
  }

  /** Something is remembered, stored or on its way. */
  get isKnown(): boolean {
    return this.#stored + this.#waiting > 0;
  }

  /** Nothing is remembered, and nothing of it will come to the disk any more. */
  get isNothing(): boolean {
    return this.#stored + this.#waiting + this.#ended === 0;
  }

  /** @param identity 18 bytes as latin1 @returns undefined where it is not remembered */
  find(identity: string): "stored" | "waiting" | undefined {
    const count = this.#stored + this.#waiting;
    for (let i = 0; i < count; i++) {
      if (this.#isAt(this.#at(i), identity)) return i < this.#stored ? "stored" : "waiting";
    }
    return undefined;
  }

  remembersPacket(packetId: number): boolean {
    const count = this.#stored + this.#waiting;
    for (let i = 0; i < count; i++) {
      const at = this.#at(i);
      if (((this.#bytes[at]! << 8) | this.#bytes[at + 1]!) === packetId) return true;
    }
    return false;
  }

  /** It waits for the disk. */
  expect(identity: string): void {
    this.#put(identity);
    this.#waiting++;
  }

  /** The next ones are on disk; those that nobody expected were found there by a start. */
  settle(identities: readonly string[], from: number, end: number): void {
    const ended = Math.min(this.#ended, end - from);
    this.#ended -= ended;
    for (let i = from + ended; i < end; i++) {
      if (this.#waiting > 0) this.#waiting--;
      else this.#put(identities[i]!);
      this.#stored++;
      if (this.#stored > REMEMBERED_PUBLISHES) this.#drop(1);
    }
    if (this.#waiting === 0 && this.#room > KEPT_ROOM) this.#resize(REMEMBERED_PUBLISHES);
  }

  /** What waits stays known. */
  forgetStored(): void {
    this.#drop(this.#stored);
  }

  /** What it sends next is new, also where it says what waits for the disk. */
  endSession(): void {
    this.#ended += this.#waiting;
    this.#waiting = 0;
    this.#stored = 0;
  }

  /** What waited was not written. */
  dropWaiting(): void {
    this.#waiting = 0;
    this.#ended = 0;
  }

  /** In base64, the oldest first. */
  storedIdentities(): string[] {
    return Array.from({ length: this.#stored }, (_, i) => {
      const at = this.#at(i);
      return this.#bytes.toString("base64", at, at + IDENTITY_BYTES);
    });
  }

  #at(i: number): number {
    return ((this.#first + i) % this.#room) * IDENTITY_BYTES;
  }

  #isAt(at: number, identity: string): boolean {
    for (let i = 0; i < IDENTITY_BYTES; i++) {
      if (this.#bytes[at + i] !== identity.charCodeAt(i)) return false;
    }
    return true;
  }

  /** Behind all others. */
  #put(identity: string): void {
    const count = this.#stored + this.#waiting;
    if (count === this.#room) this.#resize(Math.max(FIRST_ROOM, 2 * this.#room));
    const at = this.#at(count);
    for (let i = 0; i < IDENTITY_BYTES; i++) this.#bytes[at + i] = identity.charCodeAt(i);
  }

  /** The oldest ones. */
  #drop(count: number): void {
    this.#stored -= count;
    if (count > 0) this.#first = (this.#first + count) % this.#room;
  }

  #resize(room: number): void {
    const bytes = Buffer.allocUnsafeSlow(room * IDENTITY_BYTES);
    for (let i = 0; i < this.#stored + this.#waiting; i++) {
      const at = this.#at(i);
      this.#bytes.copy(bytes, i * IDENTITY_BYTES, at, at + IDENTITY_BYTES);
    }
    this.#bytes = bytes;
    this.#room = room;
    this.#first = 0;
  }
}
