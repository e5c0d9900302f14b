/**
 * Writes records as GetRecords and SubscribeToShard give them, in JSON or CBOR, from the bytes of the
 * log to the bytes of the answer: no object and no string for a record. What differs from one record
 * to the next is written between pieces that are made once:
 *
 *   head: up to the data | data | middle: key and names | sequence number | end
 *
 * Both sides pass through windows of one arena; data too long for them go their own way.
 * `codec.encode` of plain objects is the plain way; the bytes are the same.
 */
import { BatchWalk } from "../../../protocol/batch-walk.ts";
import { type Offset, SEQUENCE_NUMBER_DIGITS, SequenceDigits } from "../../streams/streams.ts";
import { makeByteArena, SLACK_BYTES } from "./byte-arena.ts";
import { cborHead, encodeCbor, Timestamp } from "./cbor.ts";
import type { Codec } from "./codec.ts";

/** Consecutive records of one batch. */
export interface Stretch {
  readonly batch: Uint8Array;
  readonly arrivalMs: number;
  /** Of the batch's first record. */
  readonly first: Offset;
  /** Those that are written: from here up to, not including, there. */
  readonly from: Offset;
  readonly to: Offset;
}

/** At most so much is written for a record beside its data and key, in either form. */
export const MAX_FRAME_BYTES = 192;
/** What a character that JSON escapes takes more than its byte. */
export const ESCAPE_BYTES = 5;
/** Data longer than this are left to Buffer, which is the faster the longer they are. */
const MAX_SHORT_BYTES = 16_384;

/** Where the pieces stand in the arena; what never changes of them is put there once. */
const HEAD_AT = 0;
const JSON_NAME_AT = 128;
const CBOR_NAME_AT = 192;
/** Each has room for a key of 1,024 bytes that are all escaped. */
const JSON_MIDDLE_AT = 256;
const CBOR_MIDDLE_AT = 8_192;
const IN_AT = 16_384;
const IN_BYTES = 256 * 1_024;
const OUT_AT = IN_AT + IN_BYTES + SLACK_BYTES;
const OUT_BYTES = 256 * 1_024;
/** The most that a record with short data takes. */
const ROOM_BYTES = 2 * MAX_SHORT_BYTES + 8_192;

// Filled and emptied without a break in between, so one is enough for all.
const { memory, view, move, base64 } = makeByteArena(OUT_AT + OUT_BYTES + SLACK_BYTES);

const isEscaped = Uint8Array.from({ length: 256 }, (_, byte) =>
  byte < 0x20 || byte === 0x22 || byte === 0x5c ? 1 : 0,
);

/** How many bytes of a key JSON escapes; of what is not ASCII it escapes nothing. */
export function escapedBytes(bytes: Uint8Array, at: number, end: number): number {
  let escaped = 0;
  for (let i = at; i < end; i++) escaped += isEscaped[bytes[i]!]!;
  return escaped;
}

export class RecordWriter {
  readonly #isJson: boolean;
  readonly #names: Names;
  readonly #digits: SequenceDigits;
  readonly #target: Buffer;
  /** Where the next byte goes: in the target, and in the window that is emptied into it. */
  #targetAt: number;
  #at = OUT_AT;
  #headBytes = 0;
  #middleBytes = 0;

  /** @param at the target has room from here on, by `MAX_FRAME_BYTES` and `ESCAPE_BYTES` */
  constructor(
    codec: Codec["name"],
    shard: { readonly createdMs: number; readonly index: number },
    target: Buffer,
    at: number,
  ) {
    this.#isJson = codec === "json";
    this.#names = this.#isJson ? JSON_NAMES : CBOR_NAMES;
    this.#digits = new SequenceDigits(shard.createdMs, shard.index);
    this.#target = target;
    this.#targetAt = at;
  }

  write({ batch, arrivalMs, first, from, to }: Stretch): void {
    const walk = new BatchWalk(batch);
    const { bytes } = walk;
    const isJson = this.#isJson;
    this.#putHead(arrivalMs);
    const headBytes = this.#headBytes;
    const { middleAt } = this.#names;
    let offset = first;
    let windowFrom = 0;
    let windowTo = 0;
    while (offset < to && walk.nextRun()) {
      if (offset + walk.count <= from) {
        offset += walk.count;
        continue;
      }
      this.#putMiddle(bytes, walk.keyAt, walk.keyEnd);
      const middleBytes = this.#middleBytes;
      for (; offset < to && walk.nextRecord(); offset++) {
        if (offset < from) continue;
        const { payloadAt, payloadEnd } = walk;
        if (this.#at + ROOM_BYTES > OUT_AT + OUT_BYTES) this.#empty();
        let at = this.#at;
        move(HEAD_AT, HEAD_AT + headBytes, at);
        at += headBytes;
        if (payloadEnd - payloadAt > MAX_SHORT_BYTES) at = this.#passBy(bytes, payloadAt, payloadEnd, at);
        else {
          if (payloadAt < windowFrom || payloadEnd > windowTo) {
            windowFrom = payloadAt;
            windowTo = Math.min(bytes.length, payloadAt + IN_BYTES);
            memory.set(bytes.subarray(windowFrom, windowTo), IN_AT);
          }
          const inAt = IN_AT + payloadAt - windowFrom;
          const inEnd = inAt + payloadEnd - payloadAt;
          if (isJson) at = base64(inAt, inEnd, at);
          else {
            at = putBytesHead(at, payloadEnd - payloadAt);
            move(inAt, inEnd, at);
            at += inEnd - inAt;
          }
        }
        move(middleAt, middleAt + middleBytes, at);
        at += middleBytes;
        this.#digits.writeTo(view, at, offset, arrivalMs);
        at += SEQUENCE_NUMBER_DIGITS;
        if (isJson) at = putJsonEnd(at);
        this.#at = at;
      }
    }
  }

  /** @returns where the last record ends in the target; in JSON with a comma behind it */
  end(): number {
    this.#empty();
    return this.#targetAt;
  }

  #empty(): void {
    this.#target.set(memory.subarray(OUT_AT, this.#at), this.#targetAt);
    this.#targetAt += this.#at - OUT_AT;
    this.#at = OUT_AT;
  }

  /** Data that are too long for the windows, straight into the target. @returns the new place in the window */
  #passBy(bytes: Buffer, from: number, end: number, at: number): number {
    this.#at = this.#isJson ? at : putBytesHead(at, end - from);
    this.#empty();
    if (this.#isJson) {
      this.#targetAt += this.#target.write(bytes.toString("base64", from, end), this.#targetAt, "latin1");
    } else {
      this.#target.set(bytes.subarray(from, end), this.#targetAt);
      this.#targetAt += end - from;
    }
    return this.#at;
  }

  /** From a record's beginning to its data; names come in the order of the alphabet. */
  #putHead(arrivalMs: number): void {
    if (this.#isJson) {
      const head = `{"ApproximateArrivalTimestamp":${arrivalMs / 1000},"Data":"`;
      this.#headBytes = memory.write(head, HEAD_AT, "latin1");
      return;
    }
    const head = [
      cborHead(5, 4),
      encodeCbor("ApproximateArrivalTimestamp"),
      encodeCbor(new Timestamp(arrivalMs)),
      encodeCbor("Data"),
    ];
    this.#headBytes = Buffer.concat(head).copy(memory, HEAD_AT);
  }

  /** From a record's data to its sequence number. */
  #putMiddle(bytes: Buffer, keyAt: number, keyEnd: number): void {
    const { beforeKey, keyPlace, nameAt, nameBytes } = this.#names;
    let at = keyPlace;
    let copyFrom = keyAt;
    if (!this.#isJson) at = putTextHead(at, keyEnd - keyAt);
    else if (escapedBytes(bytes, keyAt, keyEnd) > 0) {
      at += memory.write(JSON.stringify(bytes.toString("utf8", keyAt, keyEnd)).slice(1, -1), at);
      copyFrom = keyEnd;
    }
    for (let i = copyFrom; i < keyEnd; i++) memory[at++] = bytes[i]!;
    move(nameAt, nameAt + nameBytes, at);
    this.#middleBytes = at + nameBytes - keyPlace + beforeKey;
  }
}

/** The names around the key: what stands before it leads up to the key's place, what stands behind it is kept at `nameAt`. */
interface Names {
  readonly middleAt: number;
  readonly beforeKey: number;
  readonly keyPlace: number;
  readonly nameAt: number;
  readonly nameBytes: number;
}

function placeNames(middleAt: number, before: Buffer, nameAt: number, name: Buffer): Names {
  memory.set(before, middleAt);
  memory.set(name, nameAt);
  return {
    middleAt,
    beforeKey: before.length,
    keyPlace: middleAt + before.length,
    nameAt,
    nameBytes: name.length,
  };
}

const JSON_NAMES = placeNames(
  JSON_MIDDLE_AT,
  Buffer.from('","PartitionKey":"'),
  JSON_NAME_AT,
  Buffer.from('","SequenceNumber":"'),
);

const CBOR_NAMES = placeNames(
  CBOR_MIDDLE_AT,
  encodeCbor("PartitionKey"),
  CBOR_NAME_AT,
  Buffer.concat([encodeCbor("SequenceNumber"), cborHead(3, SEQUENCE_NUMBER_DIGITS)]),
);

/** `"},` */
function putJsonEnd(at: number): number {
  memory[at] = 0x22;
  memory[at + 1] = 0x7d;
  memory[at + 2] = 0x2c;
  return at + 3;
}

function putBytesHead(at: number, length: number): number {
  return putCborHead(at, 0x40, length);
}

function putTextHead(at: number, length: number): number {
  return putCborHead(at, 0x60, length);
}

/** As `cborHead`, in place. */
function putCborHead(at: number, major: number, length: number): number {
  if (length < 24) {
    memory[at] = major | length;
    return at + 1;
  }
  if (length < 0x100) {
    memory[at] = major | 24;
    memory[at + 1] = length;
    return at + 2;
  }
  if (length < 0x1_0000) {
    memory[at] = major | 25;
    view.setUint16(at + 1, length);
    return at + 3;
  }
  memory[at] = major | 26;
  view.setUint32(at + 1, length);
  return at + 5;
}
