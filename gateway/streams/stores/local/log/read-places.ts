/**
 * Places in a log where readers stopped, so that the next read need not walk there from an index point.
 * Slots that are written over, four for those whose shard and offset fall together: a Map to which each
 * read adds one and takes one away gets a new table from V8 all the time (../../listeners.ts).
 */
import type { Segment } from "../segments/segment.ts";

const WAYS = 4;
const FIRST_SETS = 4;
const MAX_SETS = 256;
const UNKNOWN = -1;

interface ReadPlace {
  /** undefined for a slot that is free. */
  segment: Segment | undefined;
  shard: number;
  offset: number;
  /** Where in the segment's file its entry begins, or one that stands before it. */
  position: number;
  /** When it was put here, counted in places. */
  turn: number;
}

export class ReadPlaces {
  #sets = FIRST_SETS;
  #slots = freeSlots(FIRST_SETS);
  #turn = 0;

  /** Where the record stands, if a reader of that place stopped there; it is forgotten then. @returns -1 when it is not known */
  take(segment: Segment, shard: number, offset: number): number {
    const slot = this.#find(shard, offset);
    if (slot === undefined) return UNKNOWN;
    const isThere = slot.segment === segment;
    slot.segment = undefined;
    return isThere ? slot.position : UNKNOWN;
  }

  /** In place of what was known of the same record; where there is no room, of the oldest that falls together with it. */
  put(segment: Segment, shard: number, offset: number, position: number): void {
    const slot = this.#find(shard, offset) ?? this.#room(shard, offset);
    slot.segment = segment;
    slot.shard = shard;
    slot.offset = offset;
    slot.position = position;
    slot.turn = ++this.#turn;
  }

  #find(shard: number, offset: number): ReadPlace | undefined {
    const from = WAYS * setOf(shard, offset, this.#sets);
    for (let i = from; i < from + WAYS; i++) {
      const slot = this.#slots[i]!;
      if (slot.offset === offset && slot.shard === shard && slot.segment !== undefined) return slot;
    }
    return undefined;
  }

  #room(shard: number, offset: number): ReadPlace {
    for (;;) {
      const from = WAYS * setOf(shard, offset, this.#sets);
      let oldest = this.#slots[from]!;
      for (let i = from; i < from + WAYS; i++) {
        const slot = this.#slots[i]!;
        if (slot.segment === undefined) return slot;
        if (slot.turn < oldest.turn) oldest = slot;
      }
      if (this.#sets === MAX_SETS) return oldest;
      this.#grow();
    }
  }

  /** There are more readers than it was made for. */
  #grow(): void {
    const places = this.#slots;
    this.#sets *= 2;
    this.#slots = freeSlots(this.#sets);
    for (const { segment, shard, offset, position } of places) {
      if (segment !== undefined) this.put(segment, shard, offset, position);
    }
  }
}

function setOf(shard: number, offset: number, sets: number): number {
  // Offsets are beyond 32 bits. Both factors are odd and large, so that neighbours fall far apart.
  const mixed = Math.imul(offset % 0x1_0000_0000, 0x9e37_79b1) ^ Math.imul(shard, 0x85eb_ca6b);
  return (mixed >>> 16) & (sets - 1);
}

function freeSlots(sets: number): ReadPlace[] {
  return Array.from({ length: WAYS * sets }, () => ({
    segment: undefined,
    shard: 0,
    offset: 0,
    position: 0,
    turn: 0,
  }));
}
