/** Rules of the link that do as a test says. Unless it says otherwise everything may go, at once. */
import type { UplinkRules } from "../../../agent/uplink/link-rules.ts";

export class StandInRules implements UplinkRules {
  readonly mode = "full";
  readonly statusSeconds = 3_600;
  /** Streams that may not go. */
  readonly held: Set<string>;
  /** So many publishes leave, and those behind them wait until `open` is called. */
  readonly #publishes: number;
  /** The publish, from 1, that is told that it will not leave, though no turn has ended. */
  readonly #refused: number | undefined;
  readonly #listeners = new Set<() => void>();
  #asked = 0;
  #open = (): void => {};
  readonly #opened = new Promise<void>((resolve) => {
    this.#open = resolve;
  });

  constructor(
    says: { readonly held?: readonly string[]; readonly publishes?: number; readonly refused?: number } = {},
  ) {
    this.held = new Set(says.held);
    this.#publishes = says.publishes ?? Number.POSITIVE_INFINITY;
    this.#refused = says.refused;
  }

  readonly pacer = {
    take: async (): Promise<boolean> => {
      const publish = ++this.#asked;
      if (publish > this.#publishes) await this.#opened;
      return publish !== this.#refused;
    },
    publishBytes: (wanted: number): number => wanted,
    charge: (): void => {},
  };

  open(): void {
    this.#open();
  }

  toggle(stream: string): void {
    if (!this.held.delete(stream)) this.held.add(stream);
    for (const listener of [...this.#listeners]) listener();
  }

  sends(stream: string): boolean {
    return !this.held.has(stream);
  }

  async gather(): Promise<void> {}

  async mayGo(): Promise<void> {}

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}
