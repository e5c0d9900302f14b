/**
 * What one message of a stream holds: the records that one publish left, in their order.
 *
 *   u8 version | u8 0 | u16 0 | u32 hashCount | u64 arrivalMs | hashes | record batch
 *   hashes: per run that has one   u32 run | 16 bytes, big-endian                 all rising by run
 *
 * The place of a record is the message's sequence × 2^17 + its index in the message.
 */
import {
  asBuffer,
  type BatchRecord,
  decodeBatch,
  encodeInOrder,
  joinRuns,
  MalformedBatchError,
  type Run,
  readUInt53,
  writeUInt53,
} from "../../../../../protocol/record-batch.ts";
import type { Offset } from "../../../streams.ts";

/** A frame may announce 100,000 records; 2^36 messages leave every offset exact in a double. */
export const RECORDS_PER_MESSAGE = 131_072;
const VERSION = 1;
const HEAD_BYTES = 16;
const HASH_BYTES = 20;

/** A run whose records may all carry the same explicit hash. */
export interface HashedRun extends Run {
  readonly hash?: bigint;
}

export interface EntryContent {
  readonly arrivalMs: number;
  readonly runs: readonly HashedRun[];
}

export function offsetOf(sequence: number, index = 0): Offset {
  return sequence * RECORDS_PER_MESSAGE + index;
}

export function sequenceOf(offset: Offset): number {
  return Math.floor(offset / RECORDS_PER_MESSAGE);
}

export function encodeEntry(arrivalMs: number, runs: readonly HashedRun[]): Buffer {
  const hashed = runs.flatMap(({ hash }, run) => (hash === undefined ? [] : [{ run, hash }]));
  const head = Buffer.alloc(HEAD_BYTES + hashed.length * HASH_BYTES);
  head[0] = VERSION;
  head.writeUInt32BE(hashed.length, 4);
  writeUInt53(head, arrivalMs, 8);
  let at = HEAD_BYTES;
  for (const { run, hash } of hashed) {
    head.writeUInt32BE(run, at);
    head.writeBigUInt64BE(hash >> 64n, at + 4);
    head.writeBigUInt64BE(hash & 0xffff_ffff_ffff_ffffn, at + 12);
    at += HASH_BYTES;
  }
  return Buffer.concat([head, joinRuns(runs)]);
}

/** When it was stored, by the clock of its writer; 0 where that cannot be read. */
export function arrivalOf(payload: Uint8Array): number {
  return payload.length < HEAD_BYTES ? 0 : Number(asBuffer(payload).readBigUInt64BE(8));
}

/** @throws MalformedBatchError */
export function decodeEntry(payload: Uint8Array): EntryContent {
  const bytes = asBuffer(payload);
  if (bytes.length < HEAD_BYTES) throw new MalformedBatchError("an entry shorter than its head");
  if (bytes[0] !== VERSION) throw new MalformedBatchError(`an entry of version ${bytes[0]}`);
  const hashCount = bytes.readUInt32BE(4);
  const batchAt = HEAD_BYTES + hashCount * HASH_BYTES;
  if (batchAt > bytes.length) throw new MalformedBatchError("an entry's hashes run over the end");
  const arrivalMs = readUInt53(bytes, 8);
  const runs: HashedRun[] = decodeBatch(bytes.subarray(batchAt));
  let records = 0;
  for (const run of runs) records += run.count;
  if (records > RECORDS_PER_MESSAGE) throw new MalformedBatchError(`${records} records in an entry`);
  for (let i = 0, at = HEAD_BYTES, above = -1; i < hashCount; i++, at += HASH_BYTES) {
    const index = bytes.readUInt32BE(at);
    const run = runs[index];
    if (run === undefined || index <= above) throw new MalformedBatchError("a hash of no run");
    above = index;
    const hash = (bytes.readBigUInt64BE(at + 4) << 64n) | bytes.readBigUInt64BE(at + 12);
    runs[index] = { ...run, hash };
  }
  return { arrivalMs, runs };
}

/** Consecutive records of one key and one explicit hash become one run. */
export function runsOf(
  records: ReadonlyArray<BatchRecord & { readonly hash?: bigint | undefined }>,
): HashedRun[] {
  const runs: HashedRun[] = [];
  for (let from = 0; from < records.length; ) {
    const { key, hash } = records[from]!;
    let to = from + 1;
    while (to < records.length && records[to]!.key === key && records[to]!.hash === hash) to++;
    const run = decodeBatch(encodeInOrder(records.slice(from, to)), "trusted")[0]!;
    runs.push(hash === undefined ? run : { ...run, hash });
    from = to;
  }
  return runs;
}
