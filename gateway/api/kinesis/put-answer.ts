/**
 * The answer of PutRecords, written as bytes: a template of one record, repeated, in which only the
 * digits of the sequence number and of the shard are put. In JSON and in CBOR alike.
 */

import { type PlacedColumns, SEQUENCE_NUMBER_DIGITS, SequenceDigits } from "../../streams/streams.ts";
import { shardIdOf } from "./account.ts";
import { cborHead, encodeCbor } from "./cbor.ts";
import type { Codec } from "./codec.ts";

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

const ZERO = 0x30;
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
  const out = Buffer.allocUnsafe(recordsEnd + tail.length);
  begin.copy(out);
  out.fill(record, begin.length, recordsEnd);
  const digits = new DigitsByShard(createdOf);
  for (let i = 0, at = begin.length; i < count; i++, at += record.length) {
    const shard = shards[i]!;
    digits.of(shard).write(out, at + sequenceAt, offsets[i]!, arrivalMs);
    for (let left = shard, to = at + shardEnd - 1; left > 0; to--) {
      const tens = Math.floor(left / 10);
      out[to] = ZERO + left - tens * 10;
      left = tens;
    }
  }
  const end = separated ? recordsEnd - 1 : recordsEnd;
  tail.copy(out, end);
  return out.subarray(0, end + tail.length);
}

/** The shards of one answer, each with its own run of sequence numbers. */
class DigitsByShard {
  readonly #createdOf: (shard: number) => number;
  readonly #known = new Map<number, SequenceDigits>();
  #lastShard = -1;
  #last: SequenceDigits | undefined;

  constructor(createdOf: (shard: number) => number) {
    this.#createdOf = createdOf;
  }

  of(shard: number): SequenceDigits {
    if (this.#last !== undefined && shard === this.#lastShard) return this.#last;
    let digits = this.#known.get(shard);
    if (digits === undefined) {
      digits = new SequenceDigits(this.#createdOf(shard), shard);
      this.#known.set(shard, digits);
    }
    this.#lastShard = shard;
    this.#last = digits;
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
