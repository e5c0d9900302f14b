/**
 * A number of places for what takes much memory while it lasts: whoever finds none free waits, the first
 * to come being the first to get one.
 */
export class Places {
  #free: number;
  readonly #waiting: Array<() => void> = [];

  constructor(places: number) {
    this.#free = places;
  }

  /** Runs `work` in a place, at once if one is free, and frees it however that ends. */
  async run<T>(work: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free--;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      // Handed on, so that nobody who comes now gets in before those who wait.
      if (next !== undefined) next();
      else this.#free++;
    }
  }
}
