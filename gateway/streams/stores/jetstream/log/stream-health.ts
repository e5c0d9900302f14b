/** Whether the cluster still has what it acknowledged of one stream; said in the log where it does not. */
import type { Clock } from "../../../../../runtime/clock.ts";
import type { Log } from "../../../../../runtime/log.ts";

/** A leader that has just been chosen may lag behind its own log, but not for so long. */
const LOST_AFTER_MS = 30_000;

export interface StreamHealthOptions {
  readonly clock: Clock;
  readonly log: Log;
  /** Of the Headwater stream, and of the JetStream stream. */
  readonly name: string;
  readonly stream: string;
}

export class StreamHealth {
  readonly #options: StreamHealthOptions;
  #shortSinceMs: number | undefined;
  #goneSinceMs: number | undefined;
  /** The cluster took back what it had acknowledged: what is known here does not hold any more. */
  isLost = false;

  constructor(options: StreamHealthOptions) {
    this.#options = options;
  }

  /** @param heard the newest message that this gateway has heard of, taken or not. @param kept the newest one that the cluster has */
  hasUpTo(kept: number, heard: number): void {
    const { clock, log, name } = this.#options;
    const nowMs = clock.monotonicMs();
    this.#goneSinceMs = undefined;
    if (kept >= heard) {
      this.#shortSinceMs = undefined;
      return;
    }
    // Nodes that lost power before they had synced may take back what they acknowledged.
    this.#shortSinceMs ??= nowMs;
    if (this.isLost || nowMs - this.#shortSinceMs < LOST_AFTER_MS) return;
    this.isLost = true;
    log.error(
      { stream: name, acknowledged: heard, kept },
      "the NATS cluster lost messages that it had acknowledged; the stream goes on behind those that are left",
    );
  }

  /** There is no such stream. Mostly another gateway deleted it, and the list of streams will say so within a second. */
  isGone(): void {
    const { clock, log, name, stream } = this.#options;
    const nowMs = clock.monotonicMs();
    this.#goneSinceMs ??= nowMs;
    if (nowMs - this.#goneSinceMs < LOST_AFTER_MS) return;
    this.#goneSinceMs = nowMs;
    const hint = "restore it, or delete the stream";
    log.error(
      { name, stream },
      `a stream's JetStream stream was taken away, and its records with it; ${hint}`,
    );
  }
}
