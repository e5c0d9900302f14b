/**
 * The connection to the NATS cluster: publishes that are stored once however often they are sent,
 * and reads by sequence. Knows nothing of records and shards.
 *
 * A publish whose answer was lost is sent again under the same Nats-Msg-Id; the server answers with the place of the first
 * one, or that the expected sequence is not the last one any more.
 */

import { randomBytes } from "node:crypto";
import { setMaxListeners } from "node:events";
import { type ApiError, type JetStreamManager, jetstreamManager } from "@nats-io/jetstream";
import { headers, type Msg, type NatsConnection } from "@nats-io/transport-node";
import { Backoff, pause } from "../../../../../runtime/backoff.ts";
import type { Clock } from "../../../../../runtime/clock.ts";
import { type Log, silentLog } from "../../../../../runtime/log.ts";
import type { Metrics } from "../../../../../runtime/metrics.ts";
import { LogFullError, StreamNotFoundError, StreamsClosedError } from "../../../streams.ts";
import { openConnection } from "./connection.ts";
import { counts, lastCounting, type SubjectLog, type Verdict } from "./counting.ts";
import { Gets } from "./gets.ts";
import { JetStreams, STREAM_NOT_FOUND } from "./jet-streams.ts";
import { MessageIds } from "./message-ids.ts";
import {
  EXPECTED_HEADER,
  fromLeader,
  fromReplica,
  ID_HEADER,
  type LeaderAnswer,
  type StoredMessage,
} from "./stored-message.ts";
import { isForbidden, unanswered } from "./unanswered.ts";

const ANSWER_WITHIN_MS = 2_000;
/** So long after a replica gave no answer. */
const LEADER_INSTEAD_MS = 10_000;
/** Below the duplicate window, behind which a repetition is not recognised any more. */
const GIVE_UP_AFTER_MS = 60_000;
/** While the gateway closes. */
const GIVE_UP_IN_HURRY_MS = 3_000;
export const DUPLICATE_WINDOW_NS = 120 * 1_000_000_000;
/**
 * A node that leads the cluster but lags behind its own log says that a stream is not there which others have made and answer
 * for: with nats-server 2.10.27, of streams that were just made, 23 times in 1,200 on a busy machine.
 */
const NOT_FOUND_AFTER_MS = 5_000;
/** Rights may be given while it runs. */
const FORBIDDEN_AFTER_MS = 3_000;
/** Nearly ten seconds. */
const MAX_LAGGING_ASKS = 11;
const WRONG_LAST_SEQUENCE = 10_071;
/** What nats-server 2.11 says instead of a duplicate at place 0. */
const ID_ON_ITS_WAY = 10_158;
/** Insufficient resources, storage exceeded, maximum bytes, messages, the account's limits. */
const FULL = new Set([10_023, 10_047, 10_028, 10_077, 10_002]);

/**
 * `id`: that of the message that is stored. `uncertain`: an earlier try of the same publish got no answer, and may be
 * what stands in the way.
 */
export type PublishOutcome =
  | { readonly stored: true; readonly sequence: number; readonly id: string }
  | { readonly stored: false; readonly uncertain: boolean };

export interface StreamState {
  readonly firstSequence: number;
  readonly lastSequence: number;
  readonly bytes: number;
  /** How long it keeps a message; 0 is for ever. */
  readonly maxAgeNs: number;
  readonly subjects: readonly string[];
}

/** The message at a place, the first one of a subject from there on, or its last. */
type Which = { readonly seq: number; readonly next_by_subj?: string } | { readonly last_by_subj: string };

export interface LinkOptions {
  readonly servers: readonly string[];
  readonly credentialsFile?: string;
  readonly clock: Clock;
  /** None unless given. */
  readonly log?: Log;
  readonly metrics: Metrics;
}

export class Link {
  /** Which there are. */
  readonly streams: JetStreams;
  readonly gets = new Gets();
  readonly #nc: NatsConnection;
  readonly #abort = new AbortController();
  readonly #clock: Clock;
  readonly #retries;
  readonly #contradictions;
  /** Names this gateway's publishes. */
  readonly id = randomBytes(9).toString("base64url");
  readonly #onReconnected: (() => void)[] = [];
  #published = 0;
  #leaderUntilMs = 0;
  #hearing: Promise<void> | undefined;
  #endHearing: () => void = () => undefined;
  #patienceMs = GIVE_UP_AFTER_MS;

  private constructor(nc: NatsConnection, jsm: JetStreamManager, { clock, metrics }: LinkOptions) {
    this.#nc = nc;
    // Each question that waits for its next try is one: while the cluster is silent there are many.
    setMaxListeners(0, this.#abort.signal);
    this.streams = new JetStreams(jsm, (...question) => this.#insist(...question), this.#abort.signal);
    this.#clock = clock;
    this.#retries = metrics.counter(
      "headwater_jetstream_retries_total",
      "Requests to the NATS cluster sent again",
    );
    this.#contradictions = metrics.counter(
      "headwater_jetstream_contradictions_total",
      "Messages that a NATS node holds where the cluster had acknowledged another one",
      ["stream"],
    );
  }

  /** @throws JetStreamUnfitError */
  static async open(options: LinkOptions): Promise<Link> {
    let link: Link | undefined;
    const reconnected = (): void => {
      if (link !== undefined) for (const told of link.#onReconnected) told();
    };
    const nc = await openConnection({ log: silentLog, ...options, reconnected });
    try {
      link = new Link(nc, await jetstreamManager(nc, { checkAPI: false, timeout: 5_000 }), options);
      return link;
    } catch (error) {
      await nc.close();
      throw error;
    }
  }

  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  /** The node that it is connected to, which answers what any replica may. */
  get server(): string {
    return this.#nc.getServer();
  }

  /** Of that node's nats-server. */
  get version(): string {
    return this.#nc.info?.version ?? "";
  }

  /** @param stream as users name it */
  countContradiction(stream: string): void {
    this.#contradictions.inc({ stream });
  }

  nextMessageId(): string {
    return `${this.id}-${++this.#published}`;
  }

  /**
   * Resolves when a quorum has it.
   * @param expected sequence of the last message on the subject, 0 for none
   * @param messageId `isOf` it are the ids of all messages that this may store
   * @param isGone true once the stream was deleted: nobody will answer any more
   * @throws LogFullError, StreamNotFoundError, LogWriteError; of the last two tries nobody knows whether they were stored
   */
  async publish(
    stream: string,
    subject: string,
    payload: Uint8Array,
    fields: Readonly<Record<string, string>>,
    expected: number,
    messageId = this.nextMessageId(),
    isGone: () => boolean = () => false,
  ): Promise<PublishOutcome> {
    const head = headers();
    for (const [name, value] of Object.entries(fields)) head.set(name, value);
    head.set(EXPECTED_HEADER, String(expected));
    const ids = new MessageIds(messageId, this.#clock);
    let id = messageId;
    let uncertain = false;
    const answer = await this.#insist(
      stream,
      async () => {
        if (isGone()) throw new StreamNotFoundError(stream);
        id = ids.current;
        head.set(ID_HEADER, id);
        try {
          const message = await this.#nc.request(subject, payload, {
            headers: head,
            timeout: ANSWER_WITHIN_MS,
          });
          return message.json<{ seq?: number; error?: ApiError }>();
        } catch (error) {
          uncertain = true;
          throw error;
        }
      },
      (answer) => {
        const code = answer.error?.err_code;
        if (code === WRONG_LAST_SEQUENCE || FULL.has(code!)) return true;
        if (code === undefined && (answer.seq ?? 0) > 0) return true;
        // nats-server 2.10 calls what is on its way a duplicate at place 0; it may yet be stored, or lost.
        if (code === undefined || code === ID_ON_ITS_WAY) {
          uncertain = true;
          ids.onItsWay();
        }
        return false;
      },
    );
    if (answer.error === undefined) return { stored: true, sequence: answer.seq!, id };
    if (answer.error.err_code === WRONG_LAST_SEQUENCE) return { stored: false, uncertain };
    if (answer.error.err_code === STREAM_NOT_FOUND) throw new StreamNotFoundError(stream);
    const hint = "free disk space on the NATS nodes, raise the account's limits, or lower retentionHours";
    throw new LogFullError(stream, new Error(answer.error.description), hint);
  }

  /** Tries until `settled`, as the cluster chooses a new leader within seconds. That a stream is not there must be said for a while. */
  async #insist<T extends { readonly error?: ApiError }>(
    what: string,
    ask: () => Promise<T>,
    settled: (answer: T) => boolean,
  ): Promise<T> {
    const backoff = new Backoff(50, 1_000);
    const sinceMs = this.#clock.monotonicMs();
    for (;;) {
      if (this.#abort.signal.aborted || this.#nc.isClosed()) throw new StreamsClosedError();
      let failure: unknown;
      try {
        const answer = await ask();
        const unknown = answer.error?.err_code === STREAM_NOT_FOUND;
        if (unknown ? this.#clock.monotonicMs() - sinceMs > NOT_FOUND_AFTER_MS : settled(answer))
          return answer;
        failure = new Error(JSON.stringify(answer).slice(0, 200));
      } catch (error) {
        if (error instanceof StreamNotFoundError) throw error;
        failure = error;
      }
      const patienceMs = isForbidden(failure) ? FORBIDDEN_AFTER_MS : this.#patienceMs;
      if (this.#clock.monotonicMs() - sinceMs > patienceMs) throw unanswered(what, failure);
      this.#retries.inc();
      const { aborted } = this.#abort.signal;
      if (!aborted && this.#patienceMs === GIVE_UP_AFTER_MS) await this.#heard();
      await pause(20 + backoff.nextMs(), this.#abort.signal);
    }
  }

  /**
   * Resolves when the node has taken what was sent to it so far, or the connection is another one. To a node that takes nothing each try
   * would be kept for it in memory once more.
   */
  #heard(): Promise<void> {
    this.#hearing ??= new Promise<void>((resolve) => {
      this.#endHearing = resolve;
      this.#nc.flush().then(resolve, () => resolve());
    }).finally(() => {
      this.#hearing = undefined;
    });
    return this.#hearing;
  }

  /** From any replica: one that lags behind may not have it yet. From the leader where a replica hangs. */
  async get(stream: string, sequence: number): Promise<StoredMessage | undefined> {
    const nowMs = this.#clock.monotonicMs();
    if (nowMs >= this.#leaderUntilMs) {
      try {
        const answer = await this.#getBy("DIRECT.GET", stream, { seq: sequence });
        const code = answer.headers?.code ?? 0;
        if (code === 0 || code === 404) return fromReplica(answer);
      } catch {
        // The others know for minutes nothing of its hanging, and would go on to ask it in its turn.
        this.#leaderUntilMs = nowMs + LEADER_INSTEAD_MS;
      }
      this.#retries.inc();
    }
    return this.leaderGet(stream, { seq: sequence });
  }

  /** From the stream's leader. @throws StreamNotFoundError */
  async leaderGet(stream: string, which: Which): Promise<StoredMessage | undefined> {
    const { message, error } = await this.#insist<LeaderAnswer>(
      stream,
      async () => (await this.#getBy("STREAM.MSG.GET", stream, which)).json<LeaderAnswer>(),
      (answer) => answer.error === undefined || answer.error.code === 404,
    );
    if (error?.err_code === STREAM_NOT_FOUND) throw new StreamNotFoundError(stream);
    return message === undefined ? undefined : fromLeader(message);
  }

  /** In its turn, unless all is aborted by then. */
  #getBy(how: string, stream: string, which: Which): Promise<Msg> {
    return this.gets.run(stream, "seq" in which ? which.seq : undefined, () => {
      if (this.#abort.signal.aborted) throw new StreamsClosedError();
      return this.#nc.request(`$JS.API.${how}.${stream}`, JSON.stringify(which), {
        timeout: ANSWER_WITHIN_MS,
      });
    });
  }

  /** Whether a message that a node gave counts; `elsewhere` also where the stream's leader does not come to know it. */
  async counts(stream: string, message: StoredMessage): Promise<Verdict> {
    for (let tries = 0; tries < MAX_LAGGING_ASKS; tries++) {
      const verdict = await counts(this.#subject(stream, message.subject), message);
      if (verdict !== undefined) return verdict;
      // Retention took it, or a leader that has just been chosen lags behind its own log.
      if ((await this.state(stream)).firstSequence > message.sequence) return false;
      await pause(25 * 2 ** Math.min(tries, 6), this.#abort.signal);
    }
    return "elsewhere";
  }

  /** The last message of a subject that counts, and the sequence of the last one at all. */
  async lastThatCounts(
    stream: string,
    subject: string,
  ): Promise<{ readonly message: StoredMessage; readonly lastSequence: number } | undefined> {
    const last = await this.leaderGet(stream, { last_by_subj: subject });
    if (last === undefined) return undefined;
    const message = await lastCounting(this.#subject(stream, subject), last);
    return { message, lastSequence: last.sequence };
  }

  #subject(stream: string, subject: string): SubjectLog {
    return {
      get: (sequence) => this.leaderGet(stream, { seq: sequence }),
      from: (sequence) => this.leaderGet(stream, { seq: sequence, next_by_subj: subject }),
    };
  }

  /** @throws StreamNotFoundError */
  async state(stream: string, subjectsFilter?: string): Promise<StreamState> {
    interface Answer {
      error?: ApiError;
      total?: number;
      config?: { max_age: number };
      state?: { first_seq: number; last_seq: number; bytes: number; subjects?: Record<string, number> };
    }
    const subjects: string[] = [];
    for (;;) {
      const ask = JSON.stringify(
        subjectsFilter === undefined ? {} : { subjects_filter: subjectsFilter, offset: subjects.length },
      );
      const { state, config, total } = await this.#insist<Answer>(
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
      return {
        firstSequence: state.first_seq,
        lastSequence: state.last_seq,
        bytes: state.bytes,
        maxAgeNs: config?.max_age ?? 0,
        subjects,
      };
    }
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

  /** @param told called each time when a connection that was lost is there again: words to and from others were lost with it */
  onReconnected(told: () => void): void {
    this.#onReconnected.push(told);
  }

  /** From now on what has waited for an answer for some seconds fails. */
  hurry(): void {
    this.#patienceMs = GIVE_UP_IN_HURRY_MS;
    this.#endHearing();
  }

  /** What waits for an answer fails. */
  abort(): void {
    this.#abort.abort();
    this.#endHearing();
  }

  async close(): Promise<void> {
    this.abort();
    await this.#nc.close();
  }
}
