/** Lets through as much at a time as there is room for: first come, first served. */
export class Turnstile {
  readonly #limit: number;
  readonly #waiting: Array<{ readonly amount: number; readonly pass: () => void }> = [];
  #taken = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** What is taken and not given back. */
  get taken(): number {
    return this.#taken;
  }

  /** Whether `amount` would have to wait. */
  isFull(amount: number): boolean {
    return this.#waiting.length > 0 || !this.#fits(amount);
  }

  /** More than the limit is let through alone. Each `take` asks for one `give` of as much. */
  take(amount: number): Promise<void> {
    if (this.isFull(amount)) return new Promise((pass) => this.#waiting.push({ amount, pass }));
    this.#taken += amount;
    return Promise.resolve();
  }

  give(amount: number): void {
    this.#taken -= amount;
    while (this.#waiting.length > 0 && this.#fits(this.#waiting[0]!.amount)) {
      const { amount: next, pass } = this.#waiting.shift()!;
      this.#taken += next;
      pass();
    }
  }

  /** Takes `amount` while `work` is done, and gives it back however that ends. */
  async run<T>(amount: number, work: () => Promise<T>): Promise<T> {
    await this.take(amount);
    try {
      return await work();
    } finally {
      this.give(amount);
    }
  }

  #fits(amount: number): boolean {
    return this.#taken === 0 || this.#taken + amount <= this.#limit;
  }
}
