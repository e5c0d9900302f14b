/**
 * What a log has taken and the disk does not hold yet: groups of entries, and where the log will
 * end once they are all there.
 *
 *   add → [filling group] ─full, or asked for→ [full groups] ─oldest→ the writer ─stored→ gone
 *
 * An entry gets its place in the call itself: offsets, number, arrival time, segment. So the order
 * of calls is the order in the log, and one group is encoded while the disk works on the one before.
 * All of it is in memory alone. A crash forgets it, and a failed write drops it (`dropAll`): none of
 * it was acknowledged. `planAnew` then gives the same places to whatever comes next.
 */
import { LogBusyError } from "../../../streams.ts";
import type { EntryKind, Part, Producer, RoutedPart } from "../../log-entry.ts";
import { Group, type Waiter } from "./group.ts";
import { newGeneration } from "./segment-file.ts";

/** Of all logs of a store. */
export interface AllWaiting {
  readonly maxBytes: number;
  bytes: number;
}

export interface WaitingGroupsOptions {
  /** The stream's. */
  readonly name: string;
  /** Encoded; a single entry may be larger. */
  readonly maxWaitingBytes: number;
  /** Shared by all logs: a disk that hangs holds what waits in each of a thousand. */
  readonly allWaiting?: AllWaiting | undefined;
  readonly nowMs: () => number;
}

/** What is on disk, as far as what waits is put behind it. */
export interface PlanFrom {
  readonly number: number;
  readonly records: number;
  nextOffsets(): number[];
}

/** The segments, as far as groups are planned into them. */
export interface PlanInto {
  readonly active: { readonly generation: number; readonly end: number };
  isFull(plannedBytes: number): boolean;
}

export class WaitingGroups {
  readonly #options: WaitingGroupsOptions;
  readonly #end: PlanFrom;
  readonly #chain: PlanInto;
  /** What will be once all that waits is on disk; offsets by shard. */
  #next: number[];
  #number: number;
  #records: number;
  #segmentBytes: number;
  #arrivalMs: number;
  #filling: Group;
  #full: Group[] = [];
  #bytes = 0;
  /**
   * Once one was refused, all are, until half of what waits is on disk: were a smaller frame taken
   * right behind a refused one, the refused one would be taken for known when it comes again.
   */
  #busy = false;
  readonly #all: AllWaiting;

  constructor(options: WaitingGroupsOptions, end: PlanFrom, chain: PlanInto, arrivalMs: number) {
    this.#options = options;
    this.#all = options.allWaiting ?? { maxBytes: Number.POSITIVE_INFINITY, bytes: 0 };
    this.#end = end;
    this.#chain = chain;
    this.#next = end.nextOffsets();
    this.#number = end.number;
    this.#records = end.records;
    this.#segmentBytes = chain.active.end;
    this.#arrivalMs = arrivalMs;
    this.#filling = this.#openGroup(chain.active.generation, chain.isFull(this.#segmentBytes));
  }

  /** What the shard's next record gets for an offset, behind all that waits. */
  next(shard: number): number {
    return this.#next[shard] ?? 0;
  }

  /** The newest that was given to an entry; it never falls. */
  get arrivalMs(): number {
    return this.#arrivalMs;
  }

  /** No record comes to stand between the shard's end and `offset`. */
  skipTo(shard: number, offset: number): void {
    this.#next[shard] = offset;
  }

  /**
   * @param disk asked only for what a refusal says
   * @throws LogBusyError when `size` bytes more are more than may wait; so much is always taken when nothing waits
   */
  admit(size: number, disk: { readonly silent: string | undefined }): void {
    const { name, maxWaitingBytes } = this.#options;
    const { bytes, maxBytes } = this.#all;
    // Here, as nothing of this log may wait while those of others are stored.
    if (this.#busy && this.#bytes <= maxWaitingBytes / 2 && bytes <= maxBytes / 2) this.#busy = false;
    if (this.#bytes > 0 && this.#bytes + size > maxWaitingBytes) this.#busy = true;
    if (bytes > 0 && bytes + size > maxBytes) this.#busy = true;
    if (this.#busy) throw new LogBusyError(name, this.#bytes, bytes, disk.silent);
  }

  /** Encodes an entry of `size` bytes into the filling group, and says where it will stand. */
  add(
    kind: EntryKind,
    producer: Producer | undefined,
    routed: readonly RoutedPart[],
    size: number,
    waiter: Waiter,
  ): { parts: readonly Part[]; arrivalMs: number } {
    if (!this.#filling.hasRoomFor(size)) this.#turnOver();
    this.#arrivalMs = Math.max(this.#arrivalMs, this.#options.nowMs());
    const parts: Array<Part & { bytes: number }> = [];
    const recordsBefore = this.#records;
    for (const { shard, count, batch, checksum } of routed) {
      const first = this.#next[shard] ?? 0;
      parts.push({ shard, first, count, batch, checksum, bytes: batch.length });
      this.#next[shard] = first + count;
      this.#records += count;
    }
    const arrivalMs = this.#arrivalMs;
    this.#filling.add({ kind, number: this.#number++, arrivalMs, recordsBefore, producer, parts });
    this.#filling.waiters.push(waiter);
    this.#bytes += size;
    this.#all.bytes += size;
    return { parts, arrivalMs };
  }

  /** Hears when all that was added before this call is on disk. */
  wait(waiter: Waiter): void {
    this.#filling.waiters.push(waiter);
  }

  /** What is added from here on stands in a new segment; `waiter` hears when that one stands. */
  roll(waiter: Waiter): void {
    this.#turnOver(true);
    this.#filling.waiters.push(waiter);
  }

  /** The group to be written next; undefined when nobody waits. It may take nothing more. */
  oldest(): Group | undefined {
    if (this.#full.length === 0 && this.#filling.waiters.length > 0) this.#turnOver();
    return this.#full[0];
  }

  /** The oldest group is on disk. Its memory is another's from here on. */
  stored(group: Group): void {
    this.#full.shift();
    this.#bytes -= group.bytes;
    this.#all.bytes -= group.bytes;
    group.release();
  }

  /** Forgets all groups, and gives them back for those who wait for them. Nothing may be added before `planAnew`. */
  dropAll(): Group[] {
    const dropped = [...this.#full, this.#filling];
    this.#full = [];
    this.#all.bytes -= this.#bytes;
    this.#bytes = 0;
    this.#busy = false;
    this.#filling = new Group(this.#chain.active.generation);
    return dropped;
  }

  /** What comes next is put behind what is on disk, into the segment that is active now. */
  planAnew(): void {
    this.#next = this.#end.nextOffsets();
    this.#number = this.#end.number;
    this.#records = this.#end.records;
    this.#segmentBytes = this.#chain.active.end;
    this.#filling = new Group(this.#chain.active.generation);
  }

  /** Closes the filling group and opens the next; in a new segment when the last one is as large as it may get. */
  #turnOver(roll?: boolean): void {
    const { generation, bytes } = this.#filling;
    this.#full.push(this.#filling);
    this.#segmentBytes += bytes;
    this.#filling = this.#openGroup(generation, roll ?? this.#chain.isFull(this.#segmentBytes), bytes);
  }

  /**
   * @param generation of the segment that the group before it goes to
   * @param expectedBytes as many as the group before it took
   */
  #openGroup(generation: number, roll: boolean, expectedBytes = 0): Group {
    if (!roll) return new Group(generation, expectedBytes);
    this.#segmentBytes = 0;
    // The segment's state entry takes a number of its own.
    this.#number++;
    return new Group(newGeneration(), expectedBytes);
  }
}
