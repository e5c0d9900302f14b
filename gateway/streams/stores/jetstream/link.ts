/**
 * The connection to the NATS cluster: publishes that are stored once however often they are sent,
 * and reads by sequence. Knows nothing of records and shards.
 *
 * A publish whose answer was lost is sent again under the same Nats-Msg-Id; the server looks for
 * that before it looks at the expected sequence, and answers with the place of the first one.
 */

import { randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { type JetStreamManager, jetstreamManager, type StreamConfig } from "@nats-io/jetstream";
import { connect, credsAuthenticator, headers, type Msg, type NatsConnection } from "@nats-io/transport-node";
import { Backoff, pause } from "../../../../runtime/backoff.ts";
import { HeadwaterError } from "../../../../runtime/errors.ts";
import type { Metrics } from "../../../../runtime/metrics.ts";
import { LogFullError, LogWriteError, StreamNotFoundError, StreamsClosedError } from "../../streams.ts";

const ANSWER_WITHIN_MS = 2_000;
/** Below the duplicate window, behind which a repetition is not recognised any more. */
const GIVE_UP_AFTER_MS = 60_000;
export const DUPLICATE_WINDOW_NS = 120 * 1_000_000_000;
/** A frame has at most 12 MiB. */
const MIN_MAX_PAYLOAD_BYTES = 13 * 1_048_576;
export const EXPECTED_HEADER = "Nats-Expected-Last-Subject-Sequence";
const WRONG_LAST_SEQUENCE = 10_071;
const STREAM_NOT_FOUND = 10_059;
/** Insufficient resources, storage exceeded, maximum bytes, messages. */
const FULL = new Set([10_023, 10_047, 10_028, 10_077]);

/** The cluster cannot be used as it is set up. */
export class JetStreamUnfitError extends HeadwaterError {
  constructor(message: string, hint: string, cause?: unknown) {
    super("JETSTREAM_UNFIT", { message, hint, cause });
  }
}

export interface StoredMessage {
  readonly sequence: number;
  readonly subject: string;
  readonly payload: Uint8Array;
  readonly header: (name: string) => string;
}

/** `uncertain`: an earlier try of the same publish got no answer, and may be what stands in the way. */
export type PublishOutcome =
  | { readonly stored: true; readonly sequence: number }
  | { readonly stored: false; readonly uncertain: boolean };

export interface StreamState {
  readonly firstSequence: number;
  readonly lastSequence: number;
  readonly bytes: number;
  readonly subjects: readonly string[];
}

export interface LinkOptions {
  readonly servers: readonly string[];
  readonly credentialsFile?: string;
  readonly metrics: Metrics;
}

export class Link {
  readonly #nc: NatsConnection;
  readonly #jsm: JetStreamManager;
  readonly #abort = new AbortController();
  readonly #retries;
  /** Names this gateway's publishes. */
  readonly id = randomBytes(9).toString("base64url");
  #published = 0;

  private constructor(nc: NatsConnection, jsm: JetStreamManager, metrics: Metrics) {
    this.#nc = nc;
    this.#jsm = jsm;
    this.#retries = metrics.counter(
      "headwater_jetstream_retries_total",
      "Requests to the NATS cluster sent again",
    );
  }

  /** @throws JetStreamUnfitError */
  static async open(options: LinkOptions): Promise<Link> {
    const credentials =
      options.credentialsFile === undefined
        ? {}
        : { authenticator: credsAuthenticator(await readFile(options.credentialsFile)) };
    let nc: NatsConnection;
    try {
      nc = await connect({
        servers: [...options.servers],
        maxReconnectAttempts: -1,
        reconnectTimeWait: 250,
        reconnectJitter: 250,
        // A node that hangs without closing its sockets is left after two of these.
        pingInterval: 5_000,
        ...credentials,
      });
    } catch (error) {
      const hint = "start the NATS cluster, and check store.servers in gateway.yaml";
      throw new JetStreamUnfitError(`no NATS server of ${options.servers.join(", ")} answers`, hint, error);
    }
    try {
      const maxBytes = nc.info?.max_payload ?? 0;
      if (maxBytes < MIN_MAX_PAYLOAD_BYTES) {
        const hint = "set max_payload: 16MB in the configuration of every nats-server";
        throw new JetStreamUnfitError(`the NATS servers take messages of ${maxBytes} bytes only`, hint);
      }
      return new Link(nc, await jetstreamManager(nc, { checkAPI: false, timeout: 5_000 }), options.metrics);
    } catch (error) {
      await nc.close();
      throw error;
    }
  }

  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  nextMessageId(): string {
    return `${this.id}-${++this.#published}`;
  }

  /**
   * Resolves when a quorum has it.
   * @param expected sequence of the last message on the subject, 0 for none; undefined does not ask
   * @throws LogFullError, StreamNotFoundError, LogWriteError; of the last two tries nobody knows whether they were stored
   */
  async publish(
    stream: string,
    subject: string,
    payload: Uint8Array,
    fields: Readonly<Record<string, string>>,
    expected: number | undefined,
    messageId = this.nextMessageId(),
  ): Promise<PublishOutcome> {
    const head = headers();
    for (const [name, value] of Object.entries(fields)) head.set(name, value);
    head.set("Nats-Msg-Id", messageId);
    if (expected !== undefined) head.set(EXPECTED_HEADER, String(expected));
    let uncertain = false;
    const answer = await this.#insist(
      stream,
      async () => {
        try {
          const message = await this.#nc.request(subject, payload, {
            headers: head,
            timeout: ANSWER_WITHIN_MS,
          });
          return message.json<{ seq?: number; error?: { err_code: number; description: string } }>();
        } catch (error) {
          uncertain = true;
          throw error;
        }
      },
      (answer) => {
        const code = answer.error?.err_code;
        return (
          code === undefined || code === WRONG_LAST_SEQUENCE || code === STREAM_NOT_FOUND || FULL.has(code)
        );
      },
    );
    if (answer.error === undefined) return { stored: true, sequence: answer.seq! };
    if (answer.error.err_code === WRONG_LAST_SEQUENCE) return { stored: false, uncertain };
    if (answer.error.err_code === STREAM_NOT_FOUND) throw new StreamNotFoundError(stream);
    throw new LogFullError(stream, new Error(answer.error.description));
  }

  /** Tries until `settled`, as the cluster chooses a new leader within seconds. */
  async #insist<T>(what: string, ask: () => Promise<T>, settled: (answer: T) => boolean): Promise<T> {
    const backoff = new Backoff(50, 1_000);
    const untilMs = performance.now() + GIVE_UP_AFTER_MS;
    for (;;) {
      if (this.#abort.signal.aborted || this.#nc.isClosed()) throw new StreamsClosedError();
      let failure: unknown;
      try {
        const answer = await ask();
        if (settled(answer)) return answer;
        failure = new Error(JSON.stringify(answer).slice(0, 200));
      } catch (error) {
        failure = error;
      }
      if (performance.now() > untilMs) throw new LogWriteError(what, failure);
      this.#retries.inc();
      await pause(20 + backoff.nextMs(), this.#abort.signal);
    }
  }

  /** From any replica: one that lags behind may not have it yet. */
  async get(stream: string, sequence: number): Promise<StoredMessage | undefined> {
    const answer = await this.#insist(
      stream,
      () =>
        this.#nc.request(`$JS.API.DIRECT.GET.${stream}`, JSON.stringify({ seq: sequence }), {
          timeout: ANSWER_WITHIN_MS,
        }),
      ({ headers }) => headers === undefined || headers.code === 0 || headers.code === 404,
    );
    return storedMessage(answer);
  }

  /** From the stream's leader. */
  async leaderGet(
    stream: string,
    which: { readonly seq: number; readonly next_by_subj?: string } | { readonly last_by_subj: string },
  ): Promise<StoredMessage | undefined> {
    interface Answer {
      error?: { code: number };
      message?: { subject: string; seq: number; hdrs?: string; data?: string };
    }
    const { message } = await this.#insist<Answer>(
      stream,
      async () =>
        (
          await this.#nc.request(`$JS.API.STREAM.MSG.GET.${stream}`, JSON.stringify(which), {
            timeout: ANSWER_WITHIN_MS,
          })
        ).json<Answer>(),
      (answer) => answer.error === undefined || answer.error.code === 404,
    );
    if (message === undefined) return undefined;
    const fields = Buffer.from(message.hdrs ?? "", "base64").toString();
    return {
      sequence: message.seq,
      subject: message.subject,
      payload: Buffer.from(message.data ?? "", "base64"),
      header: (name) =>
        fields
          .split("\r\n")
          .find((line) => line.startsWith(`${name}: `))
          ?.slice(name.length + 2) ?? "",
    };
  }

  /**
   * Whether a publish that expected something counts. nats-server 2.9 looks at the expected sequence
   * before it proposes, so two at once may both be stored; only the one right behind what it expected counts.
   */
  async counts(stream: string, message: StoredMessage): Promise<boolean> {
    const after = expectedOf(message) + 1;
    const first = await this.leaderGet(stream, { seq: after, next_by_subj: message.subject });
    return first?.sequence === message.sequence;
  }

  /** The last message of a subject that counts, and the sequence of the last one at all. */
  async lastThatCounts(
    stream: string,
    subject: string,
  ): Promise<{ readonly message: StoredMessage; readonly lastSequence: number } | undefined> {
    const last = await this.leaderGet(stream, { last_by_subj: subject });
    if (last === undefined) return undefined;
    const ask = (seq: number) => this.leaderGet(stream, { seq, next_by_subj: subject });
    let at = (await ask(expectedOf(last) + 1)) ?? last;
    let message = at;
    while (at.sequence < last.sequence) {
      const next = await ask(at.sequence + 1);
      if (next === undefined) break;
      if (expectedOf(next) === at.sequence) message = next;
      at = next;
    }
    return { message, lastSequence: last.sequence };
  }

  /** @throws StreamNotFoundError */
  async state(stream: string, subjectsFilter?: string): Promise<StreamState> {
    interface Answer {
      error?: { code: number };
      total?: number;
      state?: { first_seq: number; last_seq: number; bytes: number; subjects?: Record<string, number> };
    }
    const subjects: string[] = [];
    for (;;) {
      const ask = JSON.stringify(
        subjectsFilter === undefined ? {} : { subjects_filter: subjectsFilter, offset: subjects.length },
      );
      const { state, total } = await this.#insist<Answer>(
        stream,
        async () =>
          (
            await this.#nc.request(`$JS.API.STREAM.INFO.${stream}`, ask, { timeout: ANSWER_WITHIN_MS })
          ).json<Answer>(),
        (answer) => answer.error === undefined || answer.error.code === 404,
      );
      if (state === undefined) throw new StreamNotFoundError(stream);
      const page = Object.keys(state.subjects ?? {});
      subjects.push(...page);
      // One page holds 100,000 subjects.
      if (page.length > 0 && subjects.length < (total ?? 0)) continue;
      return { firstSequence: state.first_seq, lastSequence: state.last_seq, bytes: state.bytes, subjects };
    }
  }

  /** Makes it, or sets it as given where it is there already. */
  async makeStream(config: Partial<StreamConfig> & { name: string }): Promise<void> {
    const backoff = new Backoff(50, 1_000);
    for (let tries = 0; ; tries++) {
      try {
        await this.#jsm.streams.add(config);
        return;
      } catch (error) {
        if (/already in use/.test(String(error))) return;
        if (tries >= 20 || this.#abort.signal.aborted) {
          const hint =
            "check that JetStream is enabled and that the cluster has as many nodes as store.replicas";
          throw new JetStreamUnfitError(`NATS refused to make ${config.name}: ${String(error)}`, hint, error);
        }
        await pause(50 + backoff.nextMs(), this.#abort.signal);
      }
    }
  }

  async updateStream(name: string, change: Partial<StreamConfig>): Promise<void> {
    await this.#jsm.streams.update(name, change);
  }

  /** Safe to repeat. */
  async removeStream(name: string): Promise<void> {
    await this.#jsm.streams.delete(name).catch((error: unknown) => {
      if (!/not found/.test(String(error))) throw error;
    });
  }

  /** Removes all messages of the subjects. */
  async purge(name: string, filter: string): Promise<void> {
    await this.#jsm.streams.purge(name, { filter });
  }

  /** Tells the other gateways; it may be lost, so they also ask by themselves. */
  tell(subject: string, text: string): void {
    if (!this.#nc.isClosed()) this.#nc.publish(subject, text);
  }

  hear(subject: string, heard: (subject: string, text: string) => void): void {
    this.#nc.subscribe(subject, {
      callback: (error, message) => {
        if (error === null) heard(message.subject, message.string());
      },
    });
  }

  async close(): Promise<void> {
    this.#abort.abort();
    await this.#nc.close();
  }
}

/** Sequence of the message behind which it wanted to stand. */
export function expectedOf(message: Pick<StoredMessage, "header">): number {
  return Number(message.header(EXPECTED_HEADER)) || 0;
}

function storedMessage(message: Msg): StoredMessage | undefined {
  const { headers } = message;
  if (headers === undefined || headers.code === 404) return undefined;
  return {
    sequence: Number(headers.get("Nats-Sequence")),
    subject: headers.get("Nats-Subject"),
    payload: message.data,
    header: (name) => headers.get(name),
  };
}
