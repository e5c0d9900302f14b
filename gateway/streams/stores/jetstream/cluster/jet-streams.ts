/**
 * The streams of a NATS cluster themselves: made, changed, listed, emptied and removed. What nobody answers,
 * as during an election, is asked again; what the cluster refuses stays refused.
 */
import {
  type ApiError,
  JetStreamApiError,
  type JetStreamManager,
  type StreamConfig,
} from "@nats-io/jetstream";
import { Backoff, pause } from "../../../../../runtime/backoff.ts";
import { HeadwaterError } from "../../../../../runtime/errors.ts";
import { StreamLimitError } from "../../../streams.ts";
import { isForbidden, RIGHTS_HINT } from "./unanswered.ts";

/** The cluster cannot be used as it is set up. */
export class JetStreamUnfitError extends HeadwaterError {
  constructor(message: string, hint: string, cause?: unknown) {
    super("JETSTREAM_UNFIT", { message, hint, cause });
  }
}

export const STREAM_NOT_FOUND = 10_059;
const STREAMS_LIMIT = 10_027;
/**
 * That its subjects are another stream's. Nothing here changes subjects: nats-server 2.10.27 says so of a stream's own where another
 * change of it came between (4 in 540 changes by three at once).
 */
const SUBJECTS_OVERLAP = 10_065;

/** Asks until an answer settles it. @param what for the error when none does */
export type Insist = <T extends { readonly error?: ApiError }>(
  what: string,
  ask: () => Promise<T>,
  settled: (answer: T) => boolean,
) => Promise<T>;

export class JetStreams {
  readonly #jsm: JetStreamManager;
  readonly #insist: Insist;
  readonly #signal: AbortSignal;

  /** @param signal ends what waits */
  constructor(jsm: JetStreamManager, insist: Insist, signal: AbortSignal) {
    this.#jsm = jsm;
    this.#insist = insist;
    this.#signal = signal;
  }

  /** Makes it; where it is there already it stays as it is. @throws JetStreamUnfitError, StreamLimitError */
  async make(config: Partial<StreamConfig> & { name: string }): Promise<void> {
    const backoff = new Backoff(50, 1_000);
    for (let tries = 0; ; tries++) {
      try {
        await this.#jsm.streams.add(config);
        return;
      } catch (error) {
        if (/already in use/.test(String(error))) return;
        if (error instanceof JetStreamApiError && error.code === STREAMS_LIMIT) {
          const hint = "raise max_streams of its account on the NATS servers, or delete streams";
          throw new StreamLimitError("the NATS cluster takes no more streams of this gateway", hint, error);
        }
        if (isForbidden(error))
          throw new JetStreamUnfitError(
            `NATS refused to make ${config.name}: ${String(error)}`,
            RIGHTS_HINT,
            error,
          );
        if (tries >= 20 || this.#signal.aborted) {
          const hint =
            "check that JetStream is enabled and that the cluster has as many nodes as store.jetstream.replicas";
          throw new JetStreamUnfitError(`NATS refused to make ${config.name}: ${String(error)}`, hint, error);
        }
        await pause(50 + backoff.nextMs(), this.#signal);
      }
    }
  }

  async update(name: string, change: Partial<StreamConfig>): Promise<void> {
    await this.#ask(`changing ${name}`, () => this.#jsm.streams.update(name, change));
  }

  /** Has it kept on so many nodes, at least: fewer would undo what another gateway's config says. @returns whether it was not */
  async replicate(name: string, replicas: number): Promise<boolean> {
    const { config } = await this.#ask(`looking at ${name}`, () => this.#jsm.streams.info(name));
    if (config.num_replicas >= replicas) return false;
    await this.update(name, { num_replicas: replicas });
    return true;
  }

  /** The names of all that begin so. */
  names(prefix: string): Promise<string[]> {
    return this.#ask("listing the streams", async () => {
      const names: string[] = [];
      for await (const name of this.#jsm.streams.names()) if (name.startsWith(prefix)) names.push(name);
      return names;
    });
  }

  /** Safe to repeat. */
  async remove(name: string): Promise<void> {
    await this.#ask(`removing ${name}`, () => this.#jsm.streams.delete(name)).catch((error: unknown) => {
      if (!(error instanceof JetStreamApiError && error.code === STREAM_NOT_FOUND)) throw error;
    });
  }

  /** Removes all messages of the subjects. */
  async purge(name: string, filter: string): Promise<void> {
    await this.#ask(`purging ${filter}`, () => this.#jsm.streams.purge(name, { filter }));
  }

  async #ask<T>(what: string, work: () => Promise<T>): Promise<T> {
    const answer = await this.#insist<{ value?: T; refused?: JetStreamApiError; error?: ApiError }>(
      what,
      async () => {
        try {
          return { value: await work() };
        } catch (error) {
          // 503: temporarily unavailable.
          if (!(error instanceof JetStreamApiError) || error.status >= 500) throw error;
          if (error.code === SUBJECTS_OVERLAP) throw error;
          return { refused: error, error: error.apiError() };
        }
      },
      () => true,
    );
    if (answer.refused !== undefined) throw answer.refused;
    return answer.value as T;
  }
}
