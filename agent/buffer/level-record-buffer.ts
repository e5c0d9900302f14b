/**
 * The record buffer on a chain of small LevelDBs. docs/design/0018-record-chain.md says why.
 *
 * One synced batch holds a group's frames and their sources' marks, so a crash leaves all of them or
 * none. Acknowledgements are not synced: a power cut may bring frames back, and the gateway knows them
 * by (epoch, sequence). Before an epoch is declared drained its head is synced, and before it is
 * forgotten the sidecar says so; from then on no frame of it is read again.
 */
import { randomBytes } from "node:crypto";
import type { Epoch, Frame, FrameSequence, TimeSource } from "../../protocol/frame.ts";
import type { Clock } from "../../runtime/clock.ts";
import { syncFolder } from "../../runtime/durable.ts";
import { describeError } from "../../runtime/errors.ts";
import type { Log } from "../../runtime/log.ts";
import type { Metrics } from "../../runtime/metrics.ts";
import { Admission } from "./admission.ts";
import type { ChainPart } from "./chain-part.ts";
import { keepAside } from "./damaged-folders.ts";
import { DiskSpace } from "./disk-space.ts";
import { EndsKeeper } from "./ends-keeper.ts";
import { EpochLedger, newEpochState } from "./epoch-ledger.ts";
import { cutFrames, estimateBytes } from "./frame-cutter.ts";
import { type Dropped, FrameDropper } from "./frame-dropper.ts";
import { FrameReader } from "./frame-reader.ts";
import { FrameRemover } from "./frame-remover.ts";
import { type Gap, gapRecord } from "./gap-record.ts";
import { type Append, GroupCommit } from "./group-commit.ts";
import type { Database } from "./leveldb.ts";
import { MarkStore } from "./mark-store.ts";
import {
  BufferDamagedError,
  BufferFailedError,
  type BufferRecord,
  type BufferUsage,
  type FramePlace,
  type Mark,
  type RecordBuffer,
} from "./record-buffer.ts";
import { RecordChain } from "./record-chain.ts";
import { chainFolder, marksFolder, type OpenedFolder, openRecordFolder } from "./record-folder.ts";
import { type BufferMeters, bufferMeters } from "./record-meters.ts";
import { assertValid } from "./record-validity.ts";

export interface LevelRecordBufferOptions {
  /** Made when it is missing; belongs to this buffer alone. */
  readonly dir: string;
  readonly device: string;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly maxBytes: number;
  readonly whenFull: "pause" | "reject" | "drop-oldest";
  readonly commitDelayMs: number;
  readonly commitRecords: number;
  readonly commitBytes?: number;
  /** `drop-oldest` begins with the streams of the lowest number; 0 unless named. */
  readonly priorities?: Readonly<Record<string, number>>;
  /** Frames that have waited longer are dropped; 0 for no limit. */
  readonly maxAgeHours?: number;
  /** Less free space on the disk counts as full; 0 for no limit. */
  readonly minFreeBytes?: number;
  /** Size of a part of the chain; 4 MiB, or an eighth of `maxBytes`, unless given. */
  readonly partBytes?: number;
  /** Called once, when a write failed and the buffer takes nothing more. */
  readonly onFailure?: (error: BufferFailedError) => void;
  /** How `clock` knows the time, as frames say it; `system` unless given. */
  readonly timeSource?: () => TimeSource;
  /** A new epoch's id; random unless given. */
  readonly random?: () => Epoch;
}

const MAX_MARK_NAMES = 100_000;
const AGE_EVERY_MS = 10_000;
/** 2020: what was stored "earlier" was stored before the clock was set. */
const CLOCK_SET_US = 1_577_836_800_000_000;
const PART_BYTES = 4 * 1_048_576;

/** @throws BufferLockedError, ForeignBufferError; damage is healed and reported, not thrown. */
export async function openLevelRecordBuffer(options: LevelRecordBufferOptions): Promise<RecordBuffer> {
  const folder = await openRecordFolder(options.dir, options.device);
  const buffer = new LevelRecordBuffer(options, folder);
  try {
    await buffer.begin(folder);
  } catch (error) {
    await buffer.close().catch(() => undefined);
    throw error;
  }
  return buffer;
}

class LevelRecordBuffer implements RecordBuffer {
  readonly #options: LevelRecordBufferOptions;
  readonly #lock: Database;
  readonly #group: GroupCommit;
  readonly #meters: BufferMeters;
  readonly #ledger: EpochLedger;
  readonly #marks: MarkStore;
  readonly #ends: EndsKeeper;
  readonly #chain: RecordChain;
  readonly #reader: FrameReader;
  readonly #remover: FrameRemover;
  readonly #dropper: FrameDropper;
  readonly #disk: DiskSpace;
  readonly #admission: Admission;
  readonly #waiters = new Set<() => void>();
  readonly #headSynced = new Set<number>();
  #droppedRecords = 0;
  #failure: BufferFailedError | undefined;
  #closing: Promise<void> | undefined;
  #ageTimer: NodeJS.Timeout | undefined;

  constructor(options: LevelRecordBufferOptions, folder: OpenedFolder) {
    this.#options = options;
    this.#lock = folder.lock;
    const random = options.random ?? (() => randomBytes(8).readBigUInt64BE());
    const current = newEpochState(folder.epochStart + 1, random());
    const ledger = new EpochLedger(folder.epochs, current);
    this.#ledger = ledger;
    this.#marks = new MarkStore(marksFolder(options.dir), folder.marks);
    this.#ends = new EndsKeeper({
      ...options,
      ledger,
      marks: this.#marks,
      serial: folder.serial,
      onFailure: (cause) => this.#fail(cause),
    });
    const partBytes = options.partBytes ?? Math.min(PART_BYTES, Math.ceil(options.maxBytes / 8));
    const chain = new RecordChain(
      {
        dir: chainFolder(options.dir),
        partBytes,
        marks: this.#marks,
        syncHeads: () => this.#ends.sync(),
        removedTo: (start) => this.#ledger.at(start)?.removedTo ?? 2n ** 64n,
        onFailure: (cause) => this.#fail(cause),
      },
      folder.parts,
      folder.nextNumber,
      current,
    );
    this.#chain = chain;
    this.#reader = new FrameReader({
      chain,
      ledger,
      onDamage: (part, details, records, bytes) => this.#partDamaged(part, details, records, bytes),
      onMissing: (what) => this.#reportDamage(what, 0, 0),
    });
    this.#remover = new FrameRemover({ chain, ledger, onMoved: () => this.#ends.write() });
    this.#dropper = new FrameDropper({
      chain,
      ledger,
      reader: this.#reader,
      remover: this.#remover,
      priorities: options.priorities ?? {},
      report: (gaps, carried) => this.#reportDropped(gaps, carried),
      persistGone: () => this.#ends.writeSidecar(),
    });
    this.#disk = new DiskSpace(options.dir, options.minFreeBytes ?? 0, () => this.#admission.roomReturned());
    this.#group = new GroupCommit(options, (group) => this.#commit(group));
    this.#admission = new Admission({
      maxBytes: options.maxBytes,
      whenFull: options.whenFull,
      storedBytes: () => ledger.waitingBytes,
      diskIsShort: () => this.#disk.isShort,
      store: (append) => this.#push(append),
      drop: () => this.#drop(),
    });
    this.#meters = bufferMeters(options.metrics, () => this.usage(), options.clock);
  }

  /**
   * Makes the new epoch durable before anything is stored in it, and brings what a crash left into
   * its lasting form: marks first, as a part with a full name is taken to have none of its own.
   */
  async begin(folder: OpenedFolder): Promise<void> {
    await this.#marks.start();
    await this.#chain.start();
    this.#remover.findOldest();
    await this.#ends.start();
    if (folder.damage.length > 0) {
      const what = `${folder.damage.slice(0, 20).join("; ")}; kept in ${folder.keptIn ?? "no folder"}`;
      await this.#reportDamage(what, folder.lostRecords, folder.damagedFromUs);
      // A crash before this tells of the same ranges again.
      for (const state of folder.epochs) state.told = [...state.gone];
      await this.#ends.writeSidecar();
    }
    for (const part of folder.unsealed) await this.#chain.sealLate(part);
    this.#chain.sweep();
    await this.#disk.start();
    if ((this.#options.maxAgeHours ?? 0) === 0) return;
    await this.#dropOld();
    this.#ageTimer = setInterval(
      () => void this.#dropOld().catch((error) => this.#fail(error)),
      AGE_EVERY_MS,
    );
    this.#ageTimer.unref();
  }

  append(records: readonly BufferRecord[]): Promise<void> {
    let marks: Mark[] | undefined;
    try {
      for (const record of records) {
        assertValid(record);
        if (record.mark === undefined) continue;
        marks ??= [];
        marks.push(record.mark);
      }
    } catch (error) {
      return Promise.reject(error);
    }
    const refusal = this.#refusal();
    if (refusal !== undefined) return Promise.reject(refusal);
    return this.#admission.admit({ records, marks: marks ?? [], bytes: estimateBytes(records) });
  }

  setMarks(marks: readonly Mark[]): Promise<void> {
    return this.#admission.pass({ records: [], marks, bytes: 0 });
  }

  refuses(records: readonly BufferRecord[]): boolean {
    return this.#admission.refuses(estimateBytes(records));
  }

  #push(append: Append): Promise<void> {
    const refusal = this.#refusal();
    return refusal === undefined ? this.#group.push(append) : Promise.reject(refusal);
  }

  #refusal(): Error | undefined {
    return this.#failure ?? (this.#closing && new BufferFailedError(this.#options.dir, "it is closed"));
  }

  async #commit(group: readonly Append[]): Promise<void> {
    const { clock, device } = this.#options;
    if (this.#failure !== undefined) throw this.#failure;
    const began = clock.monotonicMs();
    const { current } = this.#ledger;
    const records = group.length === 1 ? group[0]!.records : group.flatMap((append) => append.records);
    const storedUs = clock.nowUs();
    const frames = cutFrames(device, current, storedUs, records, this.#options.timeSource?.());
    const marks = new Map<string, Uint8Array>();
    for (const append of group) for (const { source, value } of append.marks) marks.set(source, value);
    try {
      await this.#chain.write(frames, marks, storedUs);
    } catch (error) {
      throw this.#fail(error);
    }
    const frameBytes = frames.reduce((sum, frame) => sum + frame.bytes.length, 0);
    current.last = frames.at(-1)?.sequence ?? current.last;
    current.waitingRecords += records.length;
    current.waitingBytes += frameBytes;
    if (frames.length > 0) this.#ledger.oldestUs ??= storedUs;
    this.#ends.write();
    this.#meters.commit(records.length, frameBytes, clock.monotonicMs() - began);
    for (const wake of this.#waiters) wake();
  }

  /** After a failed write nobody knows what is on disk; only a new open, with a new epoch, finds out. */
  #fail(cause: unknown): BufferFailedError {
    if (this.#failure !== undefined) return this.#failure;
    this.#failure = new BufferFailedError(this.#options.dir, cause);
    this.#admission.end(this.#failure);
    for (const wake of this.#waiters) wake();
    this.#options.onFailure?.(this.#failure);
    return this.#failure;
  }

  async mark(source: string): Promise<Uint8Array | undefined> {
    return this.#marks.get(source);
  }

  async marks(prefix: string): Promise<string[]> {
    return this.#marks.names(prefix, MAX_MARK_NAMES);
  }

  /** Found while reading. The ledger knows of it already. */
  async #partDamaged(
    part: ChainPart,
    details: readonly string[],
    records: number,
    bytes: number,
  ): Promise<void> {
    const state = this.#ledger.at(part.epochStart);
    if (state !== undefined) {
      state.waitingRecords -= records;
      state.waitingBytes -= bytes;
    }
    part.records -= records;
    part.bytes -= bytes;
    const keptIn = await keepAside(this.#options.dir, [this.#chain.folderOf(part)]);
    const what = `${details.slice(0, 20).join("; ")}; kept in ${keptIn}`;
    await this.#reportDamage(what, records, part.oldestUs, part.newestUs);
    await this.#chain.rename(part);
    this.#ends.write();
  }

  /** Resolves when the report is on disk. */
  async #reportDamage(
    what: string,
    records: number,
    fromUs: number,
    toUs = this.#options.clock.nowUs(),
  ): Promise<void> {
    const error = new BufferDamagedError(this.#options.dir, `${records} records are lost: ${what}`);
    const reason = describeError(error);
    this.#meters.damage.inc();
    this.#meters.lost.inc(records);
    this.#options.log.error({ reason, records }, "part of the record buffer is damaged");
    const gap = { stream: "*", reason: `buffer damaged: ${reason}`, fromUs, toUs, records };
    await Promise.all([this.#appendGaps([gap]), this.#group.flush()]);
  }

  /** Not held back by a full buffer: what is missing must be known. */
  #appendGaps(gaps: readonly Gap[], carried: readonly BufferRecord[] = []): Promise<void> {
    const { device, clock } = this.#options;
    const records = [...gaps.map((gap) => gapRecord(device, clock.nowUs(), gap)), ...carried];
    if (records.length === 0) return Promise.resolve();
    return this.#admission.pass({ records, marks: [], bytes: estimateBytes(records) });
  }

  waiting(after: FramePlace | undefined, signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const check = (): void => {
        const ready = this.#ledger.firstBehind(after) !== undefined;
        if (!ready && !signal.aborted && this.#refusal() === undefined) return;
        this.#waiters.delete(check);
        signal.removeEventListener("abort", check);
        resolve();
      };
      this.#waiters.add(check);
      signal.addEventListener("abort", check);
      check();
    });
  }

  async read(after: FramePlace | undefined, maxBytes: number): Promise<Frame[]> {
    const refusal = this.#refusal();
    if (refusal !== undefined) throw refusal;
    return this.#reader.read(after, maxBytes);
  }

  async ack(epoch: Epoch, last: FrameSequence): Promise<void> {
    await this.#remover.ack(epoch, last);
    this.#admission.roomReturned();
  }

  async #drop(): Promise<void> {
    const dropped = await this.#dropper.drop("buffer full: the oldest records were dropped");
    // Nothing is on disk yet: what gathers must be stored before it can be dropped.
    if (dropped === undefined) return this.#group.flush();
    this.#countDropped(dropped);
    if (!this.#disk.isShort) return;
    await this.#chain.settled();
    await this.#disk.look();
  }

  /** The newest frame of a part decides: a part goes whole or stays whole. */
  async #dropOld(): Promise<void> {
    const { clock, maxAgeHours = 0 } = this.#options;
    const maxAgeUs = maxAgeHours * 3_600_000_000;
    for (;;) {
      const nowUs = clock.nowUs();
      const oldest = this.#ledger.oldestUs;
      if (oldest === undefined || oldest < CLOCK_SET_US || nowUs - oldest < maxAgeUs) return;
      const reason = `older than ${maxAgeHours} hours: the records were dropped`;
      const dropped = await this.#dropper.dropOlder(nowUs - maxAgeUs, reason);
      if (dropped === undefined) return;
      this.#countDropped(dropped);
    }
  }

  #countDropped(records: number): void {
    this.#droppedRecords += records;
    this.#meters.dropped.inc(records);
  }

  async #reportDropped(gaps: readonly Dropped[], carried: readonly BufferRecord[]): Promise<void> {
    await Promise.all([this.#appendGaps(gaps, carried), this.#group.flush()]);
  }

  async drainedEpochs(): Promise<Epoch[]> {
    const drained = this.#ledger.drained();
    const unsynced = drained.filter((state) => !this.#headSynced.has(state.start));
    if (unsynced.length > 0) {
      await this.#ends.writeSidecar();
      for (const state of unsynced) this.#headSynced.add(state.start);
    }
    return drained.map((state) => state.epoch);
  }

  /** Its frames go for good first: a sidecar that does not name it would let them come back as new ones. */
  async forgetEpoch(epoch: Epoch): Promise<void> {
    const state = this.#ledger.of(epoch);
    if (state === undefined || state === this.#ledger.current) return;
    await this.#chain.settled();
    await syncFolder(chainFolder(this.#options.dir));
    if (this.#ledger.of(epoch) === undefined) return;
    this.#ledger.forget(state);
    await this.#ends.writeSidecar();
  }

  usage(): BufferUsage {
    return {
      waitingRecords: this.#ledger.waitingRecords,
      waitingBytes: this.#ledger.waitingBytes,
      maxBytes: this.#options.maxBytes,
      oldestUs: this.#ledger.oldestUs,
      droppedRecords: this.#droppedRecords,
    };
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#admission.end(new BufferFailedError(this.#options.dir, "it is closed"));
    await this.#group.flush();
    await this.#remover.settled();
    for (const wake of this.#waiters) wake();
    this.#disk.close();
    clearInterval(this.#ageTimer);
    await this.#reader.close();
    await this.#chain.close();
    await this.#marks.close();
    await this.#ends.close(this.#failure === undefined);
    await this.#lock.close();
  }
}
