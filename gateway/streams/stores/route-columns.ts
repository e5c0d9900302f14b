/**
 * `routeEntries` for columns: one batch per shard, all of them in one piece of memory, each payload
 * copied once and no object made for a record. `routeEntries` is the plain way; the batches are the
 * same to the byte.
 */
import {
  MAX_KEY_BYTES,
  RECORD_HEAD_BYTES,
  RUN_OVERHEAD_BYTES,
  writeUInt53,
} from "../../../protocol/record-batch.ts";
import { invariant } from "../../../runtime/errors.ts";
import { MAX_HASH, type ShardMap } from "../shard-map.ts";
import { BadEntryError, type PutColumns } from "../streams.ts";
import type { RoutedPart } from "./stream-log.ts";

/** u32 runCount | u32 tableBytes */
const BATCH_HEAD_BYTES = 8;

export interface RoutedColumns {
  readonly parts: RoutedPart[];
  /** Of each record: which part, and which place in it. */
  readonly partOf: Uint32Array;
  readonly indexIn: Uint32Array;
}

/** A part in the making: first it is measured, then written. */
class Draft {
  readonly shard: number;
  count = 0;
  runs = 0;
  tableBytes = 0;
  bodyBytes = 0;
  lastKey: string | undefined;
  /** Where the next record and the next run's head will stand, and where the run in hand has its head and began. */
  bodyAt = 0;
  tableAt = 0;
  runHeadAt = 0;
  runBodyFrom = 0;
  runCount = 0;

  constructor(shard: number) {
    this.shard = shard;
  }

  get bytes(): number {
    return BATCH_HEAD_BYTES + this.tableBytes + this.bodyBytes;
  }
}

/** @throws BadEntryError */
export function routeColumns(columns: PutColumns, shards: ShardMap, timeUs: number): RoutedColumns {
  const { count, data, ends } = columns;
  invariant(
    columns.keys.length === count && ends.length === count && (ends[count - 1] ?? 0) === data.length,
    "columns are of one length",
  );
  const partOf = new Uint32Array(count);
  const indexIn = new Uint32Array(count);
  /** Of a record that begins a run, the bytes of its key; otherwise 0. */
  const keyBytes = new Uint16Array(count);
  const drafts = measure(columns, shards, partOf, indexIn, keyBytes);
  let bytes = 0;
  for (const draft of drafts) bytes += draft.bytes;
  const memory = Buffer.allocUnsafe(bytes);
  const parts: RoutedPart[] = [];
  let at = 0;
  for (const draft of drafts) {
    memory.writeUInt32BE(draft.runs, at);
    memory.writeUInt32BE(draft.tableBytes, at + 4);
    draft.tableAt = at + BATCH_HEAD_BYTES;
    draft.bodyAt = draft.tableAt + draft.tableBytes;
    parts.push({ shard: draft.shard, count: draft.count, batch: memory.subarray(at, at + draft.bytes) });
    at += draft.bytes;
  }
  write(columns, drafts, partOf, keyBytes, memory, timeUs);
  return { parts, partOf, indexIn };
}

function measure(
  columns: PutColumns,
  shards: ShardMap,
  partOf: Uint32Array,
  indexIn: Uint32Array,
  keyBytes: Uint16Array,
): Draft[] {
  const { count, keys, hashes, ends } = columns;
  const drafts: Draft[] = [];
  const draftOf = new Map<number, number>();
  let from = 0;
  for (let i = 0; i < count; i++) {
    const key = keys[i]!;
    const shard = shardOf(key, hashes?.[i], shards);
    let part = draftOf.get(shard);
    if (part === undefined) {
      part = drafts.length;
      draftOf.set(shard, part);
      drafts.push(new Draft(shard));
    }
    const draft = drafts[part]!;
    partOf[i] = part;
    indexIn[i] = draft.count++;
    if (draft.lastKey !== key) {
      const bytes = utf8Bytes(key);
      if (bytes === 0 || bytes > MAX_KEY_BYTES) throw new BadEntryError(`a partition key of ${bytes} bytes`);
      keyBytes[i] = bytes;
      draft.lastKey = key;
      draft.runs++;
      draft.tableBytes += RUN_OVERHEAD_BYTES + bytes;
    }
    const end = ends[i]!;
    invariant(end >= from, "payloads follow one another");
    draft.bodyBytes += RECORD_HEAD_BYTES + end - from;
    from = end;
  }
  return drafts;
}

function write(
  columns: PutColumns,
  drafts: readonly Draft[],
  partOf: Uint32Array,
  keyBytes: Uint16Array,
  memory: Buffer,
  timeUs: number,
): void {
  const { count, keys, data, ends } = columns;
  const time = Buffer.allocUnsafe(8);
  writeUInt53(time, timeUs, 0);
  let from = 0;
  for (let i = 0; i < count; i++) {
    const draft = drafts[partOf[i]!]!;
    if (keyBytes[i] !== 0) {
      endRun(memory, draft);
      beginRun(memory, draft, keys[i]!, keyBytes[i]!);
    }
    draft.runCount++;
    const end = ends[i]!;
    const size = end - from;
    const at = draft.bodyAt;
    memory[at] = size >>> 24;
    memory[at + 1] = size >>> 16;
    memory[at + 2] = size >>> 8;
    memory[at + 3] = size;
    for (let j = 0; j < 8; j++) memory[at + 4 + j] = time[j]!;
    memory.set(data.subarray(from, end), at + RECORD_HEAD_BYTES);
    draft.bodyAt = at + RECORD_HEAD_BYTES + size;
    from = end;
  }
  for (const draft of drafts) endRun(memory, draft);
}

function beginRun(memory: Buffer, draft: Draft, key: string, bytes: number): void {
  const at = draft.tableAt;
  memory[at] = bytes >>> 8;
  memory[at + 1] = bytes;
  const keyAt = at + RUN_OVERHEAD_BYTES;
  if (bytes === key.length) for (let i = 0; i < bytes; i++) memory[keyAt + i] = key.charCodeAt(i);
  else memory.write(key, keyAt);
  draft.runHeadAt = at;
  draft.tableAt = keyAt + bytes;
  draft.runBodyFrom = draft.bodyAt;
  draft.runCount = 0;
}

function endRun(memory: Buffer, draft: Draft): void {
  if (draft.runCount === 0) return;
  memory.writeUInt32BE(draft.runCount, draft.runHeadAt + 2);
  memory.writeUInt32BE(draft.bodyAt - draft.runBodyFrom, draft.runHeadAt + 6);
}

function shardOf(key: string, hash: bigint | undefined, shards: ShardMap): number {
  if (hash === undefined) return shards.shardOfKey(key);
  if (hash < 0n || hash > MAX_HASH) throw new BadEntryError("an explicit hash outside 0 to 2^128 - 1");
  return shards.shardOfHash(hash);
}

/** Of ASCII, as almost all keys are, the length. */
function utf8Bytes(key: string): number {
  for (let i = 0; i < key.length; i++) if (key.charCodeAt(i) > 0x7f) return Buffer.byteLength(key);
  return key.length;
}
