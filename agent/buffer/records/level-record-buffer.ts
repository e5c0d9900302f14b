/**
 * The record buffer on a chain of small LevelDBs. docs/design/0018-record-chain.md says why.
 *
 * One synced batch holds a group's frames and their sources' marks, so a crash leaves all of them or
 * none. Acknowledgements are not synced: a power cut may bring frames back, and the gateway knows them
 * by (epoch, sequence). Before an epoch is declared drained its head is synced, and before it is
 * forgotten the sidecar says so; from then on no frame of it is read again.
 */
import { randomBytes } from "node:crypto";
import type { Epoch, Frame, FrameSequence } from "../../../protocol/frame.ts";
import type { FolderLock } from "../../../runtime/folder-lock.ts";
import { DiskSpace } from "../level/disk-space.ts";
import {
  BufferFailedError,
  type BufferRecord,
  type BufferUsage,
  type FramePlace,
  type Mark,
  type RecordBuffer,
  type StreamPlace,
} from "../record-buffer.ts";
import { Admission } from "./admission.ts";
import { AgeLimit } from "./age-limit.ts";
import { EndsKeeper } from "./ends-keeper.ts";
import { EpochLedger, newEpochState } from "./epoch-ledger.ts";
import { EpochTurnover } from "./epoch-turnover.ts";
import { estimateBytes, FrameCutter } from "./frame-cutter.ts";
import { FrameDropper } from "./frame-dropper.ts";
import { FrameReader } from "./frame-reader.ts";
import { FrameRemover } from "./frame-remover.ts";
import { type Append, GroupCommit } from "./group-commit.ts";
import type { LevelRecordBufferOptions } from "./level-record-options.ts";
import { LossReports } from "./loss-reports.ts";
import { MarkStore } from "./mark-store.ts";
import { RecordChain } from "./record-chain.ts";
import { chainFolder, marksFolder, type OpenedFolder, openRecordFolder } from "./record-folder.ts";
import { type BufferMeters, bufferMeters } from "./record-meters.ts";
import { assertValid } from "./record-validity.ts";
import { repeatOptions } from "./repeat.ts";

const MAX_MARK_NAMES = 100_000;
const PART_BYTES = 4 * 1_048_576;
/** Parts that are smaller than they may be, by starts and thinning, and are no burden yet. */
const SPARE_PARTS = 64;

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
  readonly #lock: FolderLock;
  readonly #cutter = new FrameCutter();
  readonly #group: GroupCommit;
  readonly #meters: BufferMeters;
  readonly #ledger: EpochLedger;
  readonly #marks: MarkStore;
  readonly #ends: EndsKeeper;
  readonly #chain: RecordChain;
  readonly #reader: FrameReader;
  readonly #remover: FrameRemover;
  readonly #dropper: FrameDropper;
  readonly #turnover: EpochTurnover;
  readonly #reports: LossReports;
  readonly #age: AgeLimit;
  readonly #disk: DiskSpace;
  readonly #admission: Admission;
  readonly #waiters = new Set<() => void>();
  #droppedRecords = 0;
  #failure: BufferFailedError | undefined;
  #closing: Promise<void> | undefined;

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
        ...repeatOptions(options),
        dir: chainFolder(options.dir),
        partBytes,
        usualParts: Math.ceil(options.maxBytes / partBytes) + SPARE_PARTS,
        marks: this.#marks,
        onMerged: () => this.#ends.write(),
        syncHeads: () => this.#ends.syncHeads(),
        removedTo: (start) => this.#ledger.at(start)?.removedTo ?? 2n ** 64n,
        onFailure: (cause) => this.#fail(cause),
      },
      folder.parts,
      folder.nextNumber,
      current,
    );
    this.#chain = chain;
    this.#meters = bufferMeters(options.metrics, () => this.usage(), options.clock);
    const onFailure = (cause: unknown): Error => this.#fail(cause);
    const chainDir = chainFolder(options.dir);
    this.#turnover = new EpochTurnover({ chainDir, ledger, chain, ends: this.#ends, random, onFailure });
    this.#reports = new LossReports({
      ...options,
      ledger,
      chain,
      ends: this.#ends,
      meters: this.#meters,
      store: (records) => this.#storeReport(records),
    });
    this.#reader = new FrameReader({
      chain,
      ledger,
      onDamage: (...found) => this.#reports.damagedPart(...found),
      onMissing: (what) => this.#reports.damage(what, 0, 0),
    });
    this.#remover = new FrameRemover({ chain, ledger, onMoved: () => this.#ends.write() });
    this.#dropper = new FrameDropper({
      chain,
      ledger,
      reader: this.#reader,
      remover: this.#remover,
      priorities: options.priorities ?? {},
      report: (gaps, carried) => this.#reports.gaps(gaps, carried),
      persistGone: () => this.#ends.writeSidecar(),
    });
    this.#age = new AgeLimit({
      clock: options.clock,
      maxAgeHours: options.maxAgeHours ?? 0,
      ledger,
      drop: (beforeUs, reason) => this.#dropOld(beforeUs, reason),
      onFailure,
    });
    this.#disk = new DiskSpace(options.dir, options.minFreeBytes ?? 0, () => this.#admission.roomReturned());
    this.#group = new GroupCommit(options, (group) => this.#commit(group));
    this.#admission = new Admission({
      maxBytes: options.maxBytes,
      whenFull: options.whenFull,
      storedBytes: () => {
        const { waitingBytes } = ledger;
        return waitingBytes === 0 ? 0 : waitingBytes + chain.overheadBytes;
      },
      diskIsShort: () => this.#disk.isShort,
      store: (append) => this.#push(append),
      drop: () => this.#drop(),
    });
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
      await this.#reports.damage(what, folder.lostRecords, folder.damagedFromUs);
      // A crash before this tells of the same ranges again.
      for (const state of folder.epochs) state.told = [...state.gone];
      await this.#ends.writeSidecar();
    }
    for (const part of folder.unsealed) await this.#chain.sealLate(part);
    this.#chain.sweep();
    await this.#disk.start();
    await this.#age.start();
  }

  append(records: readonly BufferRecord[]): Promise<void> {
    try {
      return this.#admission.admit(this.#checked(records));
    } catch (error) {
      return Promise.reject(error);
    }
  }

  async report(records: readonly BufferRecord[]): Promise<boolean> {
    return this.#admission.report(this.#checked(records));
  }

  /** @throws RecordInvalidError, BufferFailedError */
  #checked(records: readonly BufferRecord[]): Append {
    let marks: Mark[] | undefined;
    for (const record of records) {
      assertValid(record);
      if (record.mark === undefined) continue;
      marks ??= [];
      marks.push(record.mark);
    }
    const refusal = this.#refusal();
    if (refusal !== undefined) throw refusal;
    return { records, marks: marks ?? [], bytes: estimateBytes(records) };
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
    const timeSource = this.#options.timeSource?.() ?? "system";
    const frames = this.#cutter.cut(current, { device, storedUs, timeSource }, records);
    const marks = new Map<string, Uint8Array>();
    for (const append of group) for (const { source, value } of append.marks) marks.set(source, value);
    current.writing++;
    try {
      await this.#chain.write(frames, marks, storedUs);
    } catch (error) {
      throw this.#fail(error);
    } finally {
      current.writing--;
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

  /** Not held back by a full buffer: what is missing must be known. */
  async #storeReport(records: readonly BufferRecord[]): Promise<void> {
    const stored =
      records.length > 0 && this.#admission.pass({ records, marks: [], bytes: estimateBytes(records) });
    await Promise.all([stored, this.#group.flush()]);
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

  ackAhead({ epoch, stream, sequence }: StreamPlace): void {
    const ahead = this.#ledger.of(epoch)?.ahead;
    if (ahead !== undefined && sequence > (ahead.get(stream) ?? 0n)) ahead.set(stream, sequence);
  }

  isAhead({ epoch, stream, sequence }: StreamPlace): boolean {
    return sequence <= (this.#ledger.of(epoch)?.ahead.get(stream) ?? 0n);
  }

  /** @returns false when nothing is left that may go */
  async #drop(): Promise<boolean> {
    const before = this.#ledger.waitingBytes;
    const dropped = await this.#dropper.drop("buffer full: the oldest records were dropped");
    if (dropped === undefined) {
      // Nothing is on disk yet: what gathers must be stored before it can be dropped.
      await this.#group.flush();
      return false;
    }
    this.#countDropped(dropped);
    if (this.#disk.isShort) {
      await this.#chain.settled();
      await this.#disk.look();
    }
    // Reports that were written again, and became no fewer, would be so for ever.
    return dropped > 0 || this.#ledger.waitingBytes < before;
  }

  async #dropOld(beforeUs: number, reason: string): Promise<boolean> {
    const dropped = await this.#dropper.dropOlder(beforeUs, reason);
    if (dropped !== undefined) this.#countDropped(dropped);
    return dropped !== undefined;
  }

  #countDropped(records: number): void {
    this.#droppedRecords += records;
    this.#meters.dropped.inc(records);
  }

  drainedEpochs(): Promise<Epoch[]> {
    return this.#turnover.drained();
  }

  async beginEpoch(): Promise<Epoch> {
    const refusal = this.#refusal();
    if (refusal !== undefined) throw refusal;
    return this.#turnover.begin();
  }

  forgetEpoch(epoch: Epoch): Promise<void> {
    return this.#turnover.forget(epoch);
  }

  usage(): BufferUsage {
    return {
      waitingRecords: this.#ledger.waitingRecords,
      waitingBytes: this.#ledger.waitingBytes,
      maxBytes: this.#options.maxBytes,
      oldestUs: this.#ledger.oldestUs,
      droppedRecords: this.#droppedRecords,
      currentEpoch: this.#ledger.current.epoch,
      openEpochs: this.#ledger.open,
    };
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#admission.end(new BufferFailedError(this.#options.dir, "it is closed"));
    await this.#group.flush();
    await this.#turnover.settled();
    await this.#remover.settled();
    for (const wake of this.#waiters) wake();
    this.#disk.close();
    this.#age.close();
    await this.#reader.close();
    await this.#chain.close();
    await this.#marks.close();
    await this.#ends.close(this.#failure === undefined);
    await this.#lock.close();
  }
}
