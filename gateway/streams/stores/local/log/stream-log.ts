/**
 * The log of one stream: what is appended goes into groups, a group is one write and one
 * fdatasync, and only then does anybody hear that it is stored.
 *
 *   append → waiting groups → write, fdatasync → where the log ends, index, producers → who waits, readers
 *            waiting-groups.ts   group-writer.ts   log-end.ts, segment.ts
 *
 * Places are given in the call itself, so the order of calls is the order in the log.
 */
import { heldMemoryBytes } from "../../../../../runtime/machine-memory.ts";
import { BadEntryError, StreamsClosedError } from "../../../streams.ts";
import { Listeners } from "../../listeners.ts";
import {
  ENTRY_KIND,
  type EntryKind,
  entrySize,
  MAX_ENTRY_BYTES,
  type Part,
  type Producer,
  type RoutedPart,
} from "../../log-entry.ts";
import type { RecentChunks } from "../segments/recent-chunks.ts";
import type { RecycledSegments } from "../segments/recycled-segments.ts";
import type { Segment } from "../segments/segment.ts";
import { arrivedByMs } from "../segments/segment-age.ts";
import type { Group, Waiter } from "./group.ts";
import { failureOf, GroupWriter } from "./group-writer.ts";
import { LogEnd } from "./log-end.ts";
import type { LogMeters } from "./log-meters.ts";
import { LogReader } from "./log-reader.ts";
import { recoverLog } from "./log-recovery.ts";
import { LogReport } from "./log-report.ts";
import type { Producers } from "./producers.ts";
import { type ChainOptions, SegmentChain } from "./segment-chain.ts";
import type { Disk } from "./segment-file.ts";
import { type AllWaiting, WaitingGroups } from "./waiting-groups.ts";

export const DEFAULT_SEGMENT_BYTES = 64 * 1_048_576;
/** A retention is divided into so many segments at least, where records keep coming: what is too old stays for an eighth longer. */
const SEGMENTS_KEPT = 8;
/** What may wait for the disk, encoded, in one stream. */
export const MAX_WAITING_BYTES = 64 * 1_048_576;
/** And in all, 384 MiB where there is memory enough: more than the MQTT door hands in, which holds up its connections before. */
export const MAX_ALL_WAITING_BYTES = 1.5 * heldMemoryBytes();

export interface StreamLogOptions {
  readonly name: string;
  readonly streamId: string;
  readonly folder: string;
  readonly segmentBytes: number;
  readonly maxWaitingBytes: number;
  readonly allWaiting?: AllWaiting | undefined;
  readonly disk: Disk;
  /** Files to write over; undefined: every segment is a fresh one. */
  readonly spares?: RecycledSegments | undefined;
  /** Where what readers read is kept for the next ones; undefined: each reads from the disk. */
  readonly recent?: RecentChunks | undefined;
  readonly meters: LogMeters;
  readonly nowMs: () => number;
  readonly monotonicMs: () => number;
  /** Called where nobody waits for an answer: damage, failed writes, repairs. */
  readonly report: (level: "warn" | "error", fields: Record<string, unknown>, message: string) => void;
}

export class StreamLog {
  readonly producers: Producers;
  readonly reader: LogReader;
  /** Found missing at the opening; those of a shard of which nothing is left may be among them. */
  readonly lostRecords: number;
  readonly #options: StreamLogOptions;
  readonly #report: LogReport;
  readonly #chain: SegmentChain;
  readonly #end: LogEnd;
  readonly #waiting: WaitingGroups;
  readonly #writer: GroupWriter;
  readonly #listeners = new Listeners();
  #closed = false;

  private constructor(
    options: StreamLogOptions,
    chain: SegmentChain,
    end: LogEnd,
    arrivalMs: number,
    report: LogReport,
    lostRecords = 0,
  ) {
    this.lostRecords = lostRecords;
    this.#options = options;
    this.#report = report;
    this.#chain = chain;
    this.#end = end;
    this.producers = end.producers;
    const waiting = new WaitingGroups(options, end, chain, arrivalMs);
    this.#waiting = waiting;
    this.#writer = new GroupWriter(
      options,
      { waiting, chain, end, report },
      {
        stored: (group) => this.#stored(group),
        // What waited for the disk is refused; a shard that was closed meanwhile has its end now.
        repaired: () => this.#listeners.checkAll(),
      },
    );
    this.reader = new LogReader(
      chain.segments,
      options.recent,
      (segment, extent) => report.damage(segment.path, extent),
      options.monotonicMs,
    );
  }

  /** Makes the first segment of a new stream, in a folder that is there and empty. @throws LogFullError, LogWriteError */
  static async create(options: StreamLogOptions): Promise<StreamLog> {
    const report = new LogReport(options);
    const end = LogEnd.ofNewLog();
    const chain = await SegmentChain.create(chainOptions(options, report), end.state(0)).catch((error) => {
      throw failureOf(options.name, error);
    });
    return new StreamLog(options, chain, end, 0, report);
  }

  /** @throws LogMissingError */
  static async open(options: StreamLogOptions): Promise<StreamLog> {
    const report = new LogReport(options);
    const chainOf = chainOptions(options, report);
    const found = await recoverLog(options.folder, options.streamId, chainOf.onHousekeepingError);
    const chain = new SegmentChain(chainOf, found.segments, found.file, found.gone);
    const log = new StreamLog(options, chain, new LogEnd(found), found.arrivalMs, report, found.lostRecords);
    for (const finding of found.findings) report.finding(finding);
    return log;
  }

  /** Where what is on disk ends. */
  next(shard: number): number {
    return this.#end.next(shard);
  }

  /** When the newest record arrived, on disk or still waiting for it; it never falls. */
  get arrivalMs(): number {
    return this.#waiting.arrivalMs;
  }

  /** That were come upon and cannot be read back. */
  get damagedBytes(): number {
    return this.#report.damagedBytes;
  }

  /** Why nothing is stored since the last try, or of what is under way, if so. */
  get refusing(): string | undefined {
    return this.#writer.refusing;
  }

  /** How long the write that is under way has taken so far; 0 without one. */
  get writeAgeMs(): number {
    return this.#writer.writeAgeMs;
  }

  /** Now and then: whether the operator is to hear of a disk that hangs. */
  lookAtDisk(): void {
    this.#writer.lookAtDisk();
  }

  get segments(): readonly Segment[] {
    return this.#chain.segments;
  }

  /** Of segments that are too old and that the disk does not let go. */
  get retiredBytes(): number {
    return this.#chain.retiredBytes;
  }

  /**
   * No record comes to stand before `offset`. For a shard whose readers got further than the log
   * does now: what they had is lost, but nothing new may hide behind their checkpoints.
   */
  skipTo(shard: number, offset: number): void {
    if (offset <= this.next(shard)) return;
    this.#end.skipTo(shard, offset);
    this.#waiting.skipTo(shard, offset);
  }

  /**
   * Puts an entry into the group that is filling, and returns where its parts will stand. `waiter`
   * hears when it is on disk or will never be.
   * @throws LogFullError, LogWriteError, LogBusyError, StreamsClosedError, BadEntryError; nothing was stored
   */
  append(
    kind: EntryKind,
    producer: Producer | undefined,
    routed: readonly RoutedPart[],
    waiter: Waiter,
  ): { parts: readonly Part[]; arrivalMs: number } {
    const size = entrySize(producer, routed);
    if (size > MAX_ENTRY_BYTES) throw new BadEntryError(`${size} bytes in one append`);
    this.#refuseWhenUnfit(size);
    const placed = this.#waiting.add(kind, producer, routed, size, waiter);
    if (producer !== undefined && kind === ENTRY_KIND.records) this.producers.expect(producer);
    this.#writer.pump();
    return placed;
  }

  /** Hears when all that was appended before this call is on disk. */
  barrier(waiter: Waiter): void {
    this.#refuseWhenUnfit(0);
    this.#waiting.wait(waiter);
    this.#writer.pump();
  }

  /**
   * Resolves when the shard's records on disk go beyond `from`, on abort, and when the log closes.
   * @param ended true once nothing more will come; asked at each record, and at `wake`
   */
  appended(
    shard: number,
    from: number,
    signal: AbortSignal,
    ended: () => boolean = () => false,
  ): Promise<void> {
    const satisfied = (): boolean => this.next(shard) > from || this.#closed || ended();
    return this.#listeners.wait(shard, satisfied, signal);
  }

  /** Those who wait for the shard look again. */
  wake(shard: number): void {
    this.#listeners.check(shard);
  }

  /** Nothing of the shard waits for the disk: what was appended to it is there, or was refused. */
  settled(shard: number): boolean {
    return this.next(shard) === this.#waiting.next(shard);
  }

  /**
   * Removes whole segments whose newest record arrived before `cutoffMs`. Returns how many. Closed ones
   * go also while the log cannot be written: it may be their room that it lacks. So that a log into which little comes
   * is not one segment for ever, none takes records for longer than an eighth of the time between the two moments.
   * @param nowMs by the clock that `cutoffMs` goes by
   */
  async removeBefore(cutoffMs: number, nowMs = this.#options.nowMs()): Promise<number> {
    let removed = await this.#removeClosed(cutoffMs, nowMs);
    if (this.#writer.hasFailed) {
      // Nobody may append for long.
      if (!this.#closed) this.#writer.repair();
    } else if (!this.#closed && (this.#isActiveOld(cutoffMs, nowMs) || this.#isActiveLong(cutoffMs, nowMs))) {
      await this.#roll();
      removed += await this.#removeClosed(cutoffMs, nowMs);
    }
    return removed;
  }

  async #removeClosed(cutoffMs: number, nowMs: number): Promise<number> {
    if (this.#closed) return 0;
    let retired = 0;
    const { segments } = this.#chain;
    const isOver = (): boolean => this.#closed;
    // What could not be removed by a run before goes first.
    let areRemovable = await this.#chain.removeRetired(isOver);
    while (!this.#closed && segments.length > 1) {
      const arrivedMs = arrivedByMs(segments, 0, nowMs);
      if (arrivedMs === undefined || arrivedMs >= cutoffMs) break;
      this.#chain.retireOldest();
      retired++;
      // Where one cannot be, those behind it wait as well, for the next run.
      if (areRemovable) areRemovable = await this.#chain.removeRetired(isOver);
    }
    return retired;
  }

  /** Also where nothing tells how old its records are: the segment behind it will. */
  #isActiveOld(cutoffMs: number, nowMs: number): boolean {
    const { segments, active } = this.#chain;
    if (active.records === 0) return segments.length > 1 && arrivedByMs(segments, 0, nowMs) === undefined;
    const arrivedMs = arrivedByMs(segments, segments.length - 1, nowMs);
    if (arrivedMs !== undefined) return arrivedMs < cutoffMs;
    // Where the clock was ahead when it was made, too, one that is made now tells sooner.
    return active.createdMs < cutoffMs || active.createdMs > nowMs;
  }

  /** Records that come now would keep its first ones for too long: it goes as one. */
  #isActiveLong(cutoffMs: number, nowMs: number): boolean {
    const { records, createdMs } = this.#chain.active;
    return records > 0 && createdMs <= nowMs && nowMs - createdMs > (nowMs - cutoffMs) / SEGMENTS_KEPT;
  }

  /** Waits for what was appended, then closes. Safe to call twice. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#writer.settled();
    this.#listeners.checkAll();
    this.#listeners.rest();
    await this.#chain.close(this.#end, !this.#writer.hasFailed);
    this.#options.recent?.forget(this.#chain.segments);
  }

  #refuseWhenUnfit(size: number): void {
    if (this.#closed) throw new StreamsClosedError();
    this.#writer.refuseWhenFailed();
    this.#waiting.admit(size, this.#writer);
  }

  /** From here on it is there for all who ask, and those who waited for it hear. */
  #stored(group: Group): void {
    const segment = this.#chain.active;
    const at = segment.end;
    this.#end.stored(group, segment);
    if (this.#listeners.waiting > 0 || this.reader.isFollowed) {
      this.#options.recent?.written(segment, at, group.contents);
    }
    this.#waiting.stored(group);
    const labels = { stream: this.#options.name };
    this.#options.meters.records.inc(labels, group.records);
    this.#options.meters.bytes.inc(labels, group.bytes);
    for (const waiter of group.waiters) waiter.done();
    // Looked at by who waits: there are few of them, and an append may touch thousands of shards.
    if (this.#listeners.waiting > 0) this.#listeners.checkAll();
  }

  /** Lets the next append go into a new segment, and waits until that one stands. */
  #roll(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#refuseWhenUnfit(0);
      this.#waiting.roll({ done: resolve, failed: reject });
      this.#writer.pump();
    });
  }
}

function chainOptions(options: StreamLogOptions, report: LogReport): ChainOptions {
  return { ...options, onHousekeepingError: (error) => report.housekeepingFailed(error) };
}
