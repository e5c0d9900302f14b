/**
 * How old that is which a failing delivery leaves undelivered. A try that fails takes with it what it had counted, and the next
 * one may not get as far as to see it; so the age is kept from one try to the next, until a cut is finished or nothing waits.
 */
import type { Clock } from "../../runtime/clock.ts";
import { recordsBetween, type Streams } from "../streams/streams.ts";

export interface HeldUpOptions {
  readonly streams: Streams;
  readonly stream: string;
  /** The delivery's name as a consumer. */
  readonly consumer: string;
  readonly clock: Clock;
}

export class HeldUp {
  readonly #options: HeldUpOptions;
  /** On the clock that is never set. */
  #sinceMs: number | undefined;

  constructor(options: HeldUpOptions) {
    this.#options = options;
  }

  /** 0 where nothing is held up. */
  get ms(): number {
    return this.#sinceMs === undefined ? 0 : this.#options.clock.monotonicMs() - this.#sinceMs;
  }

  forget(): void {
    this.#sinceMs = undefined;
  }

  /** A try has failed. @param ageMs of what it knew to be undelivered; 0 where it knew of nothing */
  async failed(ageMs: number): Promise<void> {
    const { clock, stream, streams } = this.#options;
    if (!streams.listStreams().includes(stream)) this.forget();
    else if (ageMs > 0 || (await this.#isBehind())) this.#sinceMs = clock.monotonicMs() - ageMs;
  }

  /** Of a try that failed before it had read anything. */
  async #isBehind(): Promise<boolean> {
    const { consumer, stream, streams } = this.#options;
    // It would not be answered, and tells by itself that somebody should look.
    if (streams.unreachable !== undefined) return false;
    try {
      const known = await streams.consumers(stream);
      const positions = known.find(({ name }) => name === consumer)?.positions;
      return streams.describe(stream).shardList.some(({ shardId, trimHorizon, latest }) => {
        const from = Math.max(trimHorizon, positions?.get(shardId) ?? 0);
        return from < latest && recordsBetween(streams, stream, shardId, from, latest) > 0;
      });
    } catch {
      // Deleted at this moment, or not to be asked: the next try says so itself.
      return false;
    }
  }
}
