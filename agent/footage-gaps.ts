/**
 * Tells of lost footage where all gaps are told. Its stream is the camera.
 *
 *   gap, gap, gap → those that touch become one → record buffer
 *
 * A full record buffer has only a little room for reports, so they are gathered for ever longer while it
 * is full. A kill loses what was gathered since the last one: at most about as long as it was full before.
 */
import { pause } from "../runtime/backoff.ts";
import { describeError } from "../runtime/errors.ts";
import type { Log } from "../runtime/log.ts";
import type { FootageGap } from "./buffer/footage-buffer.ts";
import { BufferFullError, type RecordBuffer } from "./buffer/record-buffer.ts";
import { gapRecord } from "./sources/reading-record.ts";

export interface FootageGapsOptions {
  readonly device: string;
  readonly buffer: Pick<RecordBuffer, "report">;
  readonly log: Log;
  /** How long the first reports are gathered while the buffer is full; 1 s unless given. */
  readonly firstWaitMs?: number;
}

const FIRST_WAIT_MS = 1_000;
const LONGEST_WAIT_MS = 600_000;
const CLOSE_WAIT_MS = 1_000;
/** Two gaps of one camera that are no farther apart are one. */
const TOUCHING_US = 2_000_000;
/** Of more, those of one camera and reason become one, whatever is between them. */
const MAX_GATHERED = 100;

export class FootageGaps {
  readonly #options: FootageGapsOptions;
  readonly #closing = new AbortController();
  #gathered: FootageGap[] = [];
  #waitMs = 0;
  #telling: Promise<void> | undefined;

  constructor(options: FootageGapsOptions) {
    this.#options = options;
  }

  tell(gap: FootageGap): void {
    this.#gather(gap);
    this.#telling ??= this.#tellAll().finally(() => {
      this.#telling = undefined;
    });
  }

  #gather(gap: FootageGap): void {
    const crowded = this.#gathered.length >= MAX_GATHERED;
    const at = this.#gathered.findLastIndex(
      (other) =>
        other.camera === gap.camera &&
        other.reason === gap.reason &&
        (crowded || (gap.fromUs - other.toUs <= TOUCHING_US && other.fromUs - gap.toUs <= TOUCHING_US)),
    );
    const same = this.#gathered[at];
    if (same === undefined) {
      this.#gathered.push(gap);
      return;
    }
    const [fromUs, toUs] = [Math.min(same.fromUs, gap.fromUs), Math.max(same.toUs, gap.toUs)];
    this.#gathered[at] = { ...same, fromUs, toUs };
  }

  /** Never rejects. */
  async #tellAll(): Promise<void> {
    const { device, buffer, log, firstWaitMs = FIRST_WAIT_MS } = this.#options;
    while (this.#gathered.length > 0) {
      const last = this.#closing.signal.aborted;
      const gaps = this.#gathered.splice(0);
      const records = gaps.map(({ camera, ...gap }) =>
        gapRecord(device, { sensor: camera, stream: `video.${camera}`, ...gap }),
      );
      try {
        const hadRoom = await buffer.report(records);
        this.#waitMs = hadRoom ? 0 : this.#longer(firstWaitMs);
      } catch (error) {
        if (last || !(error instanceof BufferFullError)) {
          const cameras = [...new Set(gaps.map(({ camera }) => camera))].join(", ");
          log.error(
            { cameras, gaps: gaps.length, error: describeError(error) },
            "gaps in the footage are not recorded",
          );
          continue;
        }
        const later = this.#gathered.splice(0);
        for (const gap of [...gaps, ...later]) this.#gather(gap);
        this.#waitMs = this.#longer(firstWaitMs);
      }
      if (this.#waitMs > 0) await pause(this.#waitMs, this.#closing.signal);
    }
  }

  #longer(firstMs: number): number {
    return Math.min(LONGEST_WAIT_MS, Math.max(firstMs, 2 * this.#waitMs));
  }

  /**
   * What is gathered is tried once more; what is then not stored is in the log alone. Safe to call twice.
   * A report that waits for a short disk is refused when the buffer closes, which is next.
   */
  async close(): Promise<void> {
    this.#closing.abort();
    await Promise.race([this.#telling, pause(CLOSE_WAIT_MS)]);
  }
}
