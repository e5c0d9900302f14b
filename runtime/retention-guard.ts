/**
 * Keeps a wall clock that jumps ahead from emptying a store: what it says is compared with a
 * clock that cannot jump, and what it is ahead by is believed only after an hour.
 */
import type { Clock } from "./clock.ts";

/** What the wall clock may gain on the other between two looks; more is a jump. */
export const MAX_DRIFT_MS = 3_600_000;
/** How long a jump must last to be believed: time for a time server to correct it, or for somebody to notice. */
export const HOLD_MS = 3_600_000;

export class RetentionGuard {
  readonly #clock: Clock;
  #wallMs: number;
  #steadyMs: number;
  #heldSinceMs: number | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#wallMs = this.#nowMs();
    this.#steadyMs = clock.monotonicMs();
  }

  /** Whether anything may be removed by what the wall clock says now. `jumpedMs` is told once a jump. */
  look(): { readonly hold: boolean; readonly jumpedMs: number | undefined } {
    const wallMs = this.#nowMs();
    const steadyMs = this.#clock.monotonicMs();
    const aheadMs = wallMs - this.#wallMs - (steadyMs - this.#steadyMs);
    const began = this.#heldSinceMs === undefined;
    if (aheadMs > MAX_DRIFT_MS && steadyMs - (this.#heldSinceMs ?? steadyMs) < HOLD_MS) {
      this.#heldSinceMs ??= steadyMs;
      return { hold: true, jumpedMs: began ? aheadMs : undefined };
    }
    this.#heldSinceMs = undefined;
    this.#wallMs = wallMs;
    this.#steadyMs = steadyMs;
    return { hold: false, jumpedMs: undefined };
  }

  #nowMs(): number {
    return Math.floor(this.#clock.nowUs() / 1000);
  }
}
