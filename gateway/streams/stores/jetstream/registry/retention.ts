/**
 * How long the cluster keeps what streams hold. A change of a JetStream stream writes its whole configuration, so of two gateways'
 * changes at once, of the retention or of the replicas, one may put back what the other replaced. What the list of streams says
 * holds: where the cluster has had it otherwise for some seconds, whoever sees that sets it again.
 */
import { JetStreamApiError } from "@nats-io/jetstream";
import type { Clock } from "../../../../../runtime/clock.ts";
import { describeError } from "../../../../../runtime/errors.ts";
import type { Log } from "../../../../../runtime/log.ts";
import { LogFullError, StreamNotFoundError } from "../../../streams.ts";
import { STREAM_NOT_FOUND } from "../cluster/jet-streams.ts";
import { DUPLICATE_WINDOW_NS, type Link } from "../cluster/link.ts";
import type { JetStreamStream } from "../log/jetstream-stream.ts";

const HOUR_NS = 3_600 * 1_000_000_000;
/** Who changes it changes the cluster and the list one after the other. */
const WRONG_FOR_MS = 5_000;
/** Of a retention: who was heard since then is renewed in time by the next looks. */
const MAY_WAIT = 0.9;

/** Of a JetStream stream's configuration. */
export function retentionConfig(hours: number): { max_age: number; duplicate_window: number } {
  const maxAge = hours * HOUR_NS;
  return { max_age: maxAge, duplicate_window: Math.min(DUPLICATE_WINDOW_NS, maxAge) };
}

export interface RetentionOptions {
  readonly link: Link;
  readonly clock: Clock;
  readonly log: Log;
  /** Has a JetStream stream kept on as many nodes as the config says, in the background. */
  readonly replicate: (stream: string) => void;
}

export class Retention {
  readonly #options: RetentionOptions;
  /** Those that the cluster keeps otherwise than the list says → since when that is seen. */
  readonly #wrongSinceMs = new WeakMap<JetStreamStream, number>();
  readonly #setting = new Set<Promise<void>>();

  constructor(options: RetentionOptions) {
    this.#options = options;
  }

  /** @throws StreamNotFoundError, LogFullError */
  async set(stream: JetStreamStream, hours: number): Promise<void> {
    const retentionMs = hours * 3_600_000;
    // What is remembered of producers must not be older than what is kept.
    await stream.renewProducers(retentionMs, "now").catch((error: unknown) => {
      // A shorter retention makes room, and then there is time to renew them.
      if (!(error instanceof LogFullError) || stream.remembersBefore(retentionMs * MAY_WAIT)) throw error;
    });
    await this.#options.link.streams.update(stream.stream, retentionConfig(hours)).catch((error: unknown) => {
      const isGone = error instanceof JetStreamApiError && error.code === STREAM_NOT_FOUND;
      throw isGone ? new StreamNotFoundError(stream.name) : error;
    });
    // A gateway that starts may have raised them between what was read for that and what was written.
    this.#options.replicate(stream.stream);
  }

  /** @param hours as the list of streams says. Called again and again. */
  look(stream: JetStreamStream, hours: number): void {
    const { clock, log } = this.#options;
    const { maxAgeNs } = stream.tail;
    if (maxAgeNs === retentionConfig(hours).max_age) {
      this.#wrongSinceMs.delete(stream);
      return;
    }
    const nowMs = clock.monotonicMs();
    const sinceMs = this.#wrongSinceMs.get(stream);
    if (sinceMs === undefined) this.#wrongSinceMs.set(stream, nowMs);
    if (sinceMs === undefined || nowMs - sinceMs < WRONG_FOR_MS) return;
    // While it is being set, and until the cluster was asked again, it is not set once more.
    this.#wrongSinceMs.set(stream, Infinity);
    const kept = { stream: stream.name, retentionHours: hours, keptHours: maxAgeNs / HOUR_NS };
    const done = this.set(stream, hours)
      .then(() => log.warn(kept, "the cluster kept a stream for another time than was said; mended"))
      .catch((error: unknown) => {
        const text = "the cluster keeps a stream for another time than was said; it is set again";
        if (!stream.tail.closed) log.error({ ...kept, error: describeError(error) }, text);
      })
      .finally(() => {
        this.#wrongSinceMs.delete(stream);
        this.#setting.delete(done);
      });
    this.#setting.add(done);
  }

  /** Resolves when nothing is under way any more. */
  async close(): Promise<void> {
    await Promise.all(this.#setting);
  }
}
