/** Readers that wait for a shard to grow. */
export class Listeners {
  readonly #checks = new Map<number, Set<() => void>>();
  #waiting = 0;

  /** How many wait, for whichever shard. */
  get waiting(): number {
    return this.#waiting;
  }

  /** Resolves as soon as `satisfied` holds, looked at now and at each check, or `signal` aborts. */
  wait(shard: number, satisfied: () => boolean, signal: AbortSignal): Promise<void> {
    if (signal.aborted || satisfied()) return Promise.resolve();
    return new Promise((resolve) => {
      const checks = this.#checks.get(shard) ?? new Set();
      this.#checks.set(shard, checks);
      const end = (): void => {
        if (checks.delete(check)) this.#waiting--;
        if (checks.size === 0 && this.#checks.get(shard) === checks) this.#checks.delete(shard);
        signal.removeEventListener("abort", end);
        resolve();
      };
      const check = (): void => {
        if (satisfied()) end();
      };
      checks.add(check);
      this.#waiting++;
      signal.addEventListener("abort", end, { once: true });
    });
  }

  check(shard: number): void {
    for (const check of [...(this.#checks.get(shard) ?? [])]) check();
  }

  checkAll(): void {
    for (const shard of [...this.#checks.keys()]) this.check(shard);
  }
}
