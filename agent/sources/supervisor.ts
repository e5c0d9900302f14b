/**
 * Keeps one source alive: runs its life, and when that ends or fails runs it again after a
 * full-jitter back-off, for ever. No failure of a source gets past here.
 *
 *   start → running ⇄ backing-off → close
 *              ⇅
 *             idle
 */
import { Backoff, pause } from "../../runtime/backoff.ts";
import type { Clock } from "../../runtime/clock.ts";
import { describeError } from "../../runtime/errors.ts";
import type { Log } from "../../runtime/log.ts";
import type { SourceHealth, SourceReport } from "./source.ts";
import type { SourceMeters } from "./source-meters.ts";

const BACKOFF_BASE_MS = 100;
const BACKOFF_CAP_MS = 30_000;
const LONG_LIFE_MS = 60_000;
/** What was handed over gets so long to reach the disk when the source is closed. */
const CLOSE_WAIT_MS = 3_000;

/** One life of a source, from opening its port or file until that is lost. */
export interface Life {
  /** Aborts when the source is to close. */
  readonly signal: AbortSignal;
  /** It is open. */
  running(): void;
  /** Something came from it: the next back-off begins small. */
  fed(): void;
  /** Nothing is wrong, but there is nothing to read, such as a file that nobody has written yet. */
  idle(): void;
}

export interface SupervisorOptions {
  readonly name: string;
  readonly type: string;
  readonly clock: Clock;
  readonly log: Log;
  readonly meters: SourceMeters;
  readonly backoff?: Backoff | undefined;
  /** Of the back-off that is made when none is given; 30 s unless told. */
  readonly maxWaitMs?: number | undefined;
  /** Resolves or rejects when the life is over; soon after `signal` aborts. */
  readonly live: (life: Life) => Promise<void>;
}

export class Supervisor {
  readonly #options: SupervisorOptions;
  readonly #backoff: Backoff;
  readonly #stop = new AbortController();
  #health: SourceHealth = "idle";
  #retryAtMs: number | undefined;
  #loop: Promise<void> | undefined;
  #held = false;
  #decide!: () => void;
  readonly #decided: Promise<void>;

  constructor(options: SupervisorOptions) {
    this.#options = options;
    this.#backoff = options.backoff ?? new Backoff(BACKOFF_BASE_MS, options.maxWaitMs ?? BACKOFF_CAP_MS);
    this.#decided = new Promise((resolve) => {
      this.#decide = resolve;
    });
  }

  get signal(): AbortSignal {
    return this.#stop.signal;
  }

  /** Resolves when the first try is decided: it runs, has nothing to do yet, or failed and is tried again. */
  start(): Promise<void> {
    this.#loop ??= this.#run();
    return this.#decided;
  }

  /** The buffer takes nothing for now, or takes again. */
  held(held: boolean): void {
    this.#held = held;
  }

  async #run(): Promise<void> {
    const { log, meters, clock } = this.#options;
    const { signal } = this.#stop;
    let lastReason = "";
    const life: Life = {
      signal,
      running: () => {
        this.#health = "running";
        this.#decide();
      },
      fed: () => {
        this.#health = "running";
        this.#backoff.reset();
        lastReason = "";
      },
      idle: () => {
        this.#health = "idle";
        this.#backoff.reset();
        this.#decide();
      },
    };
    while (!signal.aborted) {
      const bornMs = clock.monotonicMs();
      try {
        await this.#options.live(life);
      } catch (error) {
        if (!signal.aborted) {
          const reason = describeError(error);
          meters.fault(reason);
          // A port that stays away fails the same way each time; once is enough to know.
          if (reason !== lastReason) log.warn({ reason }, "source failed, trying again");
          lastReason = reason;
        }
      }
      if (signal.aborted) break;
      // Also one that is quiet by its nature was well when it lived long.
      if (clock.monotonicMs() - bornMs > LONG_LIFE_MS) this.#backoff.reset();
      const waitMs = this.#backoff.nextMs();
      this.#health = "backing-off";
      this.#decide();
      this.#retryAtMs = clock.monotonicMs() + waitMs;
      await pause(waitMs, signal);
      this.#retryAtMs = undefined;
    }
    this.#health = "idle";
    this.#decide();
  }

  report(): SourceReport {
    const { name, type, meters, clock } = this.#options;
    const stopped = this.#loop === undefined || this.#stop.signal.aborted;
    const state = stopped
      ? "stopped"
      : this.#held
        ? "stalled"
        : this.#health === "running"
          ? "running"
          : "waiting";
    const retry = this.#retryAtMs;
    return {
      name,
      type,
      state,
      health: this.#health,
      ...(retry !== undefined && { retryInMs: Math.max(0, Math.round(retry - clock.monotonicMs())) }),
      ...meters.status(),
    };
  }

  /** @param work what the life left to be stored */
  async close(work?: Promise<unknown>): Promise<void> {
    this.#stop.abort();
    await Promise.race([Promise.allSettled([this.#loop, work]), pause(CLOSE_WAIT_MS)]);
  }
}
