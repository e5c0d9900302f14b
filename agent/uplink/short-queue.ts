/**
 * How much of a backlog may be on a connection so that what comes behind it need not wait long: as much
 * as keeps the queue before the gateway below a target. What a publish waits for its acknowledgement
 * longer than the quickest one did, it waited in that queue.
 *
 * Additive increase, multiplicative decrease, by delay instead of loss, as LEDBAT does (RFC 6817).
 */
export interface ShortQueueOptions {
  readonly startBytes: number;
  readonly minBytes: number;
  readonly maxBytes: number;
  /** What a publish may wait longer than the quickest one. */
  readonly targetMs: number;
}

/** So many are under way. */
const PUBLISHES = 8;
const DECREASE = 0.75;
/** Of the limit, for each acknowledgement. */
const INCREASE = 1 / 32;
/** Where the way itself takes long, such a share of it more is no matter. */
const LONG_WAY = 1 / 4;
/** The quickest one is of so many last acknowledgements at least, as routes change. */
const REMEMBERED = 1_000;

export class ShortQueue {
  readonly #options: ShortQueueOptions;
  #limitBytes: number;
  #quickestMs = Number.POSITIVE_INFINITY;
  /** Of the acknowledgements that are counted now; they take the others' place. */
  #nextQuickestMs = Number.POSITIVE_INFINITY;
  #counted = 0;
  #decreasedMs = Number.NEGATIVE_INFINITY;

  constructor(options: ShortQueueOptions) {
    this.#options = options;
    this.#limitBytes = Math.min(options.startBytes, options.maxBytes);
  }

  get limitBytes(): number {
    return Math.floor(this.#limitBytes);
  }

  /** Many small publishes: each is a queue of its own length. */
  get publishBytes(): number {
    return Math.max(1, Math.floor(this.#limitBytes / PUBLISHES));
  }

  /**
   * @param sentMs when the publish left
   * @param wasFull whether more would have been sent had it been allowed
   */
  acknowledged(sentMs: number, nowMs: number, wasFull: boolean): void {
    const { minBytes, maxBytes } = this.#options;
    const delayMs = nowMs - sentMs;
    this.#notice(delayMs);
    const targetMs = Math.max(this.#options.targetMs, this.#quickestMs * LONG_WAY);
    const queuedMs = delayMs - this.#quickestMs;
    if (queuedMs > targetMs) {
      // What left before the last decrease says nothing of what it changed.
      if (sentMs < this.#decreasedMs) return;
      this.#decreasedMs = nowMs;
      this.#limitBytes = Math.max(Math.min(minBytes, maxBytes), this.#limitBytes * DECREASE);
    } else if (wasFull && queuedMs < targetMs / 2) {
      this.#limitBytes = Math.min(maxBytes, this.#limitBytes * (1 + INCREASE));
    }
  }

  #notice(delayMs: number): void {
    this.#quickestMs = Math.min(this.#quickestMs, delayMs);
    this.#nextQuickestMs = Math.min(this.#nextQuickestMs, delayMs);
    if (++this.#counted < REMEMBERED) return;
    this.#quickestMs = this.#nextQuickestMs;
    this.#nextQuickestMs = Number.POSITIVE_INFINITY;
    this.#counted = 0;
  }
}
