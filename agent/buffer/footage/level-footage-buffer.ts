/**
 * The footage buffer in LevelDB. A unit is two entries of one synced batch: the unit itself, with
 * its own checksum (protocol/footage.ts), and the few bytes that the index in memory needs of it.
 *
 * Every opening begins a new epoch, so no place is ever given twice, whatever a crash left.
 */
import { decodeUnit, encodeUnit, type FootageUnit } from "../../../protocol/footage.ts";
import type { Epoch, FrameSequence } from "../../../protocol/frame.ts";
import type { Clock } from "../../../runtime/clock.ts";
import { describeError, HeadwaterError } from "../../../runtime/errors.ts";
import type { Log } from "../../../runtime/log.ts";
import type { Metrics } from "../../../runtime/metrics.ts";
import type { FootageBuffer, FootageGap, FootageUsage, RecordedUnit, UnitPlace } from "../footage-buffer.ts";
import { DiskSpace } from "../level/disk-space.ts";
import { compact } from "../level/leveldb.ts";
import { BufferFullError } from "../record-buffer.ts";
import {
  failureToMend,
  indexValue,
  newestWith,
  type OpenedFolder,
  openAnew,
  openFootageFolder,
  randomEpoch,
  sidecarFile,
  unitKey,
} from "./footage-folder.ts";
import type { UnitEntry } from "./footage-index.ts";
import { type FootageMeters, footageMeters } from "./footage-meters.ts";
import { SidecarWriter } from "./footage-sidecar.ts";

export interface LevelFootageBufferOptions {
  readonly dir: string;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
  /** Of waiting units. The folder itself takes some more until it is compacted. */
  readonly maxBytes: number;
  /** On a disk with less free space, and a little more, it grows no further; 0 for no limit. */
  readonly minFreeBytes?: number;
  /** Makes epochs; must not repeat. */
  readonly random?: () => Epoch;
  /** Called for all footage that is lost between camera and gateway, with the reason. */
  readonly onGap?: (gap: FootageGap) => void;
}

/** The disk did not take a unit. The buffer opens its database anew at the next one. */
export class FootageWriteError extends HeadwaterError {
  constructor(folder: string, cause: unknown) {
    super("FOOTAGE_WRITE_FAILED", {
      retryable: true,
      message: `${folder}: ${describeError((cause as Error | undefined)?.cause ?? cause)}`,
      hint: "check the disk and its free space",
      cause,
    });
  }
}

/** LevelDB gives disk space back only when it compacts; so many freed bytes are worth it. */
const COMPACT_AFTER_BYTES = 64 * 1_048_576;
/** An emptied buffer is compacted sooner, as little is left to rewrite, and one on a short disk. */
const COMPACT_SOON_AFTER_BYTES = 8 * 1_048_576;
/** So long before the record buffer would count as full footage stops growing: deleted units free their space late. */
const SPARE_BYTES = 64 * 1_048_576;
/** What it may take on the shortest disk: units that are on their way. */
const SMALL_BYTES = 64 * 1_048_576;
/** LevelDB gives the system's words alone: EMFILE, ENFILE, ENOMEM. */
const SHORTAGE = /Too many open files|Cannot allocate memory/;
/** Unreadable units kept for whoever wants to look. */
const MAX_SET_ASIDE = 4;

/** @throws FootageLockedError, FootageVersionError, and what the file system throws */
export async function openLevelFootageBuffer(options: LevelFootageBufferOptions): Promise<FootageBuffer> {
  const opened = await openFootageFolder(options.dir, options.log);
  const buffer = new LevelFootageBuffer(options, opened);
  await buffer.begin(opened);
  return buffer;
}

interface Waiter {
  readonly ready: () => boolean;
  readonly resolve: () => void;
}

class LevelFootageBuffer implements FootageBuffer {
  readonly #options: LevelFootageBufferOptions;
  readonly #log: Log;
  readonly #index: OpenedFolder["index"];
  readonly #lock: OpenedFolder["lock"];
  readonly #epoch: Epoch;
  readonly #epochStart: number;
  readonly #sidecar: SidecarWriter;
  readonly #disk: DiskSpace;
  readonly #newestUs: Map<string, number>;
  readonly #sequences = new Map<string, FrameSequence>();
  readonly #waiters = new Set<Waiter>();
  readonly #counts: FootageMeters;
  #db: OpenedFolder["db"];
  /** Writes go one after the other: places rise in the order in which units come. */
  #queue: Promise<unknown> = Promise.resolve();
  /** Why the database is to be opened anew before the next write. */
  #failure: unknown;
  #droppedUnits = 0;
  readonly #setAside: string[] = [];
  /** Per camera, the first and last deleted key since the last compaction. */
  readonly #deleted = new Map<string, { first: string; last: string }>();
  #deletedBytes = 0;
  #compacting: Promise<void> | undefined;
  #closing: Promise<void> | undefined;

  constructor(options: LevelFootageBufferOptions, opened: OpenedFolder) {
    this.#options = options;
    this.#log = options.log;
    this.#index = opened.index;
    this.#lock = opened.lock;
    this.#db = opened.db;
    this.#newestUs = opened.newestUs;
    this.#epoch = (options.random ?? randomEpoch)();
    this.#epochStart = opened.epochStart + 1;
    this.#counts = footageMeters(options.metrics, this);
    const { minFreeBytes = 0 } = options;
    this.#disk = new DiskSpace(options.dir, minFreeBytes && minFreeBytes + SPARE_BYTES, () => {});
    this.#sidecar = new SidecarWriter(sidecarFile(options.dir), () => ({
      epochStart: this.#epochStart,
      newestUs: this.#newestUs,
      waiting: this.#index.ranges(),
    }));
  }

  /** The number of the new epoch is on disk before the first unit bears it. */
  async begin(opened: OpenedFolder): Promise<void> {
    for await (const key of this.#db.keys({ gt: "x!", lt: "x~" })) this.#setAside.push(key);
    await this.#sidecar.write();
    if (opened.sidecarDamaged) this.#counts.sidecarDamaged.inc();
    for (const range of opened.missing) {
      const units = Number(range.last - range.first) + 1;
      this.#counts.damaged.inc(units);
      const { camera, fromUs, toUs } = range;
      this.reportGap({ camera, fromUs, toUs, reason: `${units} units were damaged on disk` });
    }
  }

  append(unit: RecordedUnit): Promise<UnitPlace> {
    return this.#inTurn(() => this.#append(unit));
  }

  async #append(unit: RecordedUnit): Promise<UnitPlace> {
    // A sequence is used up even when its write fails, as the disk may hold it all the same.
    const sequence = (this.#sequences.get(unit.camera) ?? 0n) + 1n;
    this.#sequences.set(unit.camera, sequence);
    const place = { epoch: this.#epoch, sequence };
    const { endUs, ...footage } = unit;
    const bytes = encodeUnit({ ...footage, ...place });
    const { camera, producerUs } = unit;
    const entry = { camera, ...place, epochStart: this.#epochStart, bytes: bytes.length, producerUs, endUs };
    if (bytes.length > this.#options.maxBytes)
      throw new BufferFullError(bytes.length, this.#options.maxBytes);
    await this.#makeRoom(bytes.length);
    await this.#store(entry, bytes);
    this.#index.add(entry);
    this.#newestUs.set(camera, newestWith(this.#newestUs.get(camera), endUs));
    this.#counts.stored.inc({ camera });
    this.#counts.storedBytes.inc({ camera }, bytes.length);
    for (const waiter of this.#waiters) if (waiter.ready()) waiter.resolve();
    // Not awaited: without it the unit would only be believed on LevelDB's word after a crash.
    this.#sidecar.write().catch((error: unknown) => this.#sidecarFailed(error));
    return place;
  }

  async #store(entry: UnitEntry, bytes: Buffer): Promise<void> {
    try {
      if (this.#failure !== undefined) await this.#reopen();
      await this.#db.batch(
        [
          { type: "put", key: unitKey("u", entry), value: bytes },
          { type: "put", key: unitKey("i", entry), value: indexValue(entry) },
        ],
        { sync: true },
      );
    } catch (error) {
      this.#failure = failureToMend(this.#failure, error);
      throw new FootageWriteError(this.#options.dir, error);
    }
  }

  /** After a failed write LevelDB refuses all others until it is opened again. */
  async #reopen(): Promise<void> {
    await this.#compacting;
    await this.#db.close();
    this.#db = await openAnew(this.#options.dir, this.#failure, this.#log);
    this.#failure = undefined;
  }

  /** The oldest footage makes room for the newest: what happens now is what somebody will look for. */
  async #makeRoom(bytes: number): Promise<void> {
    const { maxBytes } = this.#options;
    await this.#disk.look();
    const short = this.#disk.isShort;
    // What was deleted frees its space only then.
    if (short) await this.#compacting;
    // On a short disk each unit takes the place of others: records are to find room, and so is the newest unit.
    const limit = short ? Math.min(maxBytes, Math.max(SMALL_BYTES, this.#index.bytes)) : maxBytes;
    const dropped: UnitEntry[] = [];
    while (this.#index.bytes + bytes > limit) {
      const oldest = this.#index.oldest();
      if (oldest === undefined) break;
      this.#index.remove(oldest);
      dropped.push(oldest);
    }
    // At once: after its config was made smaller a buffer drops thousands, while the camera goes on.
    await this.#forget(dropped);
    this.#droppedUnits += dropped.length;
    for (const entry of dropped) {
      this.#counts.dropped.inc({ camera: entry.camera });
      this.reportGap(gapOf(entry, `the ${short ? "disk" : "footage buffer"} was full`));
    }
  }

  async read(camera: string, after: UnitPlace | undefined): Promise<FootageUnit | undefined> {
    for (;;) {
      const entry = this.#index.next(camera, after);
      if (entry === undefined) return undefined;
      let bytes: Buffer | undefined;
      try {
        bytes = await this.#db.get(unitKey("u", entry), { fillCache: false });
        if (bytes === undefined) throw new Error("its bytes are gone");
        return placedUnit(bytes, entry);
      } catch (error) {
        // The database is closed, not the unit damaged.
        if (this.#closing !== undefined) return undefined;
        // It is being opened anew after a failed write; the reader comes again.
        if ((error as NodeJS.ErrnoException).code === "LEVEL_DATABASE_NOT_OPEN") throw error;
        // Nothing can be opened now: it is not the unit's fault.
        if (SHORTAGE.test((error as Error).message)) throw error;
        // Dropped to make room while it was read.
        if (!this.#index.has(camera, entry.epoch, entry.sequence)) continue;
        await this.#inTurn(() => this.#putAside(entry, bytes, error));
      }
    }
  }

  /** A damaged unit must not stop those behind it. */
  async #putAside(entry: UnitEntry, bytes: Buffer | undefined, error: unknown): Promise<void> {
    if (bytes !== undefined) await this.#keep(unitKey("x", entry), bytes);
    await this.#forget([entry]);
    this.#counts.damaged.inc();
    const { camera, sequence } = entry;
    this.#log.error({ camera, sequence: Number(sequence), error: describeError(error) }, "unit set aside");
    this.reportGap(gapOf(entry, "a unit was damaged on disk"));
  }

  async #keep(key: string, bytes: Buffer): Promise<void> {
    try {
      await this.#db.put(key, bytes);
      this.#setAside.push(key);
      while (this.#setAside.length > MAX_SET_ASIDE) await this.#db.del(this.#setAside.shift()!);
    } catch (error) {
      this.#failure = failureToMend(this.#failure, error);
      this.#log.warn({ error: describeError(error) }, "a damaged unit is not kept");
    }
  }

  waiting(camera: string, after: UnitPlace | undefined, signal: AbortSignal): Promise<void> {
    return this.#until(() => this.#index.next(camera, after) !== undefined, signal);
  }

  waitingOther(known: ReadonlySet<string>, signal: AbortSignal): Promise<void> {
    return this.#until(() => this.#index.cameras().some((camera) => !known.has(camera)), signal);
  }

  async #until(ready: () => boolean, signal: AbortSignal): Promise<void> {
    if (ready() || signal.aborted) return;
    await new Promise<void>((resolve) => {
      const done = (): void => {
        this.#waiters.delete(waiter);
        signal.removeEventListener("abort", done);
        resolve();
      };
      const waiter: Waiter = { ready, resolve: done };
      this.#waiters.add(waiter);
      signal.addEventListener("abort", done, { once: true });
    });
  }

  ack(camera: string, epoch: Epoch, first: FrameSequence, last: FrameSequence): Promise<void> {
    if (this.#index.between(camera, epoch, first, last).length === 0) return Promise.resolve();
    return this.#inTurn(() => this.#forget(this.#index.between(camera, epoch, first, last)));
  }

  /**
   * First the sidecar, then the entries: a crash in between leaves units that are sent once more. The
   * deletions need no sync for the same reason.
   */
  async #forget(entries: readonly UnitEntry[]): Promise<void> {
    if (entries.length === 0) return;
    for (const entry of entries) this.#index.remove(entry);
    await this.#sidecar.write().catch((error: unknown) => this.#sidecarFailed(error));
    const keys = entries.flatMap((entry) => [unitKey("u", entry), unitKey("i", entry)]);
    try {
      await this.#db.batch(keys.map((key) => ({ type: "del", key })));
    } catch (error) {
      // They are forgotten all the same, and come back at the next start.
      this.#failure = failureToMend(this.#failure, error);
      this.#log.warn({ error: describeError(error) }, "sent footage was not deleted");
      return;
    }
    this.#noteDeleted(entries);
  }

  #noteDeleted(entries: readonly UnitEntry[]): void {
    for (const entry of entries) {
      const key = unitKey("u", entry);
      const range = this.#deleted.get(entry.camera);
      const first = range === undefined || key < range.first ? key : range.first;
      const last = range === undefined || key > range.last ? key : range.last;
      this.#deleted.set(entry.camera, { first, last });
      this.#deletedBytes += entry.bytes;
    }
    const soon = this.#index.units === 0 || this.#disk.isShort;
    const enough = soon ? COMPACT_SOON_AFTER_BYTES : COMPACT_AFTER_BYTES;
    if (this.#deletedBytes < enough || this.#compacting !== undefined) return;
    this.#compacting = this.#compact().finally(() => {
      this.#compacting = undefined;
    });
  }

  async #compact(): Promise<void> {
    const ranges = [...this.#deleted.values()];
    this.#deleted.clear();
    this.#deletedBytes = 0;
    try {
      for (const { first, last } of ranges) await compact(this.#db, first, last);
    } catch (error) {
      this.#log.warn({ error: describeError(error) }, "footage buffer not compacted");
    }
  }

  reportGap(gap: FootageGap): void {
    this.#counts.gaps.inc({ camera: gap.camera });
    this.#options.onGap?.(gap);
  }

  newestUs(camera: string): number | undefined {
    return this.#newestUs.get(camera);
  }

  async cameras(): Promise<string[]> {
    return this.#index.cameras();
  }

  usage(): FootageUsage {
    return {
      waitingUnits: this.#index.units,
      waitingBytes: this.#index.bytes,
      maxBytes: this.#options.maxBytes,
      oldestUs: this.#index.oldest()?.producerUs,
      droppedUnits: this.#droppedUnits,
    };
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    await this.#queue;
    for (const waiter of this.#waiters) waiter.resolve();
    await this.#compacting;
    await this.#sidecar.write().catch((error: unknown) => this.#sidecarFailed(error));
    await this.#db.close();
    await this.#lock.close();
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#queue.then(work);
    this.#queue = done.catch(() => {});
    return done;
  }

  #sidecarFailed(error: unknown): void {
    this.#log.warn({ error: describeError(error) }, "the footage buffer's sidecar was not written");
  }
}

/** The unit stored under its own place, or an error. */
function placedUnit(bytes: Buffer, entry: UnitEntry): FootageUnit {
  const unit = decodeUnit(bytes);
  const right =
    unit.camera === entry.camera && unit.epoch === entry.epoch && unit.sequence === entry.sequence;
  if (!right) throw new Error("another unit stands in its place");
  return unit;
}

function gapOf(entry: UnitEntry, reason: string): FootageGap {
  return { camera: entry.camera, fromUs: entry.producerUs, toUs: entry.endUs, reason };
}
