/**
 * Looks once a second at what waits, to tell when a backlog will be drained, and remembers how old
 * live records were of late when the gateway had them.
 */
import type { Clock } from "../../runtime/clock.ts";
import { BACKLOG_US } from "./lanes.ts";

/** What an operator asks of the uplink while it has much to send. */
export interface UplinkWork {
  /** Since the agent began, what was sent again counted again. */
  readonly sent?: {
    readonly frameBytes: number;
    /** Of the publishes that carried the frames, compressed where it pays. */
    readonly wireBytes: number;
  };
  /** There while others with this device's identity end its connections, as the gateway says. */
  readonly contested?: true;
  /** There while live-first streams are sent beside a backlog. */
  readonly live?: {
    /** From storing to acknowledgement, the longest of the last ten seconds; absent when none went. */
    readonly latencyMs?: number;
  };
  /** There while records that were stored longer ago wait. */
  readonly backlog?: {
    /** At the speed of the last half minute; absent while it does not shrink. */
    readonly drainedInMs?: number;
  };
}

export interface UplinkWatchOptions {
  readonly clock: Clock;
  readonly waiting: () => { readonly waitingBytes: number; readonly oldestUs: number | undefined };
  readonly split: () => boolean;
}

const EVERY_MS = 1_000;
const LOOKS = 30;
const LATENCY_MS = 10_000;

export class UplinkWatch {
  readonly #options: UplinkWatchOptions;
  #looks: { readonly atMs: number; readonly bytes: number }[] = [];
  /** Falling from the first to the last: one that is below a later one will never be the longest. */
  #live: { readonly atMs: number; readonly latencyMs: number }[] = [];
  #timer: NodeJS.Timeout | undefined;

  constructor(options: UplinkWatchOptions) {
    this.#options = options;
  }

  start(): void {
    this.#timer ??= setInterval(() => this.look(), EVERY_MS);
    this.#timer.unref();
  }

  close(): void {
    clearInterval(this.#timer);
  }

  look(): void {
    const bytes = this.#options.waiting().waitingBytes;
    this.#looks.push({ atMs: this.#options.clock.monotonicMs(), bytes });
    if (this.#looks.length > LOOKS) this.#looks.shift();
  }

  liveAcknowledged(latencyMs: number): void {
    while ((this.#live.at(-1)?.latencyMs ?? Number.POSITIVE_INFINITY) <= latencyMs) this.#live.pop();
    this.#live.push({ atMs: this.#options.clock.monotonicMs(), latencyMs });
    this.#forgetOld();
  }

  #forgetOld(): void {
    const fromMs = this.#options.clock.monotonicMs() - LATENCY_MS;
    this.#live = this.#live.filter(({ atMs }) => atMs >= fromMs);
  }

  work(): UplinkWork {
    const { clock, waiting, split } = this.#options;
    const { oldestUs } = waiting();
    this.#forgetOld();
    const [longest] = this.#live;
    const isBacklog = oldestUs !== undefined && clock.nowUs() - oldestUs > BACKLOG_US;
    const drainedInMs = this.#drainedInMs();
    return {
      ...(split() && { live: longest === undefined ? {} : { latencyMs: Math.round(longest.latencyMs) } }),
      ...(isBacklog && { backlog: drainedInMs === undefined ? {} : { drainedInMs } }),
    };
  }

  #drainedInMs(): number | undefined {
    const [first, last] = [this.#looks.at(0), this.#looks.at(-1)];
    if (first === undefined || last === undefined || first.bytes <= last.bytes) return undefined;
    return Math.round((last.bytes * (last.atMs - first.atMs)) / (first.bytes - last.bytes));
  }
}
