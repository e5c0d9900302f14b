/** Ends after `ms`, when `signal` aborts, or when told; leaves neither timer nor listener behind. */
export class Wait {
  readonly over: Promise<void>;
  readonly #over = new AbortController();
  readonly #timer: NodeJS.Timeout;
  readonly #outer: AbortSignal;

  constructor(outer: AbortSignal, ms: number) {
    this.#outer = outer;
    this.#timer = setTimeout(this.end, ms);
    this.over = new Promise((resolve) => {
      this.signal.addEventListener("abort", () => resolve(), { once: true });
    });
    outer.addEventListener("abort", this.end, { once: true });
    if (outer.aborted) this.end();
  }

  get signal(): AbortSignal {
    return this.#over.signal;
  }

  readonly end = (): void => {
    clearTimeout(this.#timer);
    this.#outer.removeEventListener("abort", this.end);
    this.#over.abort();
  };
}
