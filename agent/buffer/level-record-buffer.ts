/**
 * The record buffer on LevelDB. docs/design/0003-record-buffer.md says why it is as it is.
 *
 * One synced batch holds a group's frames, their sources' marks and the epoch's tail, so a crash
 * leaves all of them or none. Acknowledgements are not synced: a power cut may bring frames back,
 * and the gateway knows them by (epoch, sequence). Before an epoch is declared drained its head is
 * synced, and before it is forgotten the sidecar says so; from then on no frame of it is read again.
 */
import { randomBytes } from "node:crypto";
import { writeFile } from "node:fs/promises";
import type { Epoch, Frame, FrameSequence } from "../../protocol/frame.ts";
import { GAPS_STREAM, type GapRecord } from "../../protocol/topics.ts";
import type { Clock } from "../../runtime/clock.ts";
import { describeError } from "../../runtime/errors.ts";
import type { Log } from "../../runtime/log.ts";
import type { Metrics } from "../../runtime/metrics.ts";
import { EpochLedger } from "./epoch-ledger.ts";
import { cutFrames, estimateBytes } from "./frame-cutter.ts";
import { FrameReader } from "./frame-reader.ts";
import { FrameRemover } from "./frame-remover.ts";
import { type Append, GroupCommit } from "./group-commit.ts";
import { type Database, type Operation, writeLazily, writeSynced } from "./leveldb.ts";
import {
  BufferDamagedError,
  BufferFailedError,
  BufferFullError,
  type BufferRecord,
  type BufferUsage,
  type FramePlace,
  type Mark,
  type RecordBuffer,
} from "./record-buffer.ts";
import { type OpenedFolder, openRecordFolder, sidecarFile, suspectFile } from "./record-folder.ts";
import {
  asideKey,
  encodeHead,
  encodeTail,
  frameKey,
  headKey,
  markKey,
  newEpochState,
  tailKey,
  within,
} from "./record-keys.ts";
import { type BufferMeters, bufferMeters } from "./record-meters.ts";
import { assertValid } from "./record-validity.ts";
import { writeSidecar } from "./sidecar.ts";

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
  /** Called once, when a write failed and the buffer takes nothing more. */
  readonly onFailure?: (error: BufferFailedError) => void;
  /** A new epoch's id; random unless given. */
  readonly random?: () => Epoch;
}

const MAX_MARK_NAMES = 100_000;
const SIDECAR_EVERY_MS = 5_000;
/** More than that does not wait in memory for room: clients that come and go would fill it. */
const MAX_PAUSED_BYTES = 8 * 1_048_576;
/** `drop-oldest` makes at least so much room at once, so that not each append needs a gap record. */
const DROP_BYTES = 65_536;

/** @throws BufferLockedError, ForeignBufferError; damage is healed and reported, not thrown. */
export async function openLevelRecordBuffer(options: LevelRecordBufferOptions): Promise<RecordBuffer> {
  const folder = await openRecordFolder(options.dir, options.device);
  const buffer = new LevelRecordBuffer(options, folder);
  await buffer.begin(folder);
  return buffer;
}

class LevelRecordBuffer implements RecordBuffer {
  readonly #options: LevelRecordBufferOptions;
  readonly #database: Database;
  readonly #lock: Database;
  readonly #group: GroupCommit;
  readonly #meters: BufferMeters;
  readonly #ledger: EpochLedger;
  readonly #reader: FrameReader;
  readonly #remover: FrameRemover;
  /** Bytes of appends that are admitted and not yet on disk. */
  #gatheringBytes = 0;
  readonly #paused: (Append & { resolve: () => void; reject: (error: unknown) => void })[] = [];
  #pausedBytes = 0;
  #makingRoom = false;
  readonly #waiters = new Set<() => void>();
  readonly #headSynced = new Set<number>();
  #droppedRecords = 0;
  #sidecar: Promise<void> = Promise.resolve();
  #sidecarAtMs: number;
  #failure: BufferFailedError | undefined;
  #closing: Promise<void> | undefined;

  constructor(options: LevelRecordBufferOptions, folder: OpenedFolder) {
    this.#options = options;
    this.#database = folder.database;
    this.#lock = folder.lock;
    const starts = [folder.sidecar?.epochStart ?? 0, ...folder.epochs.map((epoch) => epoch.start)];
    const random = options.random ?? (() => randomBytes(8).readBigUInt64BE());
    this.#ledger = new EpochLedger(folder.epochs, newEpochState(Math.max(...starts) + 1, random()));
    this.#group = new GroupCommit(options.commitDelayMs, options.commitRecords, (group) =>
      this.#commit(group),
    );
    this.#meters = bufferMeters(options.metrics, () => this.usage(), options.clock);
    this.#sidecarAtMs = options.clock.monotonicMs();
    const shared = { database: this.#database, ledger: this.#ledger };
    this.#reader = new FrameReader({
      ...shared,
      onSetAside: () => this.#meters.setAside.inc(),
      onDamage: (reason) => this.#reportDamage(reason, 0),
      onUnreadable: (error) => this.#suspect(error),
    });
    this.#remover = new FrameRemover({
      ...shared,
      reader: this.#reader,
      onFailure: (cause) => this.#fail(cause),
      onCompactError: (error) => options.log.warn({ error: describeError(error) }, "buffer not compacted"),
    });
  }

  /** Makes the new epoch durable. A crash before the sidecar is written leaves an empty epoch. */
  async begin(folder: OpenedFolder): Promise<void> {
    await writeSynced(this.#database, [
      { type: "put", key: tailKey(this.#ledger.current.start), value: encodeTail(this.#ledger.current) },
    ]);
    await this.#remover.findOldest();
    await this.#writeSidecar();
    if (folder.damage.length === 0) return;
    const error = new BufferDamagedError(
      this.#options.dir,
      `${folder.damage.slice(0, 20).join("; ")}; kept in ${folder.keptIn ?? "no folder"}`,
    );
    const fromUs = folder.sidecar?.oldestUs || folder.sidecar?.writtenUs || 0;
    this.#reportDamage(describeError(error), fromUs);
  }

  append(records: readonly BufferRecord[]): Promise<void> {
    try {
      for (const record of records) assertValid(record);
    } catch (error) {
      return Promise.reject(error);
    }
    const marks = records.flatMap((record) => (record.mark === undefined ? [] : [record.mark]));
    return this.#admit({ records, marks, bytes: estimateBytes(records) });
  }

  setMarks(marks: readonly Mark[]): Promise<void> {
    return this.#push({ records: [], marks, bytes: 0 });
  }

  refuses(records: readonly BufferRecord[]): boolean {
    return this.#refusesBytes(estimateBytes(records));
  }

  #refusesBytes(bytes: number): boolean {
    const { maxBytes, whenFull } = this.#options;
    if (bytes > maxBytes) return true;
    if (this.#paused.length > 0) return this.#pausedBytes + bytes > MAX_PAUSED_BYTES;
    return whenFull === "reject" && !this.#fits(bytes);
  }

  #admit(append: Append): Promise<void> {
    const { maxBytes, whenFull } = this.#options;
    const refusal = this.#refusal();
    if (refusal !== undefined) return Promise.reject(refusal);
    if (this.#paused.length === 0 && this.#fits(append.bytes)) return this.#push(append);
    if (this.#refusesBytes(append.bytes)) {
      return Promise.reject(new BufferFullError(this.#usedBytes(), maxBytes));
    }
    return new Promise((resolve, reject) => {
      this.#pausedBytes += append.bytes;
      this.#paused.push({ ...append, resolve, reject });
      if (whenFull === "drop-oldest") void this.#makeRoom();
    });
  }

  #usedBytes(): number {
    return this.#ledger.waitingBytes + this.#gatheringBytes;
  }

  #fits(bytes: number): boolean {
    return this.#usedBytes() + bytes <= this.#options.maxBytes;
  }

  #push(append: Append): Promise<void> {
    const refusal = this.#refusal();
    if (refusal !== undefined) return Promise.reject(refusal);
    this.#gatheringBytes += append.bytes;
    return this.#group.push(append);
  }

  #refusal(): Error | undefined {
    return this.#failure ?? (this.#closing && new BufferFailedError(this.#options.dir, "it is closed"));
  }

  #admitPaused(): void {
    while (this.#paused.length > 0 && this.#fits(this.#paused[0]!.bytes)) {
      const next = this.#paused.shift()!;
      this.#pausedBytes -= next.bytes;
      this.#push(next).then(next.resolve, next.reject);
    }
  }

  async #commit(group: readonly Append[]): Promise<void> {
    const { clock, device } = this.#options;
    if (this.#failure !== undefined) throw this.#failure;
    const began = clock.monotonicMs();
    const records = group.flatMap((append) => append.records as BufferRecord[]);
    const storedUs = clock.nowUs();
    const frames = cutFrames(device, this.#ledger.current, storedUs, records);
    const frameBytes = frames.reduce((sum, frame) => sum + frame.bytes.length, 0);
    const tail = {
      ...this.#ledger.current,
      last: frames.at(-1)?.sequence ?? this.#ledger.current.last,
      storedRecords: this.#ledger.current.storedRecords + records.length,
      storedBytes: this.#ledger.current.storedBytes + frameBytes,
    };
    const operations: Operation[] = frames.map((frame) => ({
      type: "put",
      key: frameKey(tail.start, frame.sequence),
      value: frame.bytes,
    }));
    if (frames.length > 0)
      operations.push({ type: "put", key: tailKey(tail.start), value: encodeTail(tail) });
    const marks = new Map(group.flatMap((append) => append.marks.map((mark) => [mark.source, mark.value])));
    for (const [source, value] of marks) {
      if (value.length === 0) operations.push({ type: "del", key: markKey(source) });
      else operations.push({ type: "put", key: markKey(source), value: Buffer.from(value) });
    }
    try {
      await writeSynced(this.#database, operations);
    } catch (error) {
      throw this.#fail(error);
    }
    this.#ledger.current.last = tail.last;
    this.#ledger.current.storedRecords = tail.storedRecords;
    this.#ledger.current.storedBytes = tail.storedBytes;
    this.#gatheringBytes -= group.reduce((sum, append) => sum + append.bytes, 0);
    if (frames.length > 0) this.#ledger.oldestUs ??= storedUs;
    this.#meters.commit(records.length, frameBytes, clock.monotonicMs() - began);
    for (const wake of this.#waiters) wake();
    if (this.#paused.length > 0) this.#admitPaused();
    if (clock.monotonicMs() - this.#sidecarAtMs >= SIDECAR_EVERY_MS) void this.#writeSidecar();
  }

  /** After a failed write nobody knows what is on disk; only a new open, with a new epoch, finds out. */
  #fail(cause: unknown): BufferFailedError {
    if (this.#failure !== undefined) return this.#failure;
    this.#failure = new BufferFailedError(this.#options.dir, cause);
    for (const waiting of this.#paused.splice(0)) waiting.reject(this.#failure);
    for (const wake of this.#waiters) wake();
    this.#options.onFailure?.(this.#failure);
    return this.#failure;
  }

  async mark(source: string): Promise<Uint8Array | undefined> {
    return this.#database.get(markKey(source));
  }

  async marks(prefix: string): Promise<string[]> {
    const keys = await this.#database.keys({ ...within(markKey(prefix)), limit: MAX_MARK_NAMES }).all();
    return keys.map((key) => key.slice(2));
  }

  /** Only the rebuilding of the next open helps. */
  async #suspect(error: Error): Promise<never> {
    await writeFile(suspectFile(this.#options.dir), `LevelDB could not read: ${error.message}`);
    throw this.#fail(error);
  }

  #reportDamage(reason: string, fromUs: number): void {
    const toUs = this.#options.clock.nowUs();
    this.#meters.damage.inc();
    this.#options.log.error({ reason }, "part of the record buffer is lost");
    this.#reportGap({ stream: "*", reason: `buffer damaged: ${reason}`, fromUs, toUs }).catch(() => {
      // The buffer failed, which its appends already say.
    });
  }

  /** Not held back by a full buffer: what is missing must be known. */
  #reportGap(gap: Pick<GapRecord, "stream" | "reason" | "fromUs" | "toUs" | "records">): Promise<void> {
    const { device, clock } = this.#options;
    const nowUs = clock.nowUs();
    const record: GapRecord = { device, sensor: "*", time: new Date(nowUs / 1000).toISOString(), ...gap };
    const records = [
      {
        stream: GAPS_STREAM,
        partitionKey: `${device}/*`,
        timeUs: nowUs,
        payload: Buffer.from(JSON.stringify(record)),
      },
    ];
    return this.#push({ records, marks: [], bytes: estimateBytes(records) });
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

  /** Drops oldest frames until the first paused append fits. The gap is on disk before anything goes. */
  async #makeRoom(): Promise<void> {
    if (this.#makingRoom) return;
    this.#makingRoom = true;
    try {
      while (this.#paused.length > 0 && this.#failure === undefined) {
        const needed = this.#usedBytes() + this.#paused[0]!.bytes - this.#options.maxBytes;
        if (needed > 0) await this.#drop(needed);
        this.#admitPaused();
      }
    } catch (error) {
      this.#pausedBytes = 0;
      for (const waiting of this.#paused.splice(0)) waiting.reject(error);
    } finally {
      this.#makingRoom = false;
    }
  }

  async read(after: FramePlace | undefined, maxBytes: number): Promise<Frame[]> {
    const refusal = this.#refusal();
    if (refusal !== undefined) throw refusal;
    return this.#reader.read(after, maxBytes);
  }

  async ack(epoch: Epoch, last: FrameSequence): Promise<void> {
    await this.#remover.ack(epoch, last);
    this.#admitPaused();
  }

  async #drop(neededBytes: number): Promise<void> {
    const bytes = Math.max(neededBytes, Math.min(DROP_BYTES, this.#options.maxBytes / 8));
    const dropped = await this.#remover.drop(bytes, async (gaps) => {
      const reports = gaps.map((gap) =>
        this.#reportGap({ reason: "buffer full: the oldest records were dropped", ...gap }),
      );
      await Promise.all([...reports, this.#group.flush()]);
    });
    // Nothing is on disk yet: what gathers must be stored before it can be dropped.
    if (dropped === undefined) return this.#group.flush();
    this.#droppedRecords += dropped;
    this.#meters.dropped.inc(dropped);
  }

  async drainedEpochs(): Promise<Epoch[]> {
    const drained = this.#ledger.drained();
    const unsynced = drained.filter((epoch) => !this.#headSynced.has(epoch.start));
    if (unsynced.length > 0) {
      await writeSynced(
        this.#database,
        unsynced.map((epoch) => ({ type: "put", key: headKey(epoch.start), value: encodeHead(epoch) })),
      );
      for (const epoch of unsynced) this.#headSynced.add(epoch.start);
    }
    return drained.map((epoch) => epoch.epoch);
  }

  /** The sidecar first: a crash behind it leaves keys that the next open deletes. */
  async forgetEpoch(epoch: Epoch): Promise<void> {
    const state = this.#ledger.of(epoch);
    if (state === undefined || state === this.#ledger.current) return;
    this.#ledger.forget(state);
    await this.#writeSidecar();
    await writeLazily(this.#database, [
      { type: "del", key: tailKey(state.start) },
      { type: "del", key: headKey(state.start) },
    ]);
    await this.#database.clear(within(asideKey(state.start, 0n).slice(0, 11)));
  }

  #writeSidecar(): Promise<void> {
    this.#sidecarAtMs = this.#options.clock.monotonicMs();
    this.#sidecar = this.#sidecar
      .then(() =>
        writeSidecar(sidecarFile(this.#options.dir), {
          device: this.#options.device,
          epochStart: this.#ledger.current.start,
          floorStart: this.#ledger.epochs[0]!.start,
          epochs: this.#ledger.epochs.map(({ start, epoch, last, removedTo }) => ({
            start,
            epoch,
            last,
            removedTo,
          })),
          oldestUs: this.#ledger.oldestUs ?? 0,
          writtenUs: this.#options.clock.nowUs(),
        }),
      )
      .catch((error: unknown) => {
        throw this.#fail(error);
      });
    // Those who must know wait for it; for the others the failure is remembered.
    this.#sidecar.catch(() => {});
    return this.#sidecar;
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
    const closed = new BufferFailedError(this.#options.dir, "it is closed");
    for (const waiting of this.#paused.splice(0)) waiting.reject(closed);
    await this.#group.flush();
    await this.#remover.settled();
    for (const wake of this.#waiters) wake();
    if (this.#failure === undefined) await this.#writeSidecar();
    await this.#database.close();
    await this.#lock.close();
  }
}
