/** A group commit in the making: entries of many appends, encoded one behind the other, for one write and one fdatasync. */
import {
  type EntryKind,
  entrySize,
  type Part,
  type PartHead,
  type Producer,
  writeEntry,
} from "../../log-entry.ts";

/** A group takes entries until it has so many bytes; a larger entry is a group by itself. */
export const MAX_GROUP_BYTES = 4 * 1_048_576;
/** An arena of up to this size is kept for the next group. */
const KEPT_ARENA_BYTES = 2 * MAX_GROUP_BYTES;
const FIRST_ARENA_BYTES = 16 * 1024;

/** Who waits for the group to be on disk. */
export interface Waiter {
  done(): void;
  failed(error: Error): void;
}

export interface GroupEntry {
  readonly at: number;
  readonly kind: EntryKind;
  readonly arrivalMs: number;
  readonly producer: Producer | undefined;
  readonly parts: ReadonlyArray<PartHead & { bytes: number }>;
}

export interface EntryToAdd {
  readonly kind: EntryKind;
  readonly number: number;
  readonly arrivalMs: number;
  readonly recordsBefore: number;
  readonly producer: Producer | undefined;
  readonly parts: ReadonlyArray<Part & { readonly bytes: number }>;
}

export class Group {
  /** The segment it will stand in. */
  readonly generation: number;
  readonly entries: GroupEntry[] = [];
  readonly waiters: Waiter[] = [];
  bytes = 0;
  records = 0;
  #arena: Buffer;

  constructor(generation: number, arena?: Buffer) {
    this.generation = generation;
    this.#arena = arena ?? Buffer.allocUnsafeSlow(FIRST_ARENA_BYTES);
  }

  hasRoomFor(bytes: number): boolean {
    return this.bytes === 0 || this.bytes + bytes <= MAX_GROUP_BYTES;
  }

  /** Copies the batches; the caller may write over them. */
  add(entry: EntryToAdd): void {
    const size = entrySize(entry.producer, entry.parts);
    this.#reserve(size);
    const at = this.bytes;
    const head = {
      kind: entry.kind,
      generation: this.generation,
      number: entry.number,
      arrivalMs: entry.arrivalMs,
      recordsBefore: entry.recordsBefore,
      groupOffset: at,
    };
    this.bytes = writeEntry(this.#arena, at, head, entry.producer, entry.parts);
    const { kind, arrivalMs, producer, parts } = entry;
    for (const part of parts) this.records += part.count;
    this.entries.push({ at, kind, arrivalMs, producer, parts });
  }

  get contents(): Buffer {
    return this.#arena.subarray(0, this.bytes);
  }

  /** The arena for another group, once this one is written. */
  takeArena(): Buffer | undefined {
    return this.#arena.length <= KEPT_ARENA_BYTES ? this.#arena : undefined;
  }

  #reserve(bytes: number): void {
    const needed = this.bytes + bytes;
    if (needed <= this.#arena.length) return;
    const larger = Buffer.allocUnsafeSlow(Math.max(needed, this.#arena.length * 2));
    this.#arena.copy(larger, 0, 0, this.bytes);
    this.#arena = larger;
  }
}
