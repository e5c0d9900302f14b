/** What agents publish below `headwater/v1/{device}/`: frames, drained epochs, their status, what time it is. */
import { decodeFrames, type Frame } from "../../protocol/frame.ts";
import { type TimeMessage, type TopicKind, topicOf } from "../../protocol/topics.ts";
import type { Clock } from "../../runtime/clock.ts";
import { describeError } from "../../runtime/errors.ts";
import type { Streams } from "../streams/streams.ts";
import { parseDrained, parseStatus, parseTimeRequest } from "./agent-messages.ts";
import type { DeviceDirectory } from "./device-directory.ts";
import { type Addressed, type Answers, addressed, type Publish, payloadOf, type Session } from "./publish.ts";
import { type Answer, NotAllowedError, type PublishDesk } from "./publish-desk.ts";

export interface AgentPublishesOptions {
  readonly streams: Streams;
  readonly directory: DeviceDirectory;
  readonly desk: PublishDesk;
  readonly clock: Clock;
}

export class AgentPublishes {
  readonly #streams: Streams;
  readonly #directory: DeviceDirectory;
  readonly #desk: PublishDesk;
  readonly #clock: Clock;

  constructor({ streams, directory, desk, clock }: AgentPublishesOptions) {
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

  #takeFrames(session: Session, publish: Publish, device: string, answers: Answers): void {
    let frames: Frame[];
    try {
      frames = decodeFrames(payloadOf(publish));
    } catch (error) {
      const reason = describeError(error);
      this.#desk.quarantine(addressed(session, publish, answers), payloadOf(publish), reason);
      return;
    }
    if (frames.some((frame) => frame.device !== device)) {
      const error = new NotAllowedError(`${device} sent a frame of another device`);
      this.#desk.disconnect(session, answers, error);
      return;
    }
    const { topic } = publish.destination;
    const stored =
      frames.length === 1
        ? this.#store(session, topic, frames[0]!)
        : Promise.all(frames.map((frame) => this.#store(session, topic, frame))).then(
            (outcomes) => outcomes.find((outcome) => outcome === "stored") ?? outcomes[0]!,
          );
    this.#answerWhen(stored, addressed(session, publish, answers));
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
    const message = parseDrained(payloadOf(publish));
    if (message === undefined) {
      this.#desk.quarantine(to, payloadOf(publish), "no drained message");
      return;
    }
    const forgotten = message.epochs.map((epoch) => this.#streams.forgetEpoch(device, BigInt(`0x${epoch}`)));
    this.#answerWhen(
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
    const message: TimeMessage = { type: "time", id: request.id, utcUs: this.#clock.nowUs() };
    const packet = {
      cmd: "publish",
      topic: topicOf(device, "control"),
      payload: JSON.stringify(message),
    } as const;
    session.client.publish({ ...packet, qos: 0, retain: false, dup: false }, () => {});
    this.#answerWhen(Promise.resolve("stored"), to);
  }

  #answerWhen(stored: Promise<Answer>, to: Addressed): void {
    stored.then(
      (answer) => this.#desk.answer(answer, to),
      (error: unknown) => this.#desk.withhold(to.session, to.topic, error),
    );
  }
}
