/**
 * The memory through which records pass on their way from the log into an answer: a window for what comes
 * in, one for what goes out, and the pieces that stand between the parts of a record, put there once.
 * The functions of batch-simd.ts and record-simd.ts work on it. A window that holds a whole page and all that it
 * is made of can be shared with the thread that answers (page-thread.ts).
 */
import { asBuffer, BATCH_HEAD_BYTES, RECORD_HEAD_BYTES } from "../../../../protocol/record-batch.ts";
import { SEQUENCE_NUMBER_DIGITS } from "../../../streams/streams.ts";
import { type ByteArena, makeByteArena } from "../wire/byte-arena.ts";
import { cborHead, encodeCbor } from "../wire/cbor.ts";
import { measureFunction } from "./batch-simd.ts";
import { type RecordPieces, ROOM_BEHIND_BYTES, STATE_BYTES, writeFunction } from "./record-simd.ts";

/** What a character that JSON escapes takes more than its byte. */
export const ESCAPE_BYTES = 5;
/** Data longer than this are left to Buffer, which is the faster the longer they are. */
export const MAX_SHORT_BYTES = 16_384;

const STATE_AT = 0;
export const DIGITS_AT = 64;
const MEASURED_AT = 128;
/** Each form has room for a head, a name, and a key of 1,024 bytes that are all escaped between names. */
const JSON_AT = 256;
const CBOR_AT = 8_192;
export const IN_AT = 16_384;
/** Batches up to this size are written at once, of larger ones each record by itself. */
export const IN_BYTES = 4 * 1_048_576;
const OUT_BYTES = 262_144;
/** The most that a record with short data takes. */
const ROOM_BYTES = 2 * MAX_SHORT_BYTES + 8_192;
/** Of a shared window: the data of the largest page with their heads and keys, and what the page may take. */
export const SHARED_IN_BYTES = 12 * 1_048_576;
export const SHARED_OUT_BYTES = 20 * 1_048_576;

/** What stands between the parts of a record; names come in the order of the alphabet. */
export interface RecordForm extends RecordPieces {
  readonly timeAt: number;
  readonly keyAt: number;
  readonly texts: {
    readonly beforeTime: Buffer;
    readonly behindTime: Buffer;
    readonly beforeKey: Buffer;
    readonly name: Buffer;
  };
}

function placeForm(at: number, texts: RecordForm["texts"]): RecordForm {
  const [headAt, nameAt, beforeKeyAt] = [at, at + 128, at + 192];
  return {
    ...{ stateAt: STATE_AT, digitsAt: DIGITS_AT, headAt, timeAt: headAt + texts.beforeTime.length },
    ...{ beforeKeyAt, beforeKeyBytes: texts.beforeKey.length, keyAt: beforeKeyAt + texts.beforeKey.length },
    ...{ nameAt, nameBytes: texts.name.length, texts },
  };
}

export const JSON_FORM = placeForm(JSON_AT, {
  beforeTime: Buffer.from('{"ApproximateArrivalTimestamp":'),
  behindTime: Buffer.from(',"Data":"'),
  beforeKey: Buffer.from('","PartitionKey":"'),
  name: Buffer.from('","SequenceNumber":"'),
});

export const CBOR_FORM = placeForm(CBOR_AT, {
  beforeTime: Buffer.concat([cborHead(5, 4), encodeCbor("ApproximateArrivalTimestamp")]),
  behindTime: encodeCbor("Data"),
  beforeKey: encodeCbor("PartitionKey"),
  name: Buffer.concat([encodeCbor("SequenceNumber"), cborHead(3, SEQUENCE_NUMBER_DIGITS)]),
});

/** What the table of a batch tells of its records. */
export interface Measure {
  readonly records: number;
  readonly dataBytes: number;
  /** As JSON has them. */
  readonly keyBytes: number;
}

export class RecordWindow {
  readonly arena: ByteArena<"measure" | "json" | "cbor">;
  readonly inBytes: number;
  readonly outAt: number;
  /** Behind it no record is begun. */
  readonly outLimit: number;
  /** Of `json` and `cbor`, by `stateWord`. */
  readonly state: Int32Array;

  /** @param how "shared" for one that other threads see; "plain" for its oracle */
  constructor(how: "fastest" | "shared" | "plain" = "fastest") {
    const [inBytes, outBytes] =
      how === "shared" ? [SHARED_IN_BYTES, SHARED_OUT_BYTES + ROOM_BYTES] : [IN_BYTES, OUT_BYTES];
    this.inBytes = inBytes;
    this.outAt = IN_AT + inBytes + ROOM_BEHIND_BYTES;
    this.outLimit = this.outAt + outBytes - ROOM_BYTES;
    this.arena = makeByteArena(this.outAt + outBytes + ROOM_BEHIND_BYTES, how, {
      measure: measureFunction(ESCAPE_BYTES),
      json: writeFunction("json", JSON_FORM, MAX_SHORT_BYTES),
      cbor: writeFunction("cbor", CBOR_FORM, MAX_SHORT_BYTES),
    });
    const { memory } = this.arena;
    this.state = new Int32Array(memory.buffer, memory.byteOffset + STATE_AT, STATE_BYTES / 4);
    for (const { headAt, beforeKeyAt, nameAt, texts } of [JSON_FORM, CBOR_FORM]) {
      memory.set(texts.beforeTime, headAt);
      memory.set(texts.beforeKey, beforeKeyAt);
      memory.set(texts.name, nameAt);
    }
  }

  /** @returns undefined when it is left to a walk: the table is too long, or the batch not sound */
  measure(batch: Uint8Array): Measure | undefined {
    const { memory, view, more } = this.arena;
    const tableEnd = tableEndOf(batch);
    if (more === undefined || tableEnd < 0 || tableEnd > this.inBytes) return undefined;
    memory.set(batch.subarray(0, tableEnd), IN_AT);
    const bodyBytes = batch.length - tableEnd;
    const table = IN_AT + BATCH_HEAD_BYTES;
    const records = more.measure(table, IN_AT + tableEnd, view.getUint32(IN_AT), bodyBytes, MEASURED_AT);
    if (records < 0) return undefined;
    const dataBytes = bodyBytes - records * RECORD_HEAD_BYTES;
    return { records, dataBytes, keyBytes: view.getFloat64(MEASURED_AT, true) };
  }
}

/** -1 when it would lie behind the batch. */
export function tableEndOf(batch: Uint8Array): number {
  if (batch.length < BATCH_HEAD_BYTES) return -1;
  const end = BATCH_HEAD_BYTES + asBuffer(batch).readUInt32BE(4);
  return end <= batch.length ? end : -1;
}

/** Filled and emptied without a break in between, so that one is enough for all. */
export const recordWindow = new RecordWindow();
