/** Work that is done again and again at a steady pace until it is stopped. What fails is told, and goes on. */
import { setMaxListeners } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";

export class Loops {
  readonly #stopping = new AbortController();
  readonly #running: Array<Promise<void>> = [];
  readonly #onFailure: (what: string, error: unknown) => void;

  constructor(onFailure: (what: string, error: unknown) => void) {
    this.#onFailure = onFailure;
    // Every loop waits for it.
    setMaxListeners(0, this.#stopping.signal);
  }

  get stopped(): boolean {
    return this.#stopping.signal.aborted;
  }

  /** Begins a period at the earliest `periodMs` after the last one began; what was missed is not made up for. */
  every(what: string, periodMs: number, work: () => Promise<void>): void {
    const run = async (): Promise<void> => {
      // Not all at the same moment.
      await this.wait(Math.random() * periodMs);
      while (!this.stopped) {
        const began = performance.now();
        try {
          await work();
        } catch (error) {
          if (!this.stopped) this.#onFailure(what, error);
        }
        await this.wait(began + periodMs - performance.now());
      }
    };
    this.#running.push(run());
  }

  /** Ends early when the loops are stopped. */
  async wait(ms: number): Promise<void> {
    await sleep(Math.max(0, ms), undefined, { signal: this.#stopping.signal }).catch(() => {});
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await Promise.all(this.#running);
  }
}
