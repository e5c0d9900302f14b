/**
 * Takes frames out of the buffer, oldest first: those that the gateway has, and, where the config
 * says so, those that a full buffer must drop. One removal at a time, as each moves an epoch's head.
 */
import type { Epoch, FrameSequence } from "../../protocol/frame.ts";
import type { EpochLedger } from "./epoch-ledger.ts";
import type { FrameReader } from "./frame-reader.ts";
import { compact, type Database, type Operation, writeLazily } from "./leveldb.ts";
import {
  type EpochState,
  encodeHead,
  frameKey,
  headKey,
  isDrained,
  placeInKey,
  within,
} from "./record-keys.ts";

/** So much is removed before LevelDB is asked to give it back. */
const COMPACT_BYTES = 16 * 1_048_576;

interface Removed {
  readonly key: string;
  readonly sequence: FrameSequence;
  readonly bytes: number;
  readonly records: number;
}

/** What was in frames that are to be dropped, by their stream. */
export interface Dropped {
  readonly stream: string;
  readonly records: number;
  readonly fromUs: number;
  readonly toUs: number;
}

export interface FrameRemoverOptions {
  readonly database: Database;
  readonly ledger: EpochLedger;
  readonly reader: FrameReader;
  /** A removal could not be written. */
  readonly onFailure: (cause: unknown) => Error;
  readonly onCompactError: (error: unknown) => void;
}

export class FrameRemover {
  readonly #options: FrameRemoverOptions;
  readonly #database: Database;
  readonly #ledger: EpochLedger;
  #removedSinceCompact = 0;
  #compacting: Promise<void> | undefined;
  #last: Promise<unknown> = Promise.resolve();

  constructor(options: FrameRemoverOptions) {
    this.#options = options;
    this.#database = options.database;
    this.#ledger = options.ledger;
  }

  /** As `RecordBuffer.ack`. */
  ack(epoch: Epoch, last: FrameSequence): Promise<void> {
    return this.#exclusively(async () => {
      const state = this.#ledger.of(epoch);
      const to = state === undefined || last < state.last ? last : state.last;
      if (state === undefined || to <= state.removedTo) return;
      await this.#remove(state, await this.#sizes(state, to), to);
    });
  }

  #exclusively<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#last.then(work);
    this.#last = result.catch(() => {});
    return result;
  }

  async #sizes(state: EpochState, to: FrameSequence): Promise<Removed[]> {
    const removed: Removed[] = [];
    const range = { gte: frameKey(state.start, state.removedTo + 1n), lte: frameKey(state.start, to) };
    for await (const key of this.#database.keys(range)) {
      const size = await this.#options.reader.sizeOf(key);
      removed.push({ key, sequence: placeInKey(key).sequence, ...size });
    }
    return removed;
  }

  /** Head and deletions in one batch: a crash leaves the frames with the old head or neither. */
  async #remove(state: EpochState, removed: readonly Removed[], to: FrameSequence): Promise<void> {
    state.removedTo = to;
    state.removedRecords += removed.reduce((sum, frame) => sum + frame.records, 0);
    const bytes = removed.reduce((sum, frame) => sum + frame.bytes, 0);
    state.removedBytes += bytes;
    try {
      await writeLazily(this.#database, [
        { type: "put", key: headKey(state.start), value: encodeHead(state) },
        ...removed.map((frame): Operation => ({ type: "del", key: frame.key })),
      ]);
      for (const frame of removed) this.#options.reader.forget(frame.key);
      await this.findOldest();
    } catch (error) {
      throw this.#options.onFailure(error);
    }
    this.#removedSinceCompact += bytes;
    if (this.#removedSinceCompact >= COMPACT_BYTES) this.#compact(state.start, to);
  }

  #compact(start: number, to: FrameSequence): void {
    if (this.#compacting !== undefined) return;
    this.#removedSinceCompact = 0;
    this.#compacting = compact(this.#database, frameKey(0, 0n), frameKey(start, to))
      .catch((error: unknown) => this.#options.onCompactError(error))
      .finally(() => {
        this.#compacting = undefined;
      });
  }

  /** Looks up since when the oldest frame waits. */
  async findOldest(): Promise<void> {
    const first = this.#ledger.firstBehind(undefined);
    this.#ledger.oldestUs = undefined;
    if (first === undefined) return;
    const range = { gte: frameKey(first.start, first.sequence), lt: within("f/").lt, limit: 1 };
    const [value] = await this.#database.values(range).all();
    // The moment of storing stands at a fixed place (protocol/frame.ts); a damaged frame is noticed when read.
    if (value !== undefined && value.length >= 40) this.#ledger.oldestUs = Number(value.readBigUInt64BE(32));
  }

  /**
   * Removes oldest frames of at least `bytes`, or all of the oldest epoch's.
   * @param report says what will be missing, on disk, before anything goes: a crash in between
   * leaves a report of a gap that is none
   * @returns how many records; undefined when no frame waits
   */
  drop(bytes: number, report: (gaps: Dropped[]) => Promise<void>): Promise<number | undefined> {
    return this.#exclusively(async () => {
      const state = this.#ledger.epochs.find((epoch) => !isDrained(epoch));
      if (state === undefined) return undefined;
      const { removed, gaps } = await this.#oldest(state, bytes);
      await report(gaps);
      await this.#remove(state, removed, removed.at(-1)?.sequence ?? state.last);
      return removed.reduce((sum, frame) => sum + frame.records, 0);
    });
  }

  async #oldest(state: EpochState, wantedBytes: number): Promise<{ removed: Removed[]; gaps: Dropped[] }> {
    const removed: Removed[] = [];
    const gaps = new Map<string, Dropped>();
    let bytes = 0;
    const range = {
      gte: frameKey(state.start, state.removedTo + 1n),
      lte: frameKey(state.start, state.last),
    };
    for await (const [key, value] of this.#database.iterator(range)) {
      const frame = await this.#options.reader.decode(key, value);
      if (frame === undefined) continue;
      const { stream, storedUs, sequence, recordCount } = frame;
      const gap = gaps.get(stream) ?? { stream, records: 0, fromUs: storedUs, toUs: storedUs };
      gaps.set(stream, { ...gap, records: gap.records + recordCount, toUs: storedUs });
      removed.push({ key, sequence, bytes: value.length, records: recordCount });
      bytes += value.length;
      if (bytes >= wantedBytes) break;
    }
    return { removed, gaps: [...gaps.values()] };
  }

  /** Resolves when nothing is being removed or compacted. */
  async settled(): Promise<void> {
    await this.#last;
    await this.#compacting;
  }
}
