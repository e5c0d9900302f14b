/**
 * The files of one log: the segments in order, of which the last is written, and how one follows
 * the other. What stands in them is the log's business.
 *
 *   [closed, cut to its end] [closed] … [active: written to, perhaps a recycled file longer than its end]
 *      └ too old: retired, nobody reads it any more ─→ removed, oldest first; what cannot be is tried again
 *
 * A log that shows traffic gets its next segments from the pool of recycled files; one that does
 * not never holds more disk than it filled.
 */
import type { LogFile } from "../segments/log-file.ts";
import type { RecycledSegments } from "../segments/recycled-segments.ts";
import { Segment } from "../segments/segment.ts";
import { forgetGoneSegments } from "./gone-segments.ts";
import type { LogEnd } from "./log-end.ts";
import type { StreamState } from "./log-recovery.ts";
import { createSegmentFile, type Disk, newGeneration } from "./segment-file.ts";

/** A log that would take longer to fill a segment is left with fresh files. */
const BRISK_FILL_MS = 600_000;
/** After so much of a segment a log has shown its traffic; it then changes early from a fresh file to a recycled one. */
const SHOWN_SHARE = 1 / 8;
/** So long a close tries to remove what could not be before: a start would find it, and tell of its records again. */
const CLOSING_REMOVAL_MS = 1_000;

export interface ChainOptions {
  readonly folder: string;
  readonly streamId: string;
  readonly segmentBytes: number;
  readonly disk: Disk;
  /** undefined: every segment is a fresh file that grows as it is written. */
  readonly spares?: RecycledSegments | undefined;
  readonly nowMs: () => number;
  readonly monotonicMs: () => number;
  /** Hears of what failed where nobody waits. */
  readonly onHousekeepingError: (error: unknown) => void;
}

export class SegmentChain {
  readonly segments: Segment[];
  readonly #options: ChainOptions;
  #file: LogFile;
  #sinceMs: number;
  #sinceBytes: number;
  #housekeeping: Promise<void> = Promise.resolve();
  /** Of which the sidecar alone is left: kept here, as a look at the folder for each removal takes long where there are thousands. */
  #gone: readonly number[];
  /** Whose files, or a part of them, are on the disk still; oldest first. */
  readonly #retired: Segment[] = [];

  /** @param gone bases of segments of which the sidecar alone is left */
  constructor(options: ChainOptions, segments: Segment[], file: LogFile, gone: readonly number[] = []) {
    this.#gone = gone;
    this.#options = options;
    this.segments = segments;
    this.#file = file;
    this.#sinceMs = options.monotonicMs();
    this.#sinceBytes = this.active.end;
  }

  /** Makes the first segment of a new log. */
  static async create(options: ChainOptions, state: StreamState): Promise<SegmentChain> {
    const segment = new Segment(options.folder, 0, newGeneration());
    const { disk, streamId, nowMs } = options;
    const file = await createSegmentFile(disk, streamId, nowMs(), segment, state);
    return new SegmentChain(options, [segment], file);
  }

  get active(): Segment {
    return this.segments.at(-1)!;
  }

  /** Behind the active segment's end; on disk when this resolves. `end` is the caller's to move. */
  write(bytes: Buffer): Promise<void> {
    return this.#options.disk.write(this.#file, bytes, this.active.end);
  }

  datasync(): Promise<void> {
    const { disk, spares, segmentBytes } = this.#options;
    // Half a segment ahead is time enough to fill one with zeros.
    const soon = !this.active.isRecycled || this.active.end >= segmentBytes / 2;
    if (spares !== undefined && soon && this.#isBrisk()) spares.want();
    return disk.datasync(this.#file);
  }

  /** Whether a new segment should begin behind `plannedBytes` of the last one. */
  isFull(plannedBytes: number): boolean {
    const { spares, segmentBytes } = this.#options;
    const { takesNoMore, end } = this.active;
    if (plannedBytes >= segmentBytes || (takesNoMore && plannedBytes >= end)) return true;
    const shown = plannedBytes >= segmentBytes * SHOWN_SHARE;
    return shown && !this.active.isRecycled && (spares?.ready ?? 0) > 0 && this.#isBrisk();
  }

  /**
   * The new segment is whole on disk before anything is put behind it. A crash before that leaves
   * a file without a sound state entry, which the next start removes.
   */
  async begin(base: number, generation: number, state: StreamState): Promise<void> {
    const { folder, disk, streamId, nowMs, monotonicMs, spares } = this.#options;
    const old = this.active;
    const segment = new Segment(folder, base, generation);
    const spare = this.#isBrisk() ? spares?.take() : undefined;
    const file = await createSegmentFile(disk, streamId, nowMs(), segment, state, spare);
    const oldFile = this.#file;
    old.nextNumber = base;
    this.#file = file;
    this.segments.push(segment);
    this.#sinceMs = monotonicMs();
    this.#sinceBytes = segment.end;
    void this.#housekeep(async () => {
      await cut(oldFile, old).finally(() => oldFile.close());
      await old.writeSidecar();
      old.dropPoints();
    });
  }

  /** After a failed write: nothing stands behind the last good end. */
  async cutBack(): Promise<void> {
    await this.#file.truncate(this.active.end);
  }

  /** The disk is short: what can be given back is. */
  async makeRoom(): Promise<void> {
    await this.#options.spares?.release();
  }

  /** Of segments that are too old and could not be removed yet. */
  get retiredBytes(): number {
    return this.#retired.reduce((sum, { end }) => sum + end, 0);
  }

  /** Readers lose sight of the oldest one, whatever becomes of its file. */
  retireOldest(): void {
    this.#retired.push(this.segments.shift()!);
  }

  /**
   * Oldest first, and none before the one in front of it is gone, so that neither a crash nor a failure leaves a hole:
   * a start would miss what had stood there.
   * @param isOver asked before each
   * @returns false where one could not be removed; the next call tries it again
   */
  async removeRetired(isOver: () => boolean): Promise<boolean> {
    if (this.#retired.length === 0) return true;
    let failed = true;
    await this.#housekeep(async () => {
      while (this.#retired.length > 0 && !isOver()) {
        const segment = this.#retired[0]!;
        await segment.remove(this.#options.spares);
        const old = this.#gone.filter((base) => base < segment.base);
        await forgetGoneSegments(this.#options.folder, old);
        this.#gone = this.#gone.filter((base) => base > segment.base);
        this.#retired.shift();
      }
      failed = false;
    });
    return !failed;
  }

  /**
   * @param end of the log
   * @param sound the last write succeeded
   */
  async close(end: LogEnd, sound: boolean): Promise<void> {
    const { active } = this;
    const { monotonicMs } = this.#options;
    const untilMs = monotonicMs() + CLOSING_REMOVAL_MS;
    // First of all: where the disk is short, the sidecar needs their room.
    await this.removeRetired(() => monotonicMs() > untilMs);
    await this.#housekeep(async () => {
      if (!sound) return;
      active.nextNumber = end.number;
      await cut(this.#file, active);
      // Tells the next start that nothing is torn. A crash before leaves none that fits.
      await active.writeSidecar(end.nextOffsets());
    });
    await this.#file.close().catch(() => undefined);
  }

  #isBrisk(): boolean {
    const { segmentBytes, monotonicMs } = this.#options;
    const bytes = this.active.end - this.#sinceBytes;
    const rate = segmentBytes / BRISK_FILL_MS;
    return bytes >= segmentBytes * SHOWN_SHARE && bytes >= rate * (monotonicMs() - this.#sinceMs);
  }

  /** One after the other, so that a sidecar is not written for a segment that was just removed. */
  #housekeep(work: () => Promise<void>): Promise<void> {
    const done = this.#housekeeping.then(work).catch(this.#options.onHousekeepingError);
    this.#housekeeping = done;
    return done;
  }
}

/** A closed segment holds no disk beyond its end. A crash before leaves a tail that no entry claims. */
async function cut(file: LogFile, segment: Segment): Promise<void> {
  if (segment.isRecycled || file.isPadded) await file.truncate(segment.end);
}
