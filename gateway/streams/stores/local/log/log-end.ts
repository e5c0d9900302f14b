/**
 * Where a log ends on disk, and what holds there: the next offset of each shard, the next entry's
 * number, how many records there were, which producers. It moves by what is synced and by nothing
 * else; where the log will end once all that waits is synced, waiting-groups.ts knows.
 *
 *   log-recovery.ts, from the entries that it finds ─→ [end] ─stored, group by group→ [end] …
 */

import { ENTRY_KIND } from "../../log-entry.ts";
import type { Segment } from "../segments/segment.ts";
import type { Group } from "./group.ts";
import type { RecoveredLog, StreamState } from "./log-recovery.ts";
import { Producers } from "./producers.ts";

export class LogEnd {
  /** Also holds what waits for the disk, kept apart from what is there. */
  readonly producers: Producers;
  /** By shard, as each part of each append asks for its own. */
  readonly #next: number[] = [];
  #number: number;
  #records: number;

  constructor(found: Pick<RecoveredLog, "producers" | "nextOffsets" | "nextNumber" | "records">) {
    this.producers = found.producers;
    for (const [shard, next] of found.nextOffsets) this.#next[shard] = next;
    this.#number = found.nextNumber;
    this.#records = found.records;
  }

  /** Of a log whose first segment holds its state entry and nothing else. */
  static ofNewLog(): LogEnd {
    return new LogEnd({ producers: new Producers(), nextOffsets: new Map(), nextNumber: 1, records: 0 });
  }

  /** What the shard's next record gets for an offset. */
  next(shard: number): number {
    return this.#next[shard] ?? 0;
  }

  /** A copy, by shard; shards that nothing was appended to may have none. */
  nextOffsets(): number[] {
    return [...this.#next];
  }

  /** What the next entry gets. */
  get number(): number {
    return this.#number;
  }

  get records(): number {
    return this.#records;
  }

  /** No record comes to stand between the shard's end and `offset`. */
  skipTo(shard: number, offset: number): void {
    this.#next[shard] = offset;
  }

  /** The group is on disk, behind the end of `segment`, which moves behind the group. */
  stored(group: Group, segment: Segment): void {
    for (const entry of group.entries) {
      this.#number++;
      if (entry.kind === ENTRY_KIND.forget) {
        if (entry.producer !== undefined) this.producers.forgetProducer(entry.producer);
        continue;
      }
      if (entry.producer !== undefined) this.producers.settle(entry.producer);
      segment.note(segment.end + entry.at, entry.arrivalMs, entry.parts);
      for (const part of entry.parts) {
        this.#next[part.shard] = part.first + part.count;
      }
    }
    segment.end += group.bytes;
    this.#records += group.records;
  }

  /** What a segment's state entry says of all before it. */
  state(arrivalMs: number): StreamState {
    return {
      nextOffsets: this.#next.flatMap((next, shard) => (next > 0 ? [[shard, next] as const] : [])),
      records: this.#records,
      arrivalMs,
      producers: this.producers.snapshot(),
    };
  }

  /** A state entry is on disk; it took a number. */
  stateStored(): void {
    this.#number++;
  }
}
