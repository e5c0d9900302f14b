/**
 * The log of one stream: what is appended goes into groups, a group is one write and one
 * fdatasync, and only then does anybody hear that it is stored.
 *
 *   append → filling group → [full groups] → write, fdatasync → index, producers, readers
 *
 * Offsets, entry numbers and checksums are made in the call itself, so the order of calls is the
 * order in the log, and the processor works on one group while the disk works on the one before.
 */
import { describeError, type HeadwaterError } from "../../../runtime/errors.ts";
import { BadEntryError, LogBusyError, LogFullError, LogWriteError, StreamsClosedError } from "../streams.ts";
import { Group, type Waiter } from "./group.ts";
import { Listeners } from "./listeners.ts";
import {
  ENTRY_KIND,
  type EntryKind,
  entrySize,
  MAX_ENTRY_BYTES,
  type Part,
  type Producer,
} from "./log-entry.ts";
import type { LogMeters } from "./log-meters.ts";
import { LogReader } from "./log-reader.ts";
import { type Finding, type RecoveredLog, recoverLog } from "./log-recovery.ts";
import { Producers } from "./producers.ts";
import type { RecentChunks } from "./recent-chunks.ts";
import type { RecycledSegments } from "./recycled-segments.ts";
import type { Segment } from "./segment.ts";
import { type ChainOptions, SegmentChain } from "./segment-chain.ts";
import { type Disk, newGeneration } from "./segment-file.ts";
import type { Extent } from "./segment-index.ts";

export const DEFAULT_SEGMENT_BYTES = 64 * 1_048_576;
/** What may wait for the disk, encoded, in one stream. */
export const MAX_WAITING_BYTES = 64 * 1_048_576;
/** After a failed repair the next one waits so long. */
const REPAIR_PAUSE_MS = 500;

export interface StreamLogOptions {
  readonly name: string;
  readonly streamId: string;
  readonly folder: string;
  readonly segmentBytes: number;
  readonly maxWaitingBytes: number;
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

/** A part whose place is not known yet. */
export interface RoutedPart {
  readonly shard: number;
  readonly count: number;
  readonly batch: Uint8Array;
  /** As of `Part`. */
  readonly checksum?: number | undefined;
}

/** What is known of a log that is there. */
type KnownLog = Omit<RecoveredLog, "segments" | "file">;

export class StreamLog {
  readonly producers: Producers;
  readonly reader: LogReader;
  readonly #options: StreamLogOptions;
  readonly #chain: SegmentChain;
  /** What is on disk; by shard, as all that is asked for each part of each append. */
  readonly #next: number[] = [];
  #number: number;
  #records: number;
  /** What will be once all that waits is. */
  #plannedNext: number[];
  #plannedNumber: number;
  #plannedRecords: number;
  #plannedBytes: number;
  #arrivalMs: number;
  #filling: Group;
  #full: Group[] = [];
  #waitingBytes = 0;
  /**
   * Once one was refused, all are, until half of what waits is on disk: were a smaller frame taken
   * right behind a refused one, the refused one would be taken for known when it comes again.
   */
  #busy = false;
  #spareArena: Buffer | undefined;
  #pumping: Promise<void> | undefined;
  #failure: HeadwaterError | undefined;
  #repairAfterMs = 0;
  #repairing: Promise<void> | undefined;
  #closed = false;
  readonly #listeners = new Listeners();

  private constructor(options: StreamLogOptions, chain: SegmentChain, found: KnownLog) {
    this.#options = options;
    this.#chain = chain;
    this.producers = found.producers;
    for (const [shard, next] of found.nextOffsets) this.#next[shard] = next;
    this.#number = found.nextNumber;
    this.#records = found.records;
    this.#arrivalMs = found.arrivalMs;
    this.#plannedNext = [...this.#next];
    this.#plannedNumber = this.#number;
    this.#plannedRecords = this.#records;
    this.#plannedBytes = this.#active.end;
    this.#filling = this.#openGroup();
    const onDamage = (segment: Segment, extent: Extent): void => this.#reportDamage(segment.path, extent);
    this.reader = new LogReader(chain.segments, options.recent, onDamage, options.monotonicMs);
    for (const finding of found.findings) this.#reportFinding(finding);
  }

  /** Makes the first segment of a new stream, in a folder that is there and empty. */
  static async create(options: StreamLogOptions): Promise<StreamLog> {
    const producers = new Producers();
    const state = { nextOffsets: [], records: 0, arrivalMs: 0, producers: producers.snapshot() };
    const chain = await SegmentChain.create(chainOptions(options), state);
    const nextOffsets = new Map<number, number>();
    return new StreamLog(options, chain, {
      producers,
      nextOffsets,
      records: 0,
      nextNumber: 1,
      arrivalMs: 0,
      findings: [],
    });
  }

  /** @throws LogMissingError */
  static async open(options: StreamLogOptions): Promise<StreamLog> {
    const found = await recoverLog(options.folder, options.streamId);
    return new StreamLog(options, new SegmentChain(chainOptions(options), found.segments, found.file), found);
  }

  /** Where what is on disk ends. */
  next(shard: number): number {
    return this.#next[shard] ?? 0;
  }

  get segments(): readonly Segment[] {
    return this.#chain.segments;
  }

  /**
   * No record comes to stand before `offset`. For a shard whose readers got further than the log
   * does now: what they had is lost, but nothing new may hide behind their checkpoints.
   */
  skipTo(shard: number, offset: number): void {
    if (offset <= this.next(shard)) return;
    this.#next[shard] = offset;
    this.#plannedNext[shard] = offset;
  }

  /**
   * Puts an entry into the group that is filling. `placed` hears, within the call, where its parts
   * will stand; `waiter` hears when it is on disk or will never be.
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
    if (!this.#filling.hasRoomFor(size)) this.#turnOver();
    this.#arrivalMs = Math.max(this.#arrivalMs, this.#options.nowMs());
    const parts: Array<Part & { bytes: number }> = [];
    const recordsBefore = this.#plannedRecords;
    for (const { shard, count, batch, checksum } of routed) {
      const first = this.#plannedNext[shard] ?? 0;
      parts.push({ shard, first, count, batch, checksum, bytes: batch.length });
      this.#plannedNext[shard] = first + count;
      this.#plannedRecords += count;
    }
    const entry = {
      kind,
      number: this.#plannedNumber++,
      arrivalMs: this.#arrivalMs,
      recordsBefore,
      producer,
      parts,
    };
    this.#filling.add(entry);
    this.#filling.waiters.push(waiter);
    this.#waitingBytes += size;
    if (producer !== undefined && kind === ENTRY_KIND.records) this.producers.expect(producer);
    this.#pump();
    return { parts, arrivalMs: this.#arrivalMs };
  }

  /** Hears when all that was appended before this call is on disk. */
  barrier(waiter: Waiter): void {
    this.#refuseWhenUnfit(0);
    this.#filling.waiters.push(waiter);
    this.#pump();
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
    return this.next(shard) === (this.#plannedNext[shard] ?? 0);
  }

  /** Removes whole segments whose newest record arrived before `cutoffMs`. Returns how many. */
  async removeBefore(cutoffMs: number): Promise<number> {
    if (this.#closed || this.#failure !== undefined) return 0;
    const active = this.#active;
    if (active.records > 0 && active.newestMs < cutoffMs) await this.#roll();
    let removed = 0;
    const { segments } = this.#chain;
    while (segments.length > 1 && segments[0]!.newestMs < cutoffMs) {
      await this.#chain.removeOldest();
      removed++;
    }
    return removed;
  }

  /** Waits for what was appended, then closes. Safe to call twice. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#pumping;
    await this.#repairing;
    this.#listeners.checkAll();
    await this.#chain.close(this.#number, this.#failure === undefined);
    this.#options.recent?.forget(this.#chain.segments);
  }

  get #active(): Segment {
    return this.#chain.active;
  }

  #refuseWhenUnfit(size: number): void {
    if (this.#closed) throw new StreamsClosedError();
    if (this.#failure !== undefined) {
      this.#startRepair();
      throw this.#failure;
    }
    if (this.#waitingBytes > 0 && this.#waitingBytes + size > this.#options.maxWaitingBytes)
      this.#busy = true;
    if (this.#busy) throw new LogBusyError(this.#options.name, this.#waitingBytes);
  }

  /** A new group; in a new segment when the last one is as large as it may get. */
  #openGroup(roll = this.#chain.isFull(this.#plannedBytes)): Group {
    let generation = (this.#full.at(-1) ?? this.#filling)?.generation ?? this.#active.generation;
    if (roll) {
      generation = newGeneration();
      this.#plannedBytes = 0;
      // The segment's state entry takes a number of its own.
      this.#plannedNumber++;
    }
    const arena = this.#spareArena;
    this.#spareArena = undefined;
    return new Group(generation, arena);
  }

  /** Closes the filling group and opens the next. */
  #turnOver(roll?: boolean): void {
    this.#full.push(this.#filling);
    this.#plannedBytes += this.#filling.bytes;
    this.#filling = this.#openGroup(roll);
  }

  #pump(): void {
    this.#pumping ??= this.#drain();
  }

  async #drain(): Promise<void> {
    // All appends of this turn of the event loop belong to one group.
    await new Promise((resolve) => setImmediate(resolve));
    for (;;) {
      if (this.#full.length === 0) {
        if (this.#filling.waiters.length === 0) break;
        this.#turnOver();
      }
      const group = this.#full[0]!;
      try {
        if (group.generation !== this.#active.generation) await this.#startSegment(group.generation);
        if (group.bytes > 0) await this.#store(group);
      } catch (error) {
        this.#fail(error);
        break;
      }
      this.#full.shift();
      this.#commit(group);
    }
    // Within the same step: whoever appends from here on has to start the next drain.
    this.#pumping = undefined;
  }

  async #store(group: Group): Promise<void> {
    const { meters, monotonicMs } = this.#options;
    await this.#chain.write(group.contents);
    const before = monotonicMs();
    await this.#chain.datasync();
    meters.datasyncSeconds.observe((monotonicMs() - before) / 1000);
    meters.groupEntries.observe(group.entries.length);
  }

  #commit(group: Group): void {
    const segment = this.#active;
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
    if (this.#listeners.waiting > 0 || this.reader.isFollowed) {
      this.#options.recent?.written(segment, segment.end, group.contents);
    }
    segment.end += group.bytes;
    this.#records += group.records;
    this.#waitingBytes -= group.bytes;
    if (this.#waitingBytes <= this.#options.maxWaitingBytes / 2) this.#busy = false;
    const labels = { stream: this.#options.name };
    this.#options.meters.records.inc(labels, group.records);
    this.#options.meters.bytes.inc(labels, group.bytes);
    this.#spareArena ??= group.takeArena();
    for (const waiter of group.waiters) waiter.done();
    // Looked at by who waits: there are few of them, and an append may touch thousands of shards.
    if (this.#listeners.waiting > 0) this.#listeners.checkAll();
  }

  /**
   * A write or a sync failed. After a failed fdatasync nobody knows which pages are on disk, and
   * the kernel may call the next one a success; so all that waited is refused, and nothing is
   * taken until the file is cut back to its last good end and a new segment stands.
   */
  #fail(error: unknown): void {
    const { name, meters, report } = this.#options;
    const code = (error as NodeJS.ErrnoException).code;
    const failure =
      code === "ENOSPC" || code === "EDQUOT" ? new LogFullError(name, error) : new LogWriteError(name, error);
    this.#failure = failure;
    if (failure instanceof LogFullError) void this.#chain.makeRoom();
    meters.writeFailures.inc({ stream: name });
    report("error", { stream: name, error: describeError(failure) }, "the log cannot be written");
    const refused = [...this.#full, this.#filling];
    this.#full = [];
    this.#waitingBytes = 0;
    this.#busy = false;
    this.producers.dropWaiting();
    this.#filling = new Group(this.#active.generation);
    for (const group of refused) for (const waiter of group.waiters) waiter.failed(failure);
    this.#startRepair();
  }

  #startRepair(): void {
    if (this.#repairing !== undefined || this.#options.monotonicMs() < this.#repairAfterMs) return;
    this.#repairing = this.#repair()
      .catch((error: unknown) => {
        const { name, report } = this.#options;
        this.#repairAfterMs = this.#options.monotonicMs() + REPAIR_PAUSE_MS;
        report("error", { stream: name, error: describeError(error) }, "the log cannot be repaired yet");
      })
      .finally(() => {
        this.#repairing = undefined;
      });
  }

  async #repair(): Promise<void> {
    await this.#chain.cutBack();
    await this.#startSegment(newGeneration());
    this.#plannedNext = [...this.#next];
    this.#plannedNumber = this.#number;
    this.#plannedRecords = this.#records;
    this.#plannedBytes = this.#active.end;
    this.#filling = new Group(this.#active.generation);
    this.#failure = undefined;
    // What waited for the disk is refused; a shard that was closed meanwhile has its end now.
    this.#listeners.checkAll();
    this.#options.report("warn", { stream: this.#options.name }, "the log is repaired and accepts again");
  }

  /** Lets the next append go into a new segment, and waits until that one stands. */
  #roll(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#refuseWhenUnfit(0);
      this.#turnOver(true);
      this.#filling.waiters.push({ done: resolve, failed: reject });
      this.#pump();
    });
  }

  async #startSegment(generation: number): Promise<void> {
    await this.#chain.begin(this.#number, generation, {
      nextOffsets: this.#next.flatMap((next, shard) => (next > 0 ? [[shard, next] as const] : [])),
      records: this.#records,
      arrivalMs: this.#arrivalMs,
      producers: this.producers.snapshot(),
    });
    this.#number++;
  }

  #reportFinding({ what, file, extent }: Finding): void {
    if (what === "damage") {
      this.#reportDamage(file, extent);
      return;
    }
    const { name, meters, report } = this.#options;
    if (what === "missing") {
      report("error", { stream: name, file }, "entries behind this file are missing from the log");
      return;
    }
    const bytes = extent.to - extent.from;
    meters.tornBytes.inc({ stream: name }, bytes);
    const fields = { stream: name, file, position: extent.from, bytes };
    report("warn", fields, "cut the rest of a write that never ended");
  }

  #reportDamage(file: string, extent: Extent): void {
    const { name, meters, report } = this.#options;
    const bytes = extent.to - extent.from;
    meters.damagedBytes.inc({ stream: name }, bytes);
    report(
      "error",
      { stream: name, file, position: extent.from, bytes },
      "the log is damaged; what can be read is kept",
    );
  }
}

function chainOptions(options: StreamLogOptions): ChainOptions {
  const { name, report } = options;
  const onHousekeepingError = (error: unknown): void =>
    report("warn", { stream: name, error: describeError(error) }, "housekeeping failed");
  return { ...options, onHousekeepingError };
}
