/** What agents publish below `headwater/v1/{device}/`: frames, drained epochs, their status, what time it is. */
import type { Client } from "aedes";
import { cutFrames, decodeFrames, type Frame, soundFrames } from "../../protocol/frame.ts";
import { BROTLI, isEnvelope } from "../../protocol/publish-envelope.ts";
import { type ControlMessage, type TopicKind, topicOf } from "../../protocol/topics.ts";
import type { Clock } from "../../runtime/clock.ts";
import { describeError } from "../../runtime/errors.ts";
import type { Metrics } from "../../runtime/metrics.ts";
import type { Streams } from "../streams/streams.ts";
import { parseDrained, parseStatus, parseTimeRequest } from "./agent-messages.ts";
import type { DeviceDirectory } from "./device-directory.ts";
import { EnvelopeDesk, type Taken } from "./envelope-desk.ts";
import {
  type Addressed,
  type Answers,
  addressed,
  isOver,
  type Publish,
  payloadOf,
  type Session,
} from "./publish.ts";
import { type Answer, NotAllowedError, type PublishDesk } from "./publish-desk.ts";

/** Of what waits for nothing. */
const DONE = Promise.resolve();
/** To decode and append so many takes some milliseconds. */
const FRAMES_AT_ONCE = 512;
/** And of so many runs; a frame of more is taken by itself. */
const RUNS_AT_ONCE = 8_192;

export interface AgentPublishesOptions {
  readonly streams: Streams;
  readonly directory: DeviceDirectory;
  readonly desk: PublishDesk;
  readonly clock: Clock;
  readonly metrics: Metrics;
}

export class AgentPublishes {
  readonly #streams: Streams;
  readonly #directory: DeviceDirectory;
  readonly #desk: PublishDesk;
  readonly #clock: Clock;
  readonly #envelopes: EnvelopeDesk;

  constructor({ streams, directory, desk, clock, metrics }: AgentPublishesOptions) {
    this.#envelopes = new EnvelopeDesk(metrics);
    this.#clock = clock;
    this.#streams = streams;
    this.#directory = directory;
    this.#desk = desk;
  }

  /** Without configured devices everybody may act as any, but for those that came with a certificate. */
  mayActAs(session: Session, device: string): boolean {
    return (this.#directory.open && !session.isProven) || session.device === device;
  }

  /** What is stored is appended within the call, so order is kept. */
  take(session: Session, publish: Publish, device: string, message: TopicKind, answers: Answers): void {
    const refuse = (reason: string): void =>
      this.#desk.disconnect(session, answers, new NotAllowedError(reason));
    if (!this.mayActAs(session, device)) refuse(`${session.device} published as ${device}`);
    else if (message === "frames") this.#takeFrames(session, publish, device, answers);
    else if (message === "drained") this.#takeDrained(session, publish, device, answers);
    else if (message === "status") this.#takeStatus(session, publish, device, answers);
    else if (message === "time") this.#tellTime(session, publish, device, answers);
    else refuse("control messages come from the gateway");
  }

  /** Tells what this gateway understands to one that has just begun to listen to its control topic. */
  greet({ client }: Session, device: string, contested: boolean): void {
    tell(client, device, { type: "hello", accepts: [BROTLI], ...(contested && { contested }) });
  }

  /** Its connection ended. */
  gone(session: Session): void {
    this.#envelopes.drop(session);
  }

  #takeFrames(session: Session, publish: Publish, device: string, answers: Answers): void {
    const to = addressed(session, publish, answers);
    const payload = payloadOf(publish);
    if (isEnvelope(payload)) this.#openFrames(to, Buffer.from(payload), device);
    else if (piecesOf(payload).length === 1) {
      this.#inTurn(to, payload, (bytes) => this.#storeFrames(to, bytes, bytes, device).settled);
    } else {
      const own = Buffer.from(payload);
      this.#envelopes.behind(session, () => this.#storeFrames(to, own, own, device).appended);
    }
  }

  #openFrames(to: Addressed, bytes: Buffer, device: string): void {
    this.#envelopes.take({
      session: to.session,
      bytes,
      take: (frames) => this.#storeFrames(to, frames, bytes, device),
      refuse: (error) => this.#desk.quarantine(to, bytes, describeError(error)),
    });
  }

  /** At once, or behind what of the session is under way: then `payload` is copied. */
  #inTurn(to: Addressed, payload: Buffer, act: (payload: Buffer) => Promise<unknown>): void {
    if (!this.#envelopes.isBusy(to.session)) {
      void act(payload);
      return;
    }
    const own = Buffer.from(payload);
    this.#envelopes.behind(to.session, () => void act(own));
  }

  /**
   * Appends the frames within the call where they and their runs are few, and else some in each turn of the event
   * loop: a few kilobytes can hold so many that nobody else would be heard for seconds.
   * @param came what is kept of it where it holds something else than frames
   */
  #storeFrames(to: Addressed, bytes: Buffer, came: Buffer, device: string): Taken {
    const keep = (reason: string): Promise<Answer> => this.#desk.keep(to.session, to.topic, came, reason);
    const pieces = piecesOf(bytes);
    if (pieces.length > 1) {
      const appended = this.#appendPieces(to, pieces, once(keep), device);
      return { appended, settled: appended.then(({ answer }) => this.#answerWhen(answer, to)) };
    }
    const answer = this.#append(to, bytes, keep, device);
    return { settled: answer === undefined ? DONE : this.#answerWhen(answer, to) };
  }

  /** Resolves when all are appended, or the session is over: then there is no answer. */
  async #appendPieces(
    to: Addressed,
    pieces: readonly Buffer[],
    keep: (reason: string) => Promise<Answer>,
    device: string,
  ): Promise<{ readonly answer: Promise<Answer | undefined> }> {
    const { session, topic } = to;
    const answers: Array<Promise<Answer>> = [];
    let isWhole = false;
    for (const piece of pieces) {
      const answer = this.#append(to, piece, keep, device);
      if (answer === undefined) break;
      answer.catch((error: unknown) => this.#desk.withhold(session, topic, error));
      isWhole = answers.push(answer) === pieces.length;
      await new Promise((resolve) => setImmediate(resolve));
      if (isOver(session)) break;
    }
    return { answer: joined(answers).then((answer) => (isWhole ? answer : undefined)) };
  }

  /**
   * Appends frames within the call.
   * @param keep called where they are something else
   * @returns undefined where they may not be sent, and the connection ends
   */
  #append(
    to: Addressed,
    bytes: Buffer,
    keep: (reason: string) => Promise<Answer>,
    device: string,
  ): Promise<Answer> | undefined {
    const { session, answers, topic } = to;
    let frames: Frame[];
    let reason: string | undefined;
    try {
      frames = decodeFrames(bytes);
    } catch (error) {
      reason = describeError(error);
      frames = soundFrames(bytes);
    }
    if (frames.some((frame) => frame.device !== device)) {
      const error = new NotAllowedError(`${device} sent a frame of another device`);
      this.#desk.disconnect(session, answers, error);
      return undefined;
    }
    if (reason !== undefined) return this.#salvage(to, frames, keep(reason));
    if (frames.length === 1) return this.#store(session, topic, frames[0]!);
    return joined(frames.map((frame) => this.#store(session, topic, frame)));
  }

  /** The publish is kept aside whole; those of its frames that are sound are stored. */
  #salvage({ session, topic }: Addressed, sound: readonly Frame[], kept: Promise<Answer>): Promise<Answer> {
    const stored = sound.map((frame) => this.#store(session, topic, frame));
    return Promise.all([kept, ...stored]).then(() => "quarantined");
  }

  #store(session: Session, topic: string, frame: Frame): Promise<Answer> {
    const { device, epoch, sequence, recordCount, stream } = frame;
    const missing = this.#desk.missing(stream);
    if (missing !== undefined) return this.#desk.keep(session, topic, frame.bytes, missing);
    return this.#streams.appendFrame(frame).then((outcome) => {
      this.#directory.frame(device, epoch, sequence, recordCount, outcome);
      return outcome;
    });
  }

  #takeDrained(session: Session, publish: Publish, device: string, answers: Answers): void {
    const to = addressed(session, publish, answers);
    this.#inTurn(to, payloadOf(publish), (payload) => this.#forget(to, payload, device));
  }

  #forget(to: Addressed, payload: Buffer, device: string): Promise<unknown> {
    const message = parseDrained(payload);
    if (message === undefined) {
      this.#desk.quarantine(to, payload, "no drained message");
      return DONE;
    }
    const forgotten = message.epochs.map((epoch) => this.#streams.forgetEpoch(device, BigInt(`0x${epoch}`)));
    return this.#answerWhen(
      Promise.all(forgotten).then(() => "stored"),
      to,
    );
  }

  #takeStatus(session: Session, publish: Publish, device: string, answers: Answers): void {
    const to = addressed(session, publish, answers);
    const message = parseStatus(payloadOf(publish));
    if (message === undefined) {
      this.#desk.quarantine(to, payloadOf(publish), "no status message");
      return;
    }
    this.#directory.status(device, message);
    this.#answerWhen(Promise.resolve("stored"), to);
  }

  /** For devices without a clock of their own. At once: what the answer waits is what it is wrong by. */
  #tellTime(session: Session, publish: Publish, device: string, answers: Answers): void {
    const to = addressed(session, publish, answers);
    const request = parseTimeRequest(payloadOf(publish));
    if (request === undefined) {
      this.#desk.quarantine(to, payloadOf(publish), "no question for the time");
      return;
    }
    tell(session.client, device, { type: "time", id: request.id, utcUs: this.#clock.nowUs() });
    this.#answerWhen(Promise.resolve("stored"), to);
  }

  /** Not at all where there is none. */
  #answerWhen(stored: Promise<Answer | undefined>, to: Addressed): Promise<void> {
    return stored.then(
      (answer) => answer && this.#desk.answer(answer, to),
      (error: unknown) => this.#desk.withhold(to.session, to.topic, error),
    );
  }
}

function piecesOf(bytes: Buffer): Buffer[] {
  return cutFrames(bytes, FRAMES_AT_ONCE, RUNS_AT_ONCE);
}

/** Of what is answered by one PUBACK: it was known already where all of it was. */
function joined(answers: ReadonlyArray<Promise<Answer>>): Promise<Answer> {
  return Promise.all(answers).then(
    (all) => all.find((one) => one === "quarantined") ?? all.find((one) => one === "stored") ?? all[0]!,
  );
}

/** Whoever calls it again gets what it returned the first time. */
function once<T>(keep: (reason: string) => T): (reason: string) => T {
  let kept: T | undefined;
  return (reason) => {
    kept ??= keep(reason);
    return kept;
  };
}

/** At QoS 0, and at once. */
function tell(client: Client, device: string, message: ControlMessage): void {
  const packet = {
    cmd: "publish",
    topic: topicOf(device, "control"),
    payload: JSON.stringify(message),
  } as const;
  client.publish({ ...packet, qos: 0, retain: false, dup: false }, () => {});
}
