/** A group commit in the making: entries of many appends, encoded one behind the other, for one write and one fdatasync. */
import { MemoryPool } from "../../../../../runtime/memory-pool.ts";
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
const FIRST_ARENA_BYTES = 16 * 1024;
/** Arenas that no group has, of all logs together. */
const MAX_IDLE_BYTES = 8 * MAX_GROUP_BYTES;

const NOTHING = Buffer.alloc(0);

/** Of the whole process: each log had two of its own, and a thousand streams of which each got one large request kept gigabytes. */
const arenas = new MemoryPool(MAX_IDLE_BYTES);

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
  /** undefined while nothing is in it: most logs rest most of the time. */
  #arena: Buffer | undefined;
  readonly #expectedBytes: number;

  /** @param expectedBytes that it will take, as a guess */
  constructor(generation: number, expectedBytes = 0) {
    this.generation = generation;
    this.#expectedBytes = expectedBytes;
  }

  hasRoomFor(bytes: number): boolean {
    return this.bytes === 0 || this.bytes + bytes <= MAX_GROUP_BYTES;
  }

  /** Copies the batches; the caller may write over them. */
  add(entry: EntryToAdd): void {
    const size = entrySize(entry.producer, entry.parts);
    const arena = this.#reserve(size);
    const at = this.bytes;
    const head = {
      kind: entry.kind,
      generation: this.generation,
      number: entry.number,
      arrivalMs: entry.arrivalMs,
      recordsBefore: entry.recordsBefore,
      groupOffset: at,
    };
    this.bytes = writeEntry(arena, at, head, entry.producer, entry.parts);
    const { kind, arrivalMs, producer, parts } = entry;
    for (const part of parts) this.records += part.count;
    this.entries.push({ at, kind, arrivalMs, producer, parts });
  }

  get contents(): Buffer {
    return this.#arena?.subarray(0, this.bytes) ?? NOTHING;
  }

  /** It is written: its memory is another's from here on, and nobody may look at its contents. */
  release(): void {
    if (this.#arena !== undefined) arenas.give(this.#arena);
    this.#arena = undefined;
  }

  #reserve(bytes: number): Buffer {
    const needed = this.bytes + bytes;
    const arena = this.#arena;
    if (arena !== undefined && needed <= arena.length) return arena;
    const least = Math.max(needed, arena === undefined ? this.#expectedBytes : 0, FIRST_ARENA_BYTES);
    // As the pool lends them: all of it is used.
    const larger = arenas.take(2 ** Math.ceil(Math.log2(least)));
    if (arena !== undefined) {
      arena.copy(larger, 0, 0, this.bytes);
      arenas.give(arena);
    }
    this.#arena = larger;
    return larger;
  }
}
