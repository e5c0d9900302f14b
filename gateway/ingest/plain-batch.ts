/**
 * Publishes of plain sensors that go to one stream together, as columns, and who waits for their
 * answers. The payloads lie in memory that serves the next batch as well, once these were handed over.
 */
import type { PublishColumns } from "../streams/streams.ts";
import { type Addressed, type Answers, NO_PACKET_ID, type Publish, type Session } from "./publish.ts";

const MAX_PUBLISHES = 1_024;
const MAX_DATA_BYTES = 512 * 1_024;
const FIRST_DATA_BYTES = 16 * 1_024;
/** What a few take stands in V8's heap, and costs nothing; a batch of one is often all that a resend leaves. */
const FIRST_PUBLISHES = 16;

export class PlainBatch {
  readonly sessions: Session[] = [];
  readonly answers: Answers[] = [];
  readonly topics: string[] = [];
  /** As they are acknowledged. */
  readonly packetIds: number[] = [];
  readonly #timeUs: number;
  readonly #clientIds: string[] = [];
  readonly #knownBy: number[] = [];
  readonly #mayRepeat: boolean[] = [];
  #ends = new Uint32Array(FIRST_PUBLISHES);
  #data: Buffer;
  #dataBytes = 0;

  /** @param memory of an earlier batch */
  constructor(timeUs: number, memory: Buffer | undefined) {
    this.#timeUs = timeUs;
    this.#data = memory ?? Buffer.allocUnsafeSlow(FIRST_DATA_BYTES);
  }

  get count(): number {
    return this.sessions.length;
  }

  get isFull(): boolean {
    return this.count === MAX_PUBLISHES || this.#dataBytes >= MAX_DATA_BYTES;
  }

  add(session: Session, publish: Publish, mayRepeat: boolean, answers: Answers): void {
    const { qos, destination, packetId, bytes, from, end } = publish;
    // At QoS 0 nothing comes again.
    const knownBy = qos === 0 || packetId === NO_PACKET_ID ? 0 : packetId;
    this.#copy(bytes, from, end);
    this.sessions.push(session);
    this.answers.push(answers);
    this.topics.push(destination.topic);
    this.packetIds.push(packetId);
    this.#clientIds.push(session.clientId);
    this.#knownBy.push(knownBy);
    this.#mayRepeat.push(mayRepeat);
  }

  /**
   * Without those of sessions that had to leave one unanswered since these came: what is stored out of
   * its turn would be taken for new when it is sent again behind that one.
   */
  inTurn(): PlainBatch {
    if (!this.sessions.some((session) => session.withheld)) return this;
    const rest = new PlainBatch(this.#timeUs, undefined);
    for (let i = 0; i < this.count; i++) {
      if (this.sessions[i]!.withheld) continue;
      rest.#copy(this.#data, this.#from(i), this.#ends[i]!);
      rest.sessions.push(this.sessions[i]!);
      rest.answers.push(this.answers[i]!);
      rest.topics.push(this.topics[i]!);
      rest.packetIds.push(this.packetIds[i]!);
      rest.#clientIds.push(this.#clientIds[i]!);
      rest.#knownBy.push(this.#knownBy[i]!);
      rest.#mayRepeat.push(this.#mayRepeat[i]!);
    }
    return rest;
  }

  /** The payload of the next one. */
  #copy(bytes: Buffer, from: number, end: number): void {
    const dataEnd = this.#dataBytes + end - from;
    if (dataEnd > this.#data.length) {
      const larger = Buffer.allocUnsafeSlow(Math.max(dataEnd, 2 * this.#data.length));
      this.#data.copy(larger, 0, 0, this.#dataBytes);
      this.#data = larger;
    }
    bytes.copy(this.#data, this.#dataBytes, from, end);
    const { count } = this;
    if (count === this.#ends.length) {
      const more = new Uint32Array(Math.min(MAX_PUBLISHES, 4 * count));
      more.set(this.#ends);
      this.#ends = more;
    }
    this.#ends[count] = dataEnd;
    this.#dataBytes = dataEnd;
  }

  columns(): PublishColumns {
    return {
      count: this.count,
      clientIds: this.#clientIds,
      packetIds: this.#knownBy,
      partitionKeys: this.topics,
      mayRepeat: this.#mayRepeat,
      timeUs: this.#timeUs,
      data: this.#data.subarray(0, this.#dataBytes),
      ends: this.#ends.subarray(0, this.count),
    };
  }

  payloadBytes(i: number): number {
    return this.#ends[i]! - this.#from(i);
  }

  addressed(i: number): Addressed {
    return {
      session: this.sessions[i]!,
      answers: this.answers[i]!,
      topic: this.topics[i]!,
      packetId: this.packetIds[i]!,
      payloadBytes: this.payloadBytes(i),
    };
  }

  /** Good until the memory is given away. */
  payload(i: number): Buffer {
    return this.#data.subarray(this.#from(i), this.#ends[i]);
  }

  /** For another batch, unless it has grown beyond what batches need. */
  giveMemory(): Buffer | undefined {
    const memory = this.#data;
    this.#data = Buffer.alloc(0);
    return memory.length <= 2 * MAX_DATA_BYTES ? memory : undefined;
  }

  #from(i: number): number {
    return i === 0 ? 0 : this.#ends[i - 1]!;
  }
}
