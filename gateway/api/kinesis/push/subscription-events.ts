/**
 * The messages of a subscription, in the form of its request: JSON 1.1 or CBOR. What was read from the
 * log is cut into events of bounded size.
 *
 *   initial-response | SubscribeToShardEvent … | exception, if it does not end in peace
 */
import { digitsOf, type Offset, type ReadResult, type ShardDescription } from "../../../streams/streams.ts";
import { answerMemory } from "../../answers/answer-memory.ts";
import { encodeEvent, encodeEventHeaders, eventRoom, sealEvent } from "../../answers/event-stream.ts";
import type { AwsError } from "../../aws-error.ts";
import type { ChildShard } from "../child-shards.ts";
import { type PageLimits, RecordPage } from "../pages/record-page.ts";
import type { Codec } from "../wire/codec.ts";

/** Bytes of data in one event; a single record may be larger. In JSON a third is added to them. */
export const MAX_EVENT_BYTES = 524_288;
const EVENT_LIMITS: PageLimits = { records: 10_000, dataBytes: MAX_EVENT_BYTES };

interface EventTail {
  /** Missing once the shard has ended: clients know the end by it. */
  readonly ContinuationSequenceNumber?: string;
  readonly MillisBehindLatest: number;
  /** Of an event that ends a shard. */
  readonly ChildShards?: readonly ChildShard[];
}

export interface CutEvent {
  readonly message: Buffer;
  /** What comes behind it. */
  readonly next: Offset;
  readonly records: number;
  /** MillisBehindLatest. */
  readonly behindMs: number;
  /**
   * To be called by whoever was given the event, once its bytes have left; then nobody may look at them any
   * more. Where it is not called, as when a connection broke, their memory is not used again.
   */
  readonly left: () => void;
}

export class SubscriptionEvents {
  readonly initial: Buffer;
  readonly #codec: Codec;
  readonly #eventHeaders: Buffer;
  /** What several subscriptions of a shard are given alike is encoded once, for as long as one of them holds it. */
  readonly #cut = new WeakMap<ReadResult, SharedEvent>();

  constructor(codec: Codec) {
    this.#codec = codec;
    const of = (type: string): Buffer =>
      encodeEventHeaders({
        ":message-type": "event",
        ":event-type": type,
        ":content-type": codec.contentType,
      });
    this.#eventHeaders = of("SubscribeToShardEvent");
    this.initial = encodeEvent(of("initial-response"), codec.encode({}));
  }

  exception(error: AwsError): Buffer {
    const headers = encodeEventHeaders({
      ":message-type": "exception",
      ":exception-type": error.type,
      ":content-type": this.#codec.contentType,
    });
    return encodeEvent(headers, Buffer.from(this.#codec.encode({ message: error.message })));
  }

  /** Says only how far the shard has been read. */
  idle(shard: ShardDescription, next: Offset, nowMs: number): Buffer {
    const tail: EventTail = {
      ContinuationSequenceNumber: continuation(shard, next, nowMs),
      MillisBehindLatest: 0,
    };
    return encodeEvent(this.#eventHeaders, this.#codec.encode({ ...tail, Records: [] }));
  }

  /**
   * The first event of what was read from `from` on: as many records as fit, at least one.
   * @param children asked for when the event is the last of its shard
   */
  cut(
    shard: ShardDescription,
    read: ReadResult,
    from: Offset,
    nowMs: number,
    children: () => readonly ChildShard[],
  ): CutEvent {
    const known = this.#cut.get(read);
    if (known?.from === from) return known.shared();
    const page = new RecordPage(shard, from, EVENT_LIMITS);
    const leftOver = read.parts.find((part) => !page.add(part));
    if (leftOver === undefined) page.skipTo(read.next);
    const { next, count } = page;
    const ended = read.ended && next >= read.next;
    const ageMs = leftOver === undefined ? read.behindMs : nowMs - leftOver.arrivalMs;
    // What waits behind the event may be no millisecond old, or even of the future where the clock was set back.
    const behindMs = Math.max(next < shard.latest ? 1 : 0, Math.round(ageMs));
    const tail: EventTail = {
      ...(!ended && { ContinuationSequenceNumber: continuation(shard, next, nowMs) }),
      MillisBehindLatest: behindMs,
      ...(ended && { ChildShards: children() }),
    };
    const headers = this.#eventHeaders;
    const message = sealEvent(
      headers,
      page.encode(this.#codec, tail, (bytes) => answerMemory.take(bytes), eventRoom(headers)),
    );
    const event = new SharedEvent({ message, from, next, records: count, behindMs }, () => {
      if (this.#cut.get(read) === event) this.#cut.delete(read);
      answerMemory.give(message);
    });
    this.#cut.set(read, event);
    return event.shared();
  }
}

class SharedEvent implements CutEvent {
  readonly message: Buffer;
  readonly from: Offset;
  readonly next: Offset;
  readonly records: number;
  readonly behindMs: number;
  readonly #unheld: () => void;
  #holders = 0;

  /** @param unheld called when the last of those that it was shared with has let go of it */
  constructor(event: Omit<CutEvent, "left"> & { readonly from: Offset }, unheld: () => void) {
    this.message = event.message;
    this.from = event.from;
    this.next = event.next;
    this.records = event.records;
    this.behindMs = event.behindMs;
    this.#unheld = unheld;
  }

  shared(): this {
    this.#holders++;
    return this;
  }

  readonly left = (): void => {
    this.#holders--;
    if (this.#holders === 0) this.#unheld();
  };
}

/**
 * The number of the last record before `next`; AFTER_SEQUENCE_NUMBER goes on with it behind that
 * record, so nothing comes twice. Before the first record it is the shard's beginning.
 */
export function continuation(shard: ShardDescription, next: Offset, nowMs: number): string {
  return digitsOf(shard.createdMs, shard.index).text(Math.max(0, next - 1), next === 0 ? 0 : nowMs);
}
