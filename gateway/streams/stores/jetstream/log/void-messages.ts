/** Those of the taken messages that do not count; the newest are remembered, bounded. */

const MAX_VOID = 10_000;

export class VoidMessages {
  readonly #sequences = new Set<number>();
  /** Of what was taken from here on it is known whether it counts. */
  judgedFrom = 0;

  has(sequence: number): boolean {
    return this.#sequences.has(sequence);
  }

  add(sequence: number): void {
    this.#sequences.add(sequence);
    if (this.#sequences.size <= MAX_VOID) return;
    const oldest = this.#sequences.values().next().value!;
    this.#sequences.delete(oldest);
    this.judgedFrom = oldest + 1;
  }
}
