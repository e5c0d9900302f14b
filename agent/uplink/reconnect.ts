/**
 * How long an uplink waits before it connects again. Every wait is drawn at random, so that the agents
 * of a farm, which all lose their gateway at the same moment, do not all come back at the same moment.
 *
 *   broken             full jitter below a ceiling that doubles, until a connection was worth something
 *   the gateway asked  what it asked for, doubled each time that it asks again without taking anything
 *   the first time     nothing; a little after a boot, as power returns to a whole farm at once
 */
import type { Backoff } from "../../runtime/backoff.ts";

/** A connection that held for so long is worth something, also when there was nothing to send. */
const WORTH_MS = 10_000;
/** A gateway that takes nothing is asked at least so often, on average. */
const LONGEST_BUSY_MS = 10_000;
/** An agent that starts within this time of the boot was started by it. */
const BOOT_MS = 180_000;
const FIRST_WAIT_MS = 2_000;
/** A link that holds for so long gets much through, whatever it did before. */
const STEADY_MS = 60_000;

export class ReconnectWaits {
  readonly #backoff: Backoff;
  readonly #random: () => number;
  #busyInARow = 0;
  #hasProgress = false;
  /** The link broke before the gateway had acknowledged anything. */
  #isFragile = false;

  constructor(backoff: Backoff, random: () => number = Math.random) {
    this.#backoff = backoff;
    this.#random = random;
  }

  /** The gateway acknowledged something. */
  progress(): void {
    this.#backoff.reset();
    this.#busyInARow = 0;
    this.#hasProgress = true;
  }

  /** Much would not get through, as far as is known: the gateway takes nothing, or the link breaks before it could. */
  get beginsWithLittle(): boolean {
    return this.#busyInARow > 0 || this.#isFragile;
  }

  /** @param sinceBootMs undefined when that is not known */
  firstMs(sinceBootMs: number | undefined): number {
    return sinceBootMs !== undefined && sinceBootMs < BOOT_MS ? this.#random() * FIRST_WAIT_MS : 0;
  }

  /** @param heldMs for how long it was connected; 0 when it never was @param askedMs by the gateway */
  nextMs(heldMs: number, askedMs?: number): number {
    if (this.#hasProgress && heldMs >= STEADY_MS) this.#isFragile = false;
    else if (heldMs > 0 && !this.#hasProgress && askedMs === undefined) this.#isFragile = true;
    this.#hasProgress = false;
    if (askedMs !== undefined) {
      const waitMs = Math.min(askedMs * 2 ** this.#busyInARow, Math.max(askedMs, LONGEST_BUSY_MS));
      this.#busyInARow = Math.min(this.#busyInARow + 1, 30);
      // At least half of what was asked; the rest at random.
      return waitMs * (0.5 + this.#random());
    }
    if (heldMs >= WORTH_MS) this.#backoff.reset();
    return this.#backoff.nextMs();
  }
}
