/**
 * Writes records as GetRecords and SubscribeToShard give them, in JSON or CBOR, from the bytes of the
 * log to the bytes of the answer: no object and no string for a record. What differs from one record
 * to the next is written between pieces that are made once:
 *
 *   head: up to the data | data | middle: key and names | sequence number | end
 *
 * Both sides pass through windows of one arena; data too long for them go their own way. Batches and a target that
 * stand in the arena are read and written where they are. As long as
 * nothing is unusual, a batch is written at once (record-simd.ts); the rest of it, record by record.
 * `codec.encode` of plain objects is the plain way of both; the bytes are the same.
 */
import { BatchWalk } from "../../../../protocol/batch-walk.ts";
import { BATCH_HEAD_BYTES } from "../../../../protocol/record-batch.ts";
import {
  digitsOf,
  type Offset,
  SEQUENCE_NUMBER_DIGITS,
  type SequenceDigits,
} from "../../../streams/streams.ts";
import { encodeCbor, Timestamp } from "../wire/cbor.ts";
import type { Codec } from "../wire/codec.ts";
import { writeSeconds } from "../wire/decimal-seconds.ts";
import { AGAIN, MAX_HEAD_BYTES, stateWord } from "./record-simd.ts";
import {
  CBOR_FORM,
  DIGITS_AT,
  IN_AT,
  JSON_FORM,
  MAX_SHORT_BYTES,
  type RecordForm,
  type RecordWindow,
  recordWindow,
  tableEndOf,
} from "./record-window.ts";

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
  readonly #form: RecordForm;
  readonly #digits: SequenceDigits;
  readonly #window: RecordWindow;
  readonly #target: Buffer;
  /** Whether the target is the arena itself, and nothing is to be emptied into it. */
  readonly #isInPlace: boolean;
  /** Where the next byte goes: in the target, and in the window that is emptied into it. */
  #targetAt: number;
  #at: number;
  #headBytes = 0;
  #headMs = Number.NaN;
  #middleBytes = 0;

  /**
   * @param target any memory; or that of the window's arena, in which then all batches stand as well
   * @param at the target has room from here on, by `MAX_FRAME_BYTES` and `ESCAPE_BYTES`
   */
  constructor(
    codec: Codec["name"],
    shard: { readonly createdMs: number; readonly index: number },
    target: Buffer,
    at: number,
    window = recordWindow,
  ) {
    this.#isJson = codec === "json";
    this.#form = this.#isJson ? JSON_FORM : CBOR_FORM;
    this.#digits = digitsOf(shard.createdMs, shard.index);
    this.#target = target;
    this.#isInPlace = target === window.arena.memory;
    this.#targetAt = at;
    this.#at = this.#isInPlace ? at : window.outAt;
    this.#window = window;
  }

  write(stretch: Stretch): void {
    this.#putHead(stretch.arrivalMs);
    const done = this.#writeAtOnce(stretch);
    if (done < stretch.to) this.#writeEach(stretch, done);
  }

  /** @returns up to where it came: what is left is not for it */
  #writeAtOnce({ batch, arrivalMs, first, from, to }: Stretch): Offset {
    const { state, arena, inBytes, outLimit } = this.#window;
    const { memory, view, more } = arena;
    const tableEnd = tableEndOf(batch);
    if (more === undefined || tableEnd < 0) return from;
    if (batch.length > inBytes || this.#headBytes > MAX_HEAD_BYTES) return from;
    // Large records gain nothing by it, and few of a large batch are not worth the copy of all.
    if (batch.length > MAX_COPIED_BYTES * (to - from)) return from;
    const isThere = batch.buffer === memory.buffer;
    const inAt = isThere ? batch.byteOffset : IN_AT;
    if (!isThere) memory.set(batch, IN_AT);
    state[stateWord.runs] = view.getInt32(inAt);
    state[stateWord.table] = inAt + BATCH_HEAD_BYTES;
    state[stateWord.tableEnd] = inAt + tableEnd;
    state[stateWord.body] = inAt + tableEnd;
    state[stateWord.runEnd] = inAt + tableEnd;
    state[stateWord.bodyEnd] = inAt + batch.length;
    state[stateWord.left] = 0;
    state[stateWord.skip] = from - first;
    state[stateWord.take] = to - from;
    state[stateWord.outLimit] = outLimit;
    state[stateWord.headBytes] = this.#headBytes;
    for (;;) {
      if (this.#at > outLimit) this.#makeRoom();
      this.#digits.writeTo(view, DIGITS_AT, to - state[stateWord.take]!, arrivalMs);
      state[stateWord.out] = this.#at;
      const end = this.#isJson ? more.json() : more.cbor();
      this.#at = state[stateWord.out]!;
      if (end !== AGAIN || state[stateWord.take] === 0) return to - state[stateWord.take]!;
    }
  }

  /** @param done what is before it has been written; it is walked over all the same, as that finds what is unsound */
  #writeEach({ batch, arrivalMs, first, from, to }: Stretch, done: Offset): void {
    const { memory, view, move, base64 } = this.#window.arena;
    const { outLimit } = this.#window;
    const walk = new BatchWalk(batch);
    const { bytes } = walk;
    const isJson = this.#isJson;
    const headBytes = this.#headBytes;
    const { headAt, beforeKeyAt } = this.#form;
    let offset = first;
    // What of the batch stands in the arena, and where that begins.
    const isThere = batch.buffer === memory.buffer;
    const windowAt = isThere ? batch.byteOffset : IN_AT;
    let windowFrom = 0;
    let windowTo = isThere ? bytes.length : 0;
    const maxShort = this.#isInPlace ? bytes.length : MAX_SHORT_BYTES;
    while (offset < to && walk.nextRun()) {
      if (offset + walk.count <= from) {
        offset += walk.count;
        continue;
      }
      if (offset + walk.count > done) this.#putMiddle(bytes, walk.keyAt, walk.keyEnd);
      const middleBytes = this.#middleBytes;
      for (; offset < to && walk.nextRecord(); offset++) {
        if (offset < done) continue;
        const { payloadAt, payloadEnd } = walk;
        if (this.#at > outLimit) this.#makeRoom();
        let at = this.#at;
        move(headAt, headAt + headBytes, at);
        at += headBytes;
        if (payloadEnd - payloadAt > maxShort) at = this.#passBy(bytes, payloadAt, payloadEnd, at);
        else {
          if (payloadAt < windowFrom || payloadEnd > windowTo) {
            windowFrom = payloadAt;
            windowTo = Math.min(bytes.length, payloadAt + EACH_BYTES);
            memory.set(bytes.subarray(windowFrom, windowTo), IN_AT);
          }
          const inAt = windowAt + payloadAt - windowFrom;
          const inEnd = inAt + payloadEnd - payloadAt;
          if (isJson) at = base64(inAt, inEnd, at);
          else {
            at = putCborHead(view, at, 0x40, payloadEnd - payloadAt);
            move(inAt, inEnd, at);
            at += inEnd - inAt;
          }
        }
        move(beforeKeyAt, beforeKeyAt + middleBytes, at);
        at += middleBytes;
        this.#digits.writeTo(view, at, offset, arrivalMs);
        at += SEQUENCE_NUMBER_DIGITS;
        if (isJson) at += memory.write('"},', at, "latin1");
        this.#at = at;
      }
    }
  }

  /** @returns where the last record ends in the target; in JSON with a comma behind it */
  end(): number {
    this.#empty();
    return this.#targetAt;
  }

  #makeRoom(): void {
    if (this.#isInPlace) throw new RangeError("a page is larger than it was measured");
    this.#empty();
  }

  #empty(): void {
    if (this.#isInPlace) {
      this.#targetAt = this.#at;
      return;
    }
    const { arena, outAt } = this.#window;
    this.#target.set(arena.memory.subarray(outAt, this.#at), this.#targetAt);
    this.#targetAt += this.#at - outAt;
    this.#at = outAt;
  }

  /** Data that are too long for the windows, straight into the target. @returns the new place in the window */
  #passBy(bytes: Buffer, from: number, end: number, at: number): number {
    this.#at = this.#isJson ? at : putCborHead(this.#window.arena.view, at, 0x40, end - from);
    this.#empty();
    if (this.#isJson) {
      this.#targetAt += this.#target.write(bytes.toString("base64", from, end), this.#targetAt, "latin1");
    } else {
      this.#target.set(bytes.subarray(from, end), this.#targetAt);
      this.#targetAt += end - from;
    }
    return this.#at;
  }

  /** From a record's beginning to its data. */
  #putHead(arrivalMs: number): void {
    if (arrivalMs === this.#headMs) return;
    const { memory } = this.#window.arena;
    const { headAt, timeAt, texts } = this.#form;
    const timeBytes = this.#isJson
      ? writeSeconds(memory, timeAt, arrivalMs)
      : encodeCbor(new Timestamp(arrivalMs)).copy(memory, timeAt);
    memory.set(texts.behindTime, timeAt + timeBytes);
    this.#headBytes = timeAt + timeBytes + texts.behindTime.length - headAt;
    this.#headMs = arrivalMs;
  }

  /** From a record's data to its sequence number. */
  #putMiddle(bytes: Buffer, keyFrom: number, keyEnd: number): void {
    const { memory, view, move } = this.#window.arena;
    const { beforeKeyAt, keyAt, nameAt, nameBytes } = this.#form;
    let at = keyAt;
    let copyFrom = keyFrom;
    if (!this.#isJson) at = putCborHead(view, at, 0x60, keyEnd - keyFrom);
    else if (escapedBytes(bytes, keyFrom, keyEnd) > 0) {
      at += memory.write(JSON.stringify(bytes.toString("utf8", keyFrom, keyEnd)).slice(1, -1), at);
      copyFrom = keyEnd;
    }
    for (let i = copyFrom; i < keyEnd; i++) memory[at++] = bytes[i]!;
    move(nameAt, nameAt + nameBytes, at);
    this.#middleBytes = at + nameBytes - beforeKeyAt;
  }
}

/** So much of a batch is copied at most for each record that is written of it. */
const MAX_COPIED_BYTES = 4_096;
/** Of larger batches so much is copied at once, from a record's data on. */
const EACH_BYTES = 262_144;

/** As `cborHead`, in place. */
function putCborHead(view: DataView, at: number, major: number, length: number): number {
  if (length < 24) {
    view.setUint8(at, major | length);
    return at + 1;
  }
  if (length < 0x100) {
    view.setUint8(at, major | 24);
    view.setUint8(at + 1, length);
    return at + 2;
  }
  if (length < 0x1_0000) {
    view.setUint8(at, major | 25);
    view.setUint16(at + 1, length);
    return at + 3;
  }
  view.setUint8(at, major | 26);
  view.setUint32(at + 1, length);
  return at + 5;
}
