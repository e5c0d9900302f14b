/**
 * What a delivery never had because retention took it first. Of a shard that is there its reader hears
 * (`count`); one that expired whole tells nothing any more, so what stands unread is looked at at each try
 * and once a minute, also while a destination does not answer.
 *
 * A try that fails keeps what it saw in the ledger, in one write with the totals: a crash before the next
 * look neither loses the count nor doubles it. What a look found is counted once it is in the ledger.
 */
import { isDeepStrictEqual } from "node:util";
import type { Log } from "../../runtime/log.ts";
import {
  type Consumer,
  lookForUnread,
  type Offset,
  recordsBetween,
  type ShardId,
  type Streams,
  type UnreadShards,
} from "../streams/streams.ts";
import type { CutLedger, Ledger } from "./cut-ledger.ts";

export const LOOK_EVERY_MS = 60_000;

export interface TrimmedParts {
  readonly streams: Streams;
  readonly state: CutLedger;
  readonly log: Log;
  readonly lookEveryMs: number;
  /** Called once they are in the ledger. */
  readonly counted: (records: number) => void;
}

export class TrimmedRecords {
  readonly #parts: TrimmedParts;
  /** As the last look saw it. */
  #unread: UnreadShards | undefined;
  /** Found, and not in the ledger yet. */
  #missed = 0;
  /** Since the last look: up to where the consumer moved, also in shards that expire meanwhile. */
  readonly #accounted = new Map<ShardId, Offset>();
  /** Up to where the last cut of this try accounts for what was read. */
  #building: ReadonlyMap<ShardId, Offset> = new Map();

  constructor(parts: TrimmedParts) {
    this.#parts = parts;
    this.#unread = parts.state.ledger.unread;
  }

  /** Another gateway has looked and counted since: its ledger alone holds. */
  forget(): void {
    this.#unread = this.#parts.state.ledger.unread;
    this.#missed = 0;
    this.#accounted.clear();
  }

  /** At each try, before anything is read. */
  async begin(consumer: Consumer): Promise<void> {
    const { ledger } = this.#parts.state;
    await this.#passCounted(consumer);
    // Of a try that failed nothing is accounted for, unless it left a manifest.
    this.#building = new Map();
    this.#look(consumer);
    if (this.#missed > 0 || !isDeepStrictEqual(this.#unread, ledger.unread)) await this.#keep(this.#unread);
  }

  /** Looks by itself from now on. @returns what ends that */
  watch(consumer: Consumer): () => void {
    const timer = setInterval(() => {
      try {
        if (!consumer.lost.aborted) this.#look(consumer);
      } catch {
        // The stream is gone, or being closed: the delivery itself will hear of it.
      }
    }, this.#parts.lookEveryMs);
    timer.unref();
    return () => clearInterval(timer);
  }

  /** What stands before these goes into a cut, which counts what of it expires while it is built. */
  building(ends: ReadonlyMap<ShardId, Offset>): void {
    this.#building = ends;
  }

  /** What stands before these was in a cut, or was counted. */
  moved(ends: ReadonlyMap<ShardId, Offset>): void {
    for (const [shardId, end] of ends) this.#accounted.set(shardId, end);
  }

  /** The delivery works: nothing stays behind until it fails again. */
  async settle(): Promise<void> {
    if (this.#missed > 0 || this.#parts.state.ledger.unread !== undefined) await this.#keep(undefined);
  }

  /**
   * Resolves when they are in the ledger; the consumer has to pass them then. When it fails they are not counted:
   * they will be found once more.
   * @param starts where what is there begins
   */
  async count(records: number, consumer: Consumer, starts: ReadonlyMap<ShardId, Offset>): Promise<void> {
    const { state, streams } = this.#parts;
    const positions = Object.fromEntries(passed(consumer, starts));
    const { streamId } = streams.describe(consumer.stream);
    await this.#keep(state.ledger.unread, records, { streamId, positions });
  }

  /** A crash behind `count` leaves the checkpoint before what is counted: the reader would find it once more. */
  async #passCounted(consumer: Consumer): Promise<void> {
    const { state, streams } = this.#parts;
    const { counted } = state.ledger;
    if (counted === undefined || counted.streamId !== streams.describe(consumer.stream).streamId) return;
    const places = new Map(Object.entries(counted.positions));
    const ends = passed(consumer, places);
    if (ends.size > 0) await consumer.checkpoint(ends);
    // Of shards that have expired since, there is no checkpoint to tell it.
    for (const [shardId, place] of places) {
      this.#accounted.set(shardId, Math.max(place, this.#accounted.get(shardId) ?? 0));
    }
  }

  #look(consumer: Consumer): void {
    const { streams, state } = this.#parts;
    const description = streams.describe(consumer.stream);
    const reached = new Map(this.#accounted);
    for (const [shardId, end] of this.#building) {
      reached.set(shardId, Math.max(end, reached.get(shardId) ?? 0));
    }
    // What of expired shards is in the cut under way, that one counts.
    const { pending } = state;
    if (pending?.streamId === description.streamId) {
      for (const { shardId, to } of pending.ranges) reached.set(shardId, to);
    }
    const { missed, unread } = lookForUnread(
      this.#unread,
      description,
      consumer,
      reached,
      (shardId, from, to) => recordsBetween(streams, consumer.stream, shardId, from, to),
    );
    this.#unread = unread;
    this.#missed += missed;
    this.#accounted.clear();
  }

  async #keep(unread: UnreadShards | undefined, more = 0, counting?: Ledger["counted"]): Promise<void> {
    const { state, log, counted } = this.#parts;
    const missed = this.#missed;
    const records = missed + more;
    const trimmedRecords = state.ledger.trimmedRecords + records;
    await state.update({ trimmedRecords, unread, counted: counting }, () => {
      this.#missed -= missed;
      if (records === 0) return;
      log.error({ records }, "retention removed records before they were delivered");
      counted(records);
    });
  }
}

/** Of `places`, those that this consumer has yet to get to. */
function passed(consumer: Consumer, places: ReadonlyMap<ShardId, Offset>): Map<ShardId, Offset> {
  const positions = consumer.positions();
  return new Map([...places].filter(([shardId, place]) => place > (positions.get(shardId) ?? place)));
}
