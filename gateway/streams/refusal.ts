/**
 * Why a stream refuses what is appended, as long as that is news. A load balancer that goes by `/healthz` sends nothing to a
 * gateway that is failing, so that no append would ever tell that it takes them again: where none was refused for a
 * while nothing is known, and the next one may come.
 */

/** Longer than most load balancers take between two looks. */
export const NEWS_MS = 30_000;

export class Refusal {
  readonly #monotonicMs: () => number;
  #why: string | undefined;
  #untilMs = 0;

  constructor(monotonicMs: () => number) {
    this.#monotonicMs = monotonicMs;
  }

  /** Undefined when something was stored since, or nothing was refused for {@link NEWS_MS}. */
  get why(): string | undefined {
    if (this.#why !== undefined && this.#monotonicMs() >= this.#untilMs) this.#why = undefined;
    return this.#why;
  }

  /** An append was refused that could not be written. */
  refused(why: string): void {
    this.#why = why;
    this.#untilMs = this.#monotonicMs() + NEWS_MS;
  }

  stored(): void {
    this.#why = undefined;
  }
}
