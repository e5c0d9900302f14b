/**
 * A share of places for each of those who want some: one may take more as long as it has no more than a multiple of
 * what is still free. So nobody takes all, however many try (dynamic thresholds: Choudhury and Hahne, IEEE/ACM
 * Transactions on Networking 6 (2), 1998), and who has none always gets one where there is one.
 */

/** Alone one may have three quarters of all, and two three sevenths each. */
const TIMES_FREE = 3;

export class FairShares {
  readonly #max: number;
  /** By whose they are; those without any are left out. */
  readonly #held = new Map<string, number>();
  #taken = 0;

  constructor(max: number) {
    this.#max = max;
  }

  /** @returns false, having taken nothing, for one beyond its share */
  take(who: string): boolean {
    const held = this.#held.get(who) ?? 0;
    if (held >= TIMES_FREE * (this.#max - this.#taken)) return false;
    this.#held.set(who, held + 1);
    this.#taken++;
    return true;
  }

  /** One that was taken. */
  give(who: string): void {
    const held = this.#held.get(who)!;
    if (held === 1) this.#held.delete(who);
    else this.#held.set(who, held - 1);
    this.#taken--;
  }
}

/**
 * Of places that are all taken, the one to make room.
 * @param all the oldest first
 * @param whoseOf undefined for a stranger's
 * @returns the oldest that is a stranger's or beyond its owner's share; undefined where there is none
 */
export function firstToGo<T>(
  all: Iterable<T>,
  max: number,
  whoseOf: (one: T) => string | undefined,
): T | undefined {
  const shares = new FairShares(max);
  for (const one of all) {
    const who = whoseOf(one);
    if (who === undefined || !shares.take(who)) return one;
  }
  return undefined;
}
