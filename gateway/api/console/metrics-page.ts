/**
 * The text of /metrics, for any number of people who ask. To put it together takes milliseconds, and where it is
 * open, anybody may ask a thousand times in one packet. So those who ask at once share one text, and most of the
 * time none is made. Nobody gets a text that was begun before they asked.
 */
import { pause } from "../../../runtime/backoff.ts";
import type { Clock } from "../../../runtime/clock.ts";
import type { Metrics } from "../../../runtime/metrics.ts";

/** Of the time that the last one took: at most a fifth goes into texts. */
const REST_FACTOR = 4;
/** Each text may be held by somebody who does not read it: there are not many within a connection's life. */
const MIN_REST_MS = 100;
const MAX_REST_MS = 1_000;

export class MetricsPage {
  readonly #metrics: Metrics;
  readonly #clock: Clock;
  /** For those who ask now; undefined when nobody has since the last one was begun. */
  #next: Promise<Buffer> | undefined;
  /** Until the last one is done and the rest behind it over. */
  #rested: Promise<void> = Promise.resolve();

  constructor(metrics: Metrics, clock: Clock) {
    this.#metrics = metrics;
    this.#clock = clock;
  }

  get contentType(): string {
    return this.#metrics.contentType;
  }

  /** Its bytes belong to all who asked. */
  text(): Promise<Buffer> {
    this.#next ??= this.#rested.then(() => this.#render());
    return this.#next;
  }

  #render(): Promise<Buffer> {
    this.#next = undefined;
    const begunMs = this.#clock.monotonicMs();
    const rendered = this.#metrics.render().then((text) => Buffer.from(text));
    const rest = (): Promise<void> => {
      const tookMs = this.#clock.monotonicMs() - begunMs;
      return pause(Math.min(MAX_REST_MS, Math.max(MIN_REST_MS, REST_FACTOR * tookMs)));
    };
    // Whoever asked hears what went wrong.
    this.#rested = rendered.then(rest, rest);
    return rendered;
  }
}
