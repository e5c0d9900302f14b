/**
 * Records on their way: grouped into runs of one partition key, so that a batch can be routed to
 * shards by its table alone. Frames (frame.ts) and entries of the stream log hold batches in this
 * same encoding, and hand them on without decoding a record.
 *
 *   u32 runCount | u32 tableBytes | table | body              all integers big-endian
 *   table: per run    u16 keyBytes | u32 recordCount | u32 bodyBytes | key (UTF-8)
 *   body:  per record u32 payloadBytes | u64 timeUs | payload      in the order of the runs
 */

import { isUtf8 } from "node:buffer";
import { putU16, putU32, u16, u32 } from "../runtime/big-endian.ts";
import { HeadwaterError } from "../runtime/errors.ts";

/** Kinesis: a partition key has 1 to 256 characters; that is at most 1,024 bytes of UTF-8. */
export const MAX_KEY_BYTES = 1_024;
/** Before the table. */
export const BATCH_HEAD_BYTES = 8;
const HEAD_BYTES = BATCH_HEAD_BYTES;
/** The upper word of 2^53 - 1. */
const MAX_HIGH_WORD = 0x1f_ffff;
const RUN_HEAD_BYTES = 10;
/** What a record costs beside its payload. */
export const RECORD_HEAD_BYTES = 12;
/** What a run costs beside its key. */
export const RUN_OVERHEAD_BYTES = RUN_HEAD_BYTES;

export interface BatchRecord {
  readonly key: string;
  /** When the record was made, µs since 1970 UTC. */
  readonly timeUs: number;
  readonly payload: Uint8Array;
}

/** Consecutive records of one partition key. `body` is a view, not a copy. */
export interface Run {
  readonly key: string;
  readonly count: number;
  readonly body: Uint8Array;
}

/** The bytes do not follow the format. Whoever sent them is wrong; nobody else is harmed. */
export class MalformedBatchError extends HeadwaterError {
  constructor(reason: string) {
    super("BATCH_MALFORMED", { message: `record batch: ${reason}` });
  }
}

/** Records that will be one run. */
interface Group {
  readonly key: string;
  bytes: number;
  readonly records: BatchRecord[];
}

/** Groups by partition key; the order of the records of a key is kept. */
export function encodeBatch(records: readonly BatchRecord[]): Buffer {
  const groups = new Map<string, Group>();
  for (const record of records) {
    let group = groups.get(record.key);
    if (group === undefined) {
      group = { key: record.key, bytes: 0, records: [] };
      groups.set(record.key, group);
    }
    group.bytes += RECORD_HEAD_BYTES + record.payload.length;
    group.records.push(record);
  }
  return encodeGroups([...groups.values()]);
}

/** Keeps the order of all records: a run ends where the next record has another key. */
export function encodeInOrder(records: readonly BatchRecord[]): Buffer {
  const groups: Group[] = [];
  let group: Group | undefined;
  for (const record of records) {
    if (group?.key !== record.key) {
      group = { key: record.key, bytes: 0, records: [] };
      groups.push(group);
    }
    group.bytes += RECORD_HEAD_BYTES + record.payload.length;
    group.records.push(record);
  }
  return encodeGroups(groups);
}

function encodeGroups(groups: readonly Group[]): Buffer {
  let tableBytes = 0;
  let bodyBytes = 0;
  for (const group of groups) {
    tableBytes += RUN_HEAD_BYTES + Buffer.byteLength(group.key);
    bodyBytes += group.bytes;
  }
  const batch = Buffer.allocUnsafe(HEAD_BYTES + tableBytes + bodyBytes);
  putU32(batch, groups.length, 0);
  putU32(batch, tableBytes, 4);
  let at = HEAD_BYTES;
  for (const group of groups) at = writeRunHead(batch, at, group.key, group.records.length, group.bytes);
  for (const group of groups) {
    for (const record of group.records) at = writeRecord(batch, at, record.timeUs, record.payload);
  }
  return batch;
}

/** A batch of the given runs, whose bodies are copied as they are. */
export function joinRuns(runs: readonly Run[]): Buffer {
  let tableBytes = 0;
  let bodyBytes = 0;
  for (const run of runs) {
    tableBytes += RUN_HEAD_BYTES + Buffer.byteLength(run.key);
    bodyBytes += run.body.length;
  }
  const batch = Buffer.allocUnsafe(HEAD_BYTES + tableBytes + bodyBytes);
  putU32(batch, runs.length, 0);
  putU32(batch, tableBytes, 4);
  let at = HEAD_BYTES;
  for (const run of runs) at = writeRunHead(batch, at, run.key, run.count, run.body.length);
  for (const run of runs) {
    batch.set(run.body, at);
    at += run.body.length;
  }
  return batch;
}

function writeRunHead(batch: Buffer, at: number, key: string, count: number, bytes: number): number {
  const keyBytes = batch.write(key, at + RUN_HEAD_BYTES);
  putU16(batch, keyBytes, at);
  putU32(batch, count, at + 2);
  putU32(batch, bytes, at + 6);
  return at + RUN_HEAD_BYTES + keyBytes;
}

function writeRecord(batch: Buffer, at: number, timeUs: number, payload: Uint8Array): number {
  putU32(batch, payload.length, at);
  writeUInt53(batch, timeUs, at + 4);
  batch.set(payload, at + RECORD_HEAD_BYTES);
  return at + RECORD_HEAD_BYTES + payload.length;
}

/**
 * Reads the table and checks that it fits the body, and the records their runs, exactly. The
 * records stay undecoded: only their heads are looked at, so that what passes here can be read by
 * everybody behind.
 * @param origin "trusted" leaves the records' heads alone; for bytes that passed before and are under a checksum since
 */
export function decodeBatch(bytes: Uint8Array, origin: "outside" | "trusted" = "outside"): Run[] {
  const view = asBuffer(bytes);
  if (view.length < HEAD_BYTES) throw new MalformedBatchError("shorter than its head");
  const runCount = u32(view, 0);
  const tableBytes = u32(view, 4);
  const tableEnd = HEAD_BYTES + tableBytes;
  if (tableEnd > view.length) throw new MalformedBatchError("its table runs over the end");
  if (runCount * RUN_HEAD_BYTES > tableBytes)
    throw new MalformedBatchError("more runs than its table can hold");
  const runs: Run[] = [];
  let at = HEAD_BYTES;
  let bodyAt = tableEnd;
  for (let i = 0; i < runCount; i++) {
    if (at + RUN_HEAD_BYTES > tableEnd) throw new MalformedBatchError("a run's head is cut off");
    const keyBytes = u16(view, at);
    const count = u32(view, at + 2);
    const bodyBytes = u32(view, at + 6);
    const keyEnd = at + RUN_HEAD_BYTES + keyBytes;
    if (keyBytes === 0 || keyBytes > MAX_KEY_BYTES)
      throw new MalformedBatchError(`a key of ${keyBytes} bytes`);
    if (keyEnd > tableEnd) throw new MalformedBatchError("a key is cut off");
    if (bodyAt + bodyBytes > view.length) throw new MalformedBatchError("a run is cut off");
    if (count === 0 || count * RECORD_HEAD_BYTES > bodyBytes)
      throw new MalformedBatchError(`${count} records in ${bodyBytes} bytes`);
    const key = view.toString("utf8", at + RUN_HEAD_BYTES, keyEnd);
    // Written again, a repaired key would be another and longer one.
    if (key.includes("\ufffd") && !isUtf8(view.subarray(at + RUN_HEAD_BYTES, keyEnd))) {
      throw new MalformedBatchError("a key that is not UTF-8");
    }
    if (origin === "outside") checkRecordHeads(view, bodyAt, bodyAt + bodyBytes, count);
    runs.push({ key, count, body: view.subarray(bodyAt, bodyAt + bodyBytes) });
    at = keyEnd;
    bodyAt += bodyBytes;
  }
  if (at !== tableEnd) throw new MalformedBatchError("its table is longer than its runs");
  if (bodyAt !== view.length) throw new MalformedBatchError("its body is longer than its runs");
  return runs;
}

function checkRecordHeads(bytes: Buffer, from: number, end: number, count: number): void {
  let at = from;
  for (let i = 0; i < count; i++) {
    if (at + RECORD_HEAD_BYTES > end) throw new MalformedBatchError("a record's head is cut off");
    if (u32(bytes, at + 4) > MAX_HIGH_WORD) throw new MalformedBatchError("a time above 2^53 - 1");
    at += RECORD_HEAD_BYTES + u32(bytes, at);
    if (at > end) throw new MalformedBatchError("a record is cut off");
  }
  if (at !== end) throw new MalformedBatchError("a run is longer than its records");
}

/**
 * Calls `visit` for each record, with a view of its payload.
 * @throws MalformedBatchError when the records do not fill the body exactly.
 */
export function forEachRecord(
  run: Run,
  visit: (payload: Buffer, timeUs: number, index: number) => void,
): void {
  const body = asBuffer(run.body);
  let at = 0;
  for (let index = 0; index < run.count; index++) {
    if (at + RECORD_HEAD_BYTES > body.length) throw new MalformedBatchError("a record's head is cut off");
    const end = at + RECORD_HEAD_BYTES + u32(body, at);
    if (end > body.length) throw new MalformedBatchError("a record is cut off");
    visit(body.subarray(at + RECORD_HEAD_BYTES, end), readUInt53(body, at + 4), index);
    at = end;
  }
  if (at !== body.length) throw new MalformedBatchError("a run is longer than its records");
}

/** A Buffer over the same memory. */
export function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** An unsigned 64-bit field of which a JavaScript number can hold 53 bits. */
export function writeUInt53(bytes: Buffer, value: number, at: number): void {
  putU32(bytes, Math.floor(value / 0x1_0000_0000), at);
  putU32(bytes, value % 0x1_0000_0000, at + 4);
}

/** @throws MalformedBatchError above 2^53 - 1. */
export function readUInt53(bytes: Buffer, at: number): number {
  const value = u32(bytes, at) * 0x1_0000_0000 + u32(bytes, at + 4);
  if (value > Number.MAX_SAFE_INTEGER) throw new MalformedBatchError("an integer above 2^53 - 1");
  return value;
}
