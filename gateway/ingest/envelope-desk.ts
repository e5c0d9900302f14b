/**
 * Opens compressed publishes (protocol/publish-envelope.ts), and keeps the order of each connection
 * meanwhile: what comes behind an envelope that is being opened waits behind it.
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
import type { Session } from "./publish.ts";

/** Opening so much takes no longer than the way to a thread and back. */
const OPENED_IN_CALL_BYTES = 64 * 1_024;
const MAX_OPEN_BYTES = 32 * 1_048_576;
/** Of the four threads that Node has for zlib and files. */
const MAX_OPENING = 2;

export interface SealedPublish {
  readonly session: Session;
  /** An envelope, or what begins like one. Its memory is its own. */
  readonly bytes: Buffer;
  /**
   * Takes the frames; whatever it stores it appends within the call. Never throws.
   * @returns settles when they are stored, or will not be; the room that they take is kept until then
   */
  readonly take: (frames: Buffer) => Promise<unknown>;
  /** It cannot be opened. Never throws. */
  readonly refuse: (error: unknown) => void;
}

/** What waits behind the envelope of a session that is being opened. */
type Queue = Array<SealedPublish | (() => void)>;

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

  /** Whether an envelope of the session is being opened, so that what comes next has to wait. */
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
  behind(session: Session, act: () => void): void {
    const queue = this.#queues.get(session);
    if (queue === undefined) act();
    else queue.push(act);
  }

  /** The connection ended: what waits shall take no memory. */
  drop(session: Session): void {
    const queue = this.#queues.get(session);
    if (queue !== undefined) queue.length = 0;
  }

  /** @returns false where that would take too long, or there is no room */
  #takeAtOnce({ bytes, take, refuse }: SealedPublish): boolean {
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
    this.#handOn(frames, take);
    return true;
  }

  async #run(session: Session, queue: Queue): Promise<void> {
    this.#queues.set(session, queue);
    for (let next = queue.shift(); next !== undefined && !isOver(session); next = queue.shift()) {
      if (typeof next === "function") next();
      else await this.#openInTurn(next);
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
    if (frames !== undefined) this.#handOn(frames, take);
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

  #handOn(frames: Buffer, take: SealedPublish["take"]): void {
    const give = (): void => this.#room.give(frames.length);
    take(frames).then(give, give);
  }

  #count({ plainBytes, compressed }: Envelope): void {
    this.#counts.envelopes.inc();
    this.#counts.sealed.inc(compressed.length);
    this.#counts.opened.inc(plainBytes);
  }
}

/** Nothing more of it will be answered, and all of that comes again. */
function isOver({ withheld, client }: Session): boolean {
  return withheld || client.closed;
}
