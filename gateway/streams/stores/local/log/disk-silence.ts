/**
 * For how long the disk has not answered what a log asked of it. One that hangs, as a network's whose server is gone or
 * one that dies slowly, refuses nothing: what comes waits, and is then refused as too much.
 *
 * A write costs two numbers that are stored. How old it is, who looks finds out: the metrics, whoever asks whether the
 * stream can be written, and once a second the store (disk-watch.ts), for the gateway's log.
 */
import type { LogReport } from "./log-report.ts";

/** A disk that is merely busy, or wakes up, answers sooner. */
export const SILENT_MS = 10_000;

export interface DiskSilenceOptions {
  /** The stream's. */
  readonly name: string;
  readonly monotonicMs: () => number;
}

export class DiskSilence {
  readonly #options: DiskSilenceOptions;
  readonly #report: LogReport;
  /** Never while nothing is asked. */
  #askedMs = Number.POSITIVE_INFINITY;
  #isSaid = false;

  constructor(options: DiskSilenceOptions, report: LogReport) {
    this.#options = options;
    this.#report = report;
  }

  /** How long it has been asked for what is under way; 0 when nothing is. */
  get ms(): number {
    return Math.max(0, this.#options.monotonicMs() - this.#askedMs);
  }

  /** Why nothing can be stored; undefined unless it is silent for {@link SILENT_MS}. */
  get why(): string | undefined {
    if (this.ms < SILENT_MS) return undefined;
    return `stream ${this.#options.name} cannot be written: its disk does not answer`;
  }

  /** One thing at a time. */
  asked(nowMs: number): void {
    this.#askedMs = nowMs;
  }

  /** Whatever it said. */
  answered(): void {
    if (this.#isSaid) this.#report.diskAnswers(this.ms);
    this.#isSaid = false;
    this.#askedMs = Number.POSITIVE_INFINITY;
  }

  async during(work: Promise<void>): Promise<void> {
    this.asked(this.#options.monotonicMs());
    await work.finally(() => this.answered());
  }

  look(): void {
    if (this.#isSaid || this.why === undefined) return;
    this.#isSaid = true;
    this.#report.diskSilent(this.ms);
  }
}
