/**
 * Opens compressed publishes (protocol/publish-envelope.ts), and keeps the order of each connection
 * meanwhile: what comes behind an envelope that is being opened, or behind frames that are so many that they
 * are taken in several turns of the event loop, waits behind it.
 *
 *   envelope ─┬ small, and nothing before it → opened within the call
 *             └ queue of its connection → room → zlib's threads → handed on, in order
 *
 * Bounds: so many bytes of opened frames, of all connections together, may wait for the disk; and two
 * envelopes at most are opened at a time, as the log's fdatasync needs threads of the same pool. What
 * waits in a queue counts as waiting at the publish lane, and goes with its connection.
 */
import { type Envelope, open, openSync, readEnvelope } from "../../protocol/publish-envelope.ts";
import type { Metrics } from "../../runtime/metrics.ts";
import { Turnstile } from "../../runtime/turnstile.ts";
import { isOver, type Session } from "./publish.ts";

/** Opening so much takes no longer than the way to a thread and back. */
const OPENED_IN_CALL_BYTES = 64 * 1_024;
const MAX_OPEN_BYTES = 32 * 1_048_576;
/** Of the four threads that Node has for zlib and files. */
const MAX_OPENING = 2;

/** What becomes of frames that were handed on. Neither rejects. */
export interface Taken {
  /** Set where not all of them are appended yet: what comes next in their session waits for it. */
  readonly appended?: Promise<unknown>;
  /** They are stored, or will not be; the room that they take is kept until then. */
  readonly settled: Promise<unknown>;
}

export interface SealedPublish {
  readonly session: Session;
  /** An envelope, or what begins like one. Its memory is its own. */
  readonly bytes: Buffer;
  /** Takes the frames; what it stores it appends within the call, unless it says otherwise. Never throws. */
  readonly take: (frames: Buffer) => Taken;
  /** It cannot be opened. Never throws. */
  readonly refuse: (error: unknown) => void;
}

/** Never throws. What it returns is waited for, and never rejects. */
type Act = () => Promise<unknown> | undefined;

/** What waits behind an envelope of a session that is being opened. */
type Queue = Array<SealedPublish | Act>;

export class EnvelopeDesk {
  readonly #queues = new Map<Session, Queue>();
  readonly #room: Turnstile;
  readonly #threads = new Turnstile(MAX_OPENING);
  readonly #counts;

  constructor(metrics: Metrics, maxOpenBytes = MAX_OPEN_BYTES) {
    this.#room = new Turnstile(maxOpenBytes);
    const counter = (name: string, help: string): { inc(count?: number): void } =>
      metrics.counter(`headwater_ingest_${name}_total`, help);
    this.#counts = {
      envelopes: counter("envelopes", "Compressed publishes that were opened"),
      sealed: counter("envelope_bytes", "Bytes of compressed publishes that were opened"),
      opened: counter("envelope_frame_bytes", "Bytes of frames that came in compressed publishes"),
    };
    const held = "headwater_ingest_envelope_held_bytes";
    metrics.gauge(held, "Bytes of frames from compressed publishes that are not stored yet", [], () =>
      metrics.gauge(held, "").set(this.#room.taken),
    );
  }

  /** Whether something of the session is under way, so that what comes next has to wait. */
  isBusy(session: Session): boolean {
    return this.#queues.size > 0 && this.#queues.has(session);
  }

  /**
   * Opens it and hands on what is in it, in the order of the calls for its session. When a publish of
   * the session has to be left unanswered meanwhile, or it ends, this is dropped: it will come again.
   */
  take(publish: SealedPublish): void {
    const queue = this.#queues.get(publish.session);
    if (queue !== undefined) queue.push(publish);
    else if (!this.#takeAtOnce(publish)) void this.#run(publish.session, [publish]);
  }

  /** Calls `act` when all is handed on that came before in its session, or drops it as above. */
  behind(session: Session, act: Act): void {
    const queue = this.#queues.get(session);
    if (queue === undefined) void this.#run(session, [act]);
    else queue.push(act);
  }

  /** The connection ended: what waits shall take no memory. */
  drop(session: Session): void {
    const queue = this.#queues.get(session);
    if (queue !== undefined) queue.length = 0;
  }

  /** @returns false where that would take too long, or there is no room */
  #takeAtOnce({ session, bytes, take, refuse }: SealedPublish): boolean {
    let frames: Buffer;
    try {
      const envelope = readEnvelope(bytes);
      if (envelope.plainBytes > OPENED_IN_CALL_BYTES || this.#room.isFull(envelope.plainBytes)) return false;
      frames = openSync(envelope);
      this.#count(envelope);
    } catch (error) {
      refuse(error);
      return true;
    }
    void this.#room.take(frames.length);
    const appended = this.#handOn(frames, take);
    if (appended !== undefined) void this.#run(session, [() => appended]);
    return true;
  }

  async #run(session: Session, queue: Queue): Promise<void> {
    this.#queues.set(session, queue);
    for (let next = queue.shift(); next !== undefined && !isOver(session); next = queue.shift()) {
      const handedOn = typeof next === "function" ? next() : this.#openInTurn(next);
      if (handedOn !== undefined) await handedOn;
    }
    this.#queues.delete(session);
  }

  async #openInTurn({ session, bytes, take, refuse }: SealedPublish): Promise<void> {
    let frames: Buffer | undefined;
    try {
      frames = await this.#openInThread(session, readEnvelope(bytes));
    } catch (error) {
      if (!isOver(session)) refuse(error);
      return;
    }
    if (frames !== undefined) await this.#handOn(frames, take);
  }

  /** Undefined when the session is over by then. The room for what is returned is taken. */
  async #openInThread(session: Session, envelope: Envelope): Promise<Buffer | undefined> {
    await this.#room.take(envelope.plainBytes);
    let frames: Buffer | undefined;
    try {
      frames = await this.#threads.run(1, async () => (isOver(session) ? undefined : open(envelope)));
      if (isOver(session)) frames = undefined;
      if (frames !== undefined) this.#count(envelope);
    } finally {
      if (frames === undefined) this.#room.give(envelope.plainBytes);
    }
    return frames;
  }

  /** Resolves when they are appended; undefined where they are already. */
  #handOn(frames: Buffer, take: SealedPublish["take"]): Promise<unknown> | undefined {
    const { appended, settled } = take(frames);
    void settled.then(() => this.#room.give(frames.length));
    return appended;
  }

  #count({ plainBytes, compressed }: Envelope): void {
    this.#counts.envelopes.inc();
    this.#counts.sealed.inc(compressed.length);
    this.#counts.opened.inc(plainBytes);
  }
}
