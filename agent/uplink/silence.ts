/**
 * Finds a connection that is open on this side alone: no byte comes, and nobody says that it is gone.
 * After a silence the peer is asked for a sign of life; without one the connection is given up.
 *
 *   heard … heard ──── 10 s ───→ ask ──── 15 s, nothing ───→ silent
 *
 * Over a slow link the answer comes behind all that waits to be sent. So while much of that waits and
 * the peer's kernel confirms more and more of it, the connection lives.
 */
import type { Clock } from "../../runtime/clock.ts";
import type { Outgoing } from "./outgoing.ts";

export interface SilenceOptions {
  readonly clock: Pick<Clock, "monotonicMs">;
  /** The peer must answer this. Called once in a silence. */
  readonly ask: () => void;
  /** Called once: give the connection up. */
  readonly silent: (forMs: number) => void;
  /** How far what was written has come; undefined where that cannot be known. */
  readonly outgoing: () => Promise<Outgoing | undefined>;
  /** A silence that is not worth a question yet; 10 s unless given. */
  readonly quietMs?: number;
  /** How long the peer may take for a sign of life; 15 s unless given. */
  readonly answerMs?: number;
  /** Where questions cost: while nothing is expected of the peer, it may be quiet for longer. */
  readonly idle?: { readonly quietMs: number; readonly isIdle: () => boolean } | undefined;
}

const QUIET_MS = 10_000;
const ANSWER_MS = 15_000;
const LOOKS_PER_ANSWER = 15;
/** With less before it the question has arrived. A status that somebody between us confirms is no sign of the peer. */
const MUCH_BYTES = 8_192;

export class SilenceWatch {
  readonly #options: SilenceOptions;
  readonly #answerMs: number;
  readonly #quietMs: number;
  #heardMs: number;
  /** Since when no sign of life came, after the question; undefined while none is needed. */
  #askedMs: number | undefined;
  /** How much the peer's kernel had confirmed when last it was looked at, after the question. */
  #confirmedBytes: number | undefined;
  #timer: NodeJS.Timeout | undefined;
  #isClosed = false;

  constructor(options: SilenceOptions) {
    this.#options = options;
    this.#quietMs = options.quietMs ?? QUIET_MS;
    this.#answerMs = options.answerMs ?? ANSWER_MS;
    this.#heardMs = options.clock.monotonicMs();
  }

  start(): void {
    this.#heardMs = this.#options.clock.monotonicMs();
    this.#lookAfter(this.#quietMs);
  }

  /** A byte came. */
  heard(): void {
    this.#heardMs = this.#options.clock.monotonicMs();
    this.#askedMs = undefined;
  }

  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#timer);
  }

  #lookAfter(ms: number): void {
    if (this.#isClosed) return;
    this.#timer = setTimeout(() => this.#look(), Math.max(1, Math.ceil(ms)));
  }

  #look(): void {
    const nowMs = this.#options.clock.monotonicMs();
    if (this.#askedMs !== undefined) {
      void this.#lookForLife();
      return;
    }
    const { idle } = this.#options;
    const quietMs = idle?.isIdle() === true ? idle.quietMs : this.#quietMs;
    const leftMs = this.#heardMs + quietMs - nowMs;
    if (leftMs > 0) {
      this.#lookAfter(Math.min(leftMs, this.#quietMs));
      return;
    }
    this.#askedMs = nowMs;
    this.#confirmedBytes = undefined;
    this.#options.ask();
    this.#lookAfter(this.#answerMs / LOOKS_PER_ANSWER);
  }

  async #lookForLife(): Promise<void> {
    const { clock, outgoing, silent } = this.#options;
    const sent = await outgoing().catch(() => undefined);
    if (this.#isClosed) return;
    const nowMs = clock.monotonicMs();
    if (this.#askedMs !== undefined && sent !== undefined) {
      const confirmedMore = sent.confirmedBytes > (this.#confirmedBytes ?? Number.POSITIVE_INFINITY);
      if (confirmedMore && sent.unconfirmedBytes > MUCH_BYTES) this.#askedMs = nowMs;
      this.#confirmedBytes = sent.confirmedBytes;
    }
    if (this.#askedMs === undefined) this.#lookAfter(this.#heardMs + this.#quietMs - nowMs);
    else if (nowMs - this.#askedMs < this.#answerMs) this.#lookAfter(this.#answerMs / LOOKS_PER_ANSWER);
    else {
      this.close();
      silent(nowMs - this.#heardMs);
    }
  }
}
