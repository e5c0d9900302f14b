/**
 * For how long the cluster has answered nothing: no node is reached, the one that is hangs, or no majority is left to choose a
 * leader. Asked once a second whatever comes, so that it is known without a record, and known to be over as well.
 */
import type { Clock } from "../../../../../runtime/clock.ts";
import type { Log } from "../../../../../runtime/log.ts";
import type { Metrics } from "../../../../../runtime/metrics.ts";

/** A new leader is chosen within some seconds. */
export const SILENT_MS = 10_000;

export class Silence {
  readonly #clock: Clock;
  readonly #log: Log;
  #answeredMs: number;
  #isSaid = false;

  constructor({ clock, log, metrics }: { clock: Clock; log: Log; metrics: Metrics }) {
    this.#clock = clock;
    this.#log = log;
    this.#answeredMs = clock.monotonicMs();
    const silence = this;
    const what =
      "Seconds since the NATS cluster last said which streams there are; it is asked once a second";
    metrics.gauge("headwater_jetstream_silent_seconds", what, [], function () {
      this.set(silence.#ms / 1000);
    });
  }

  get #ms(): number {
    return this.#clock.monotonicMs() - this.#answeredMs;
  }

  /** Why nothing can be stored or changed; undefined unless it is silent for {@link SILENT_MS}. */
  get why(): string | undefined {
    return this.#ms < SILENT_MS ? undefined : "the NATS cluster does not answer";
  }

  answered(): void {
    if (this.#isSaid) this.#log.info({ silentMs: Math.round(this.#ms) }, "the NATS cluster answers again");
    this.#isSaid = false;
    this.#answeredMs = this.#clock.monotonicMs();
  }

  /** Once a second. */
  look(): void {
    if (this.#isSaid || this.why === undefined) return;
    this.#isSaid = true;
    this.#log.error({ silentMs: Math.round(this.#ms) }, this.why);
  }
}
