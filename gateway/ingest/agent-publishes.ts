/** What agents publish below `headwater/v1/{device}/`: frames, drained epochs, their status. */
import { decodeFrames, type Frame } from "../../protocol/frame.ts";
import type { TopicKind } from "../../protocol/topics.ts";
import { describeError } from "../../runtime/errors.ts";
import type { Streams } from "../streams/streams.ts";
import { parseDrained, parseStatus } from "./agent-messages.ts";
import type { DeviceDirectory } from "./device-directory.ts";
import { type Addressed, type Answers, addressed, type Publish, payloadOf, type Session } from "./publish.ts";
import { type Answer, NotAllowedError, type PublishDesk } from "./publish-desk.ts";

export interface AgentPublishesOptions {
  readonly streams: Streams;
  readonly directory: DeviceDirectory;
  readonly desk: PublishDesk;
}

export class AgentPublishes {
  readonly #streams: Streams;
  readonly #directory: DeviceDirectory;
  readonly #desk: PublishDesk;

  constructor({ streams, directory, desk }: AgentPublishesOptions) {
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

  #answerWhen(stored: Promise<Answer>, to: Addressed): void {
    stored.then(
      (answer) => this.#desk.answer(answer, to),
      (error: unknown) => this.#desk.withhold(to.session, to.topic, error),
    );
  }
}
