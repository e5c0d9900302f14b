/** When the next message is due: an even beat that does not drift, whatever the timers do. */
import type { Clock } from "../runtime/clock.ts";

/** After a long stop (a suspended machine) no more than so many messages are made up for. */
const MAX_CATCH_UP = 100;

export class Pace {
  readonly #hz: number;
  readonly #clock: Clock;
  #startMs: number;
  #taken = 0;

  /** @param phase 0 to 1: how far into its first beat it starts */
  constructor(hz: number, clock: Clock, phase = 0) {
    this.#hz = hz;
    this.#clock = clock;
    this.#startMs = clock.monotonicMs() - (phase * 1_000) / hz;
  }

  /** How many messages have become due since the last call. */
  due(): number {
    const beats = Math.floor(((this.#clock.monotonicMs() - this.#startMs) / 1_000) * this.#hz);
    const due = beats - this.#taken;
    this.#taken = beats;
    return Math.min(due, MAX_CATCH_UP);
  }

  /** How often to ask, so that no message is late by more than a fraction of its beat. */
  static intervalMs(hz: number): number {
    return Math.max(2, Math.min(50, 250 / hz));
  }
}
