/**
 * The answer of PutRecords, written as bytes: a template of one record, repeated, in which only the
 * digits of the sequence number and of the shard are put. In JSON and in CBOR alike.
 */

import {
  type PlacedColumns,
  SEQUENCE_NUMBER_DIGITS,
  SequenceDigits,
  writeFourDigits,
} from "../../../streams/streams.ts";
import { memoryForAnswer } from "../../answers/answer-memory.ts";
import { shardIdOf } from "../account.ts";
import { cborHead, encodeCbor } from "../wire/cbor.ts";
import type { Codec } from "../wire/codec.ts";

/** Records that were left out, by their place in the request: -1, or the shard that takes no more. */
export interface RefusedPuts {
  readonly by: Int32Array;
  readonly count: number;
  readonly message: (shard: number) => string;
}

/** One record's part of an answer, and where its digits stand. */
interface Template {
  readonly record: Buffer;
  readonly sequenceAt: number;
  /** Behind the last digit of the shard's number. */
  readonly shardEnd: number;
  readonly head: (failed: number, count: number) => Buffer;
  /** Each record's last byte separates it from the next; the last record's is replaced by it. */
  readonly tail: Buffer;
  readonly separated: boolean;
}

const NO_DIGITS = "0".repeat(SEQUENCE_NUMBER_DIGITS);
const NO_SHARD = shardIdOf(0);

const json = template(
  Buffer.from(`{"SequenceNumber":"${NO_DIGITS}","ShardId":"${NO_SHARD}"},`),
  (failed) => Buffer.from(`{"FailedRecordCount":${failed},"Records":[`),
  Buffer.from("]}"),
  true,
);

const cbor = template(
  encodeCbor({ SequenceNumber: NO_DIGITS, ShardId: NO_SHARD }),
  (failed, count) =>
    Buffer.concat([
      cborHead(5, 2),
      encodeCbor("FailedRecordCount"),
      encodeCbor(failed),
      encodeCbor("Records"),
      cborHead(4, count),
    ]),
  Buffer.alloc(0),
  false,
);

function template(record: Buffer, head: Template["head"], tail: Buffer, separated: boolean): Template {
  const sequenceAt = record.indexOf(NO_DIGITS);
  const shardEnd = record.indexOf(NO_SHARD) + NO_SHARD.length;
  return { record, sequenceAt, shardEnd, head, tail, separated };
}

/** @param createdOf when a shard was made */
export function putAnswer(
  placed: PlacedColumns,
  createdOf: (shard: number) => number,
  refused: RefusedPuts | undefined,
  codec: Codec,
): string | Buffer {
  if (refused !== undefined) return codec.encode(mixedAnswer(placed, createdOf, refused));
  const { record, sequenceAt, shardEnd, head, tail, separated } = codec.name === "json" ? json : cbor;
  const { shards, offsets, arrivalMs } = placed;
  const count = shards.length;
  const begin = head(0, count);
  const recordsEnd = begin.length + count * record.length;
  const out = memoryForAnswer(recordsEnd + tail.length);
  begin.copy(out);
  out.fill(record, begin.length, recordsEnd);
  const view = new DataView(out.buffer, out.byteOffset, out.length);
  const digits = new DigitsByShard(createdOf);
  for (let i = 0, at = begin.length; i < count; i++, at += record.length) {
    const shard = shards[i]!;
    digits.of(shard).writeTo(view, at + sequenceAt, offsets[i]!, arrivalMs);
    for (let left = shard, to = at + shardEnd - 4; left > 0; to -= 4) {
      const above = left < 10_000 ? 0 : Math.floor(left / 10_000);
      writeFourDigits(view, to, left - above * 10_000);
      left = above;
    }
  }
  const end = separated ? recordsEnd - 1 : recordsEnd;
  tail.copy(out, end);
  return out.subarray(0, end + tail.length);
}

interface Numbering {
  shard: number;
  createdMs: number;
  /** The answer in which the shard was last looked up. */
  answer: number;
  digits: SequenceDigits;
}

const MAX_NUMBERINGS = 4_096;
/** By the shard's number; whichever was used last of those that share a place. */
const numberings: Array<Numbering | undefined> = new Array(MAX_NUMBERINGS).fill(undefined);
let answers = 0;

/** The shards of one answer, each with its own run of sequence numbers. */
class DigitsByShard {
  readonly #createdOf: (shard: number) => number;
  readonly #answer = ++answers;

  constructor(createdOf: (shard: number) => number) {
    this.#createdOf = createdOf;
  }

  of(shard: number): SequenceDigits {
    const known = numberings[shard % MAX_NUMBERINGS];
    if (known !== undefined && known.answer === this.#answer && known.shard === shard) return known.digits;
    return this.#lookedUp(shard, known);
  }

  /** Shards of several streams take turns in a place. */
  #lookedUp(shard: number, known: Numbering | undefined): SequenceDigits {
    const createdMs = this.#createdOf(shard);
    if (known !== undefined && known.shard === shard && known.createdMs === createdMs) {
      known.answer = this.#answer;
      return known.digits;
    }
    const digits = new SequenceDigits(createdMs, shard);
    numberings[shard % MAX_NUMBERINGS] = { shard, createdMs, answer: this.#answer, digits };
    return digits;
  }
}

function mixedAnswer(
  placed: PlacedColumns,
  createdOf: (shard: number) => number,
  refused: RefusedPuts,
): object {
  const digits = new DigitsByShard(createdOf);
  const text = Buffer.alloc(SEQUENCE_NUMBER_DIGITS);
  let next = 0;
  const Records = Array.from(refused.by, (refusedBy) => {
    if (refusedBy !== -1) {
      return {
        ErrorCode: "ProvisionedThroughputExceededException",
        ErrorMessage: refused.message(refusedBy),
      };
    }
    const i = next++;
    const shard = placed.shards[i]!;
    digits.of(shard).write(text, 0, placed.offsets[i]!, placed.arrivalMs);
    return { SequenceNumber: text.toString("latin1"), ShardId: shardIdOf(shard) };
  });
  return { FailedRecordCount: refused.count, Records };
}
