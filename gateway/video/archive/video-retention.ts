/**
 * Which footage goes: what is older than it may be, and the oldest of all cameras while there is too much.
 *
 * A device whose clock is years ahead stores what would never be the oldest, and would crowd out all others'
 * footage: where there is too much, that goes first.
 */
import type { Clock } from "../../../runtime/clock.ts";
import { describeError } from "../../../runtime/errors.ts";
import type { Log } from "../../../runtime/log.ts";
import { HOLD_MS, RetentionGuard } from "../../../runtime/retention-guard.ts";
import type { VideoCounters } from "../video-counters.ts";
import type { CameraArchive } from "./camera-archive.ts";

const CHECK_MS = 5_000;
const HOUR_US = 3_600_000_000;
/** Further ahead is no camera's clock. Far, as it may be ours that is behind for a while. */
const FAR_AHEAD_US = 366 * 24 * HOUR_US;
/** Freed from one camera before another may hold the oldest. */
const FREE_AT_ONCE_BYTES = 64 * 1_048_576;
/** Deleted index rows free the disk only when it is compacted; that is worth it now and then. */
const COMPACT_AFTER_ROWS = 2_000;

export interface VideoRetentionOptions {
  readonly clock: Clock;
  readonly log: Log;
  readonly counters: VideoCounters;
  readonly retentionHours: number;
  readonly maxBytes: number;
  /** Of all cameras that there are now. */
  archives(): CameraArchive[];
  /** Of their index. */
  compact(): Promise<void>;
}

export class VideoRetention {
  readonly #options: VideoRetentionOptions;
  readonly #guard: RetentionGuard;
  #timer: NodeJS.Timeout | undefined;
  #rounds: Promise<void> = Promise.resolve();
  #removedRows = 0;

  constructor(options: VideoRetentionOptions) {
    this.#options = options;
    this.#guard = new RetentionGuard(options.clock);
  }

  start(): void {
    this.#timer = setInterval(() => {
      this.#rounds = this.#rounds
        .then(() => this.enforce())
        .catch((error: unknown) => {
          this.#options.log.error({ error: describeError(error) }, "old footage cannot be removed");
        });
    }, CHECK_MS);
    this.#timer.unref();
  }

  /** Resolves when no round is under way. Safe to call twice. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#rounds;
  }

  /** One round. */
  async enforce(): Promise<void> {
    // One camera's trouble is not the others'.
    const failures: unknown[] = [];
    if (!this.#clockJumped()) await this.#removeOld(failures);
    await this.#removeFarAhead(failures);
    await this.#removeExcess(failures);
    if (this.#removedRows >= COMPACT_AFTER_ROWS) {
      this.#removedRows = 0;
      await this.#options.compact();
    }
    if (failures.length > 0) throw failures[0];
  }

  #clockJumped(): boolean {
    const { hold, jumpedMs } = this.#guard.look();
    if (jumpedMs !== undefined) {
      const fields = { aheadHours: jumpedMs / 3_600_000, heldHours: HOLD_MS / 3_600_000 };
      this.#options.log.error(fields, "the wall clock jumped ahead; no footage is too old for now");
    }
    return hold;
  }

  async #removeOld(failures: unknown[]): Promise<void> {
    const { retentionHours, clock } = this.#options;
    const beforeUs = clock.nowUs() - retentionHours * HOUR_US;
    for (const archive of this.#options.archives()) {
      if (archive.totals.oldestUs === undefined || archive.totals.oldestUs >= beforeUs) continue;
      await this.#remove(archive, beforeUs, 0).catch((error: unknown) => failures.push(error));
    }
  }

  async #removeFarAhead(failures: unknown[]): Promise<void> {
    const fromUs = this.#options.clock.nowUs() + FAR_AHEAD_US;
    for (const archive of this.#options.archives()) {
      const excess = this.#excessBytes();
      if (excess <= 0) return;
      if ((archive.totals.newestUs ?? 0) <= fromUs) continue;
      try {
        const removed = await this.#remove(archive, 0, excess, fromUs);
        if (removed === 0) continue;
        const fields = { camera: archive.camera, fragments: removed };
        this.#options.log.warn(fields, "footage dated more than a year ahead made room");
      } catch (error) {
        failures.push(error);
      }
    }
  }

  async #removeExcess(failures: unknown[]): Promise<void> {
    const failed = new Set<CameraArchive>();
    for (let excess = this.#excessBytes(); excess > 0; excess = this.#excessBytes()) {
      const oldest = this.#options
        .archives()
        .filter((archive) => archive.totals.oldestUs !== undefined && !failed.has(archive))
        .sort((a, b) => a.totals.oldestUs! - b.totals.oldestUs!)[0];
      if (oldest === undefined) return;
      try {
        if ((await this.#remove(oldest, 0, Math.min(excess, FREE_AT_ONCE_BYTES))) === 0) return;
      } catch (error) {
        failures.push(error);
        failed.add(oldest);
      }
    }
  }

  async #remove(
    archive: CameraArchive,
    beforeUs: number,
    freeBytes: number,
    fromUs?: number,
  ): Promise<number> {
    const removed = await archive.removeOldest(beforeUs, freeBytes, fromUs);
    this.#options.counters.removed.inc({ camera: archive.camera }, removed);
    this.#removedRows += removed;
    return removed;
  }

  #excessBytes(): number {
    const total = this.#options.archives().reduce((sum, { totals }) => sum + totals.bytes, 0);
    return total - this.#options.maxBytes;
  }
}
