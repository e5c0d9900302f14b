/**
 * The messages of a subscription, in the form of its request: JSON 1.1 or CBOR. What was read from the
 * log is cut into events of bounded size.
 *
 *   initial-response | SubscribeToShardEvent … | exception, if it does not end in peace
 */
import { forEachRecord } from "../../../protocol/record-batch.ts";
import {
  formatSequenceNumber,
  type LogPart,
  type Offset,
  type ReadResult,
  type ShardDescription,
} from "../../streams/streams.ts";
import type { AwsError } from "../aws-error.ts";
import { encodeEvent, encodeEventHeaders } from "../event-stream.ts";
import { type Codec, Timestamp } from "./codec.ts";

/** Bytes of data in one event; a single record may be larger. In JSON a third is added to them. */
export const MAX_EVENT_BYTES = 524_288;
const MAX_EVENT_RECORDS = 10_000;

/** Of an event that ends a shard. */
export interface ChildShard {
  readonly ShardId: string;
  readonly ParentShards: readonly string[];
  readonly HashKeyRange: { readonly StartingHashKey: string; readonly EndingHashKey: string };
}

interface EventTail {
  /** Missing once the shard has ended: clients know the end by it. */
  readonly ContinuationSequenceNumber?: string;
  readonly MillisBehindLatest: number;
  readonly ChildShards?: readonly ChildShard[];
}

export interface CutEvent {
  readonly message: Buffer;
  /** What comes behind it. */
  readonly next: Offset;
  readonly records: number;
}

export class SubscriptionEvents {
  readonly initial: Buffer;
  readonly #codec: Codec;
  readonly #eventHeaders: Buffer;
  /** What several subscriptions of a shard are given alike is encoded once. */
  readonly #cut = new WeakMap<ReadResult, { readonly from: Offset; readonly event: CutEvent }>();

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
    return this.#encode([], {
      ContinuationSequenceNumber: continuation(shard, next, nowMs),
      MillisBehindLatest: 0,
    });
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
    if (known?.from === from) return known.event;
    const taken = this.#codec.name === "json" ? new JsonRecords() : new PlainRecords();
    const next = take(shard, read, from, taken);
    const whole = next >= read.next;
    const tail = {
      ...(!(whole && read.ended) && { ContinuationSequenceNumber: continuation(shard, next, nowMs) }),
      MillisBehindLatest: whole
        ? Math.round(read.behindMs)
        : Math.max(1, Math.round(nowMs - taken.arrivalMs)),
      ...(whole && read.ended && { ChildShards: children() }),
    };
    const event = { message: this.#encode(taken.records, tail), next, records: taken.records.length };
    this.#cut.set(read, { from, event });
    return event;
  }

  #encode(records: readonly unknown[], tail: EventTail): Buffer {
    if (this.#codec.name === "cbor") {
      return encodeEvent(this.#eventHeaders, this.#codec.encode({ Records: records, ...tail }));
    }
    // Base64, escaped keys and numbers: all of it is ASCII.
    const rest = JSON.stringify(tail).slice(1);
    return encodeEvent(this.#eventHeaders, `{"Records":[${records.join(",")}],${rest}`);
  }
}

/**
 * The number of the last record before `next`; AFTER_SEQUENCE_NUMBER goes on with it behind that
 * record, so nothing comes twice. Before the first record it is the shard's beginning.
 */
export function continuation(shard: ShardDescription, next: Offset, nowMs: number): string {
  return formatSequenceNumber({
    shardCreatedMs: shard.createdMs,
    shardIndex: shard.index,
    offset: Math.max(0, next - 1),
    arrivalMs: next === 0 ? 0 : nowMs,
  });
}

interface TakenRecords {
  readonly records: readonly unknown[];
  arrivalMs: number;
  add(key: string, payload: Buffer, sequenceNumber: string): void;
}

class JsonRecords implements TakenRecords {
  readonly records: string[] = [];
  arrivalMs = 0;
  #key = "";
  #keyJson = '""';

  add(key: string, payload: Buffer, sequenceNumber: string): void {
    if (key !== this.#key) {
      this.#key = key;
      this.#keyJson = asciiJson(key);
    }
    this.records.push(
      `{"ApproximateArrivalTimestamp":${this.arrivalMs / 1000},"Data":"${payload.toString("base64")}","PartitionKey":${this.#keyJson},"SequenceNumber":"${sequenceNumber}"}`,
    );
  }
}

class PlainRecords implements TakenRecords {
  readonly records: object[] = [];
  arrivalMs = 0;

  add(key: string, payload: Buffer, sequenceNumber: string): void {
    this.records.push({
      ApproximateArrivalTimestamp: new Timestamp(this.arrivalMs),
      Data: payload,
      PartitionKey: key,
      SequenceNumber: sequenceNumber,
    });
  }
}

/** @returns the offset behind the last record taken */
function take(shard: ShardDescription, read: ReadResult, from: Offset, taken: TakenRecords): Offset {
  let next = from;
  let bytes = 0;
  let full = false;
  const takePart = (part: LogPart): void => {
    let at = part.first;
    taken.arrivalMs = part.arrivalMs;
    for (const run of part.runs) {
      if (full) return;
      if (at + run.count <= from) {
        at += run.count;
        continue;
      }
      forEachRecord(run, (payload) => {
        const offset = at++;
        if (full || offset < from) return;
        const count = taken.records.length;
        if (count > 0 && (bytes + payload.length > MAX_EVENT_BYTES || count >= MAX_EVENT_RECORDS)) {
          full = true;
          return;
        }
        bytes += payload.length;
        next = offset + 1;
        const parts = { shardCreatedMs: shard.createdMs, shardIndex: shard.index, offset };
        taken.add(run.key, payload, formatSequenceNumber({ ...parts, arrivalMs: part.arrivalMs }));
      });
    }
  };
  for (const part of read.parts) {
    if (full) break;
    takePart(part);
  }
  // Retention may have moved the position on without a record to show for it.
  return full ? next : Math.max(next, read.next);
}

function asciiJson(text: string): string {
  return JSON.stringify(text).replace(
    /[\u0080-\uffff]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}
