/**
 * `routeEntries` for columns: one batch per shard, all of them in one piece of memory, and no object
 * made for a record. `routeEntries` is the plain way; the batches are the same to the byte.
 *
 *   payloads and heads: memory = [payloads as they came] [batch of one shard] [batch of the next] …
 */
import { MAX_KEY_BYTES, RECORD_HEAD_BYTES, RUN_OVERHEAD_BYTES } from "../../../../protocol/record-batch.ts";
import { invariant } from "../../../../runtime/errors.ts";
import { MAX_HASH, type ShardMap } from "../../shard-map.ts";
import { BadEntryError, type PutColumns } from "../../streams.ts";
import type { RoutedPart } from "../log-entry.ts";

/** u32 runCount | u32 tableBytes */
const BATCH_HEAD_BYTES = 8;
/** At most this is kept between calls; a call that needs more takes it for itself. */
const KEPT_BYTES = 8 * 1_048_576;
/** Payloads of up to this on average are first brought together: from there a copy costs half. */
const SMALL_PAYLOAD_BYTES = 2_048;
const HASH_WORDS = 4;

/** It holds until the next call, batches included: the log copies what it is given. */
export interface RoutedColumns {
  readonly parts: RoutedPart[];
  /** Of each record: which part, and which place in it. */
  readonly partOf: Uint32Array;
  readonly indexIn: Uint32Array;
}

/** A part in the making: first it is measured, then written. */
class Draft {
  shard = 0;
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

  begin(shard: number): void {
    this.shard = shard;
    this.count = 0;
    this.runs = 0;
    this.tableBytes = 0;
    this.bodyBytes = 0;
    this.lastKey = undefined;
    this.runCount = 0;
  }

  get bytes(): number {
    return BATCH_HEAD_BYTES + this.tableBytes + this.bodyBytes;
  }
}

// All that follows is used again by each call.
let keptMemory = Buffer.alloc(0);
const drafts: Draft[] = [];
let partOf = new Uint32Array(512);
let indexIn = new Uint32Array(512);
/** Of a record that begins a run, the bytes of its key; otherwise 0. */
let keyBytes = new Uint16Array(512);
/** By a shard's place in its map, which part it is, plus 1; zeros between calls. */
let partAt = new Uint16Array(64);

/** @throws BadEntryError */
export function routeColumns(columns: PutColumns, shards: ShardMap, timeUs: number): RoutedColumns {
  const { count, data, ends } = columns;
  invariant(
    columns.keys.length === count && ends.length === count && (ends[count - 1] ?? 0) === data.length,
    "columns are of one length",
  );
  if (count > partOf.length) {
    partOf = new Uint32Array(count);
    indexIn = new Uint32Array(count);
    keyBytes = new Uint16Array(count);
  }
  const partCount = measure(columns, shards);
  const gathers = data.length <= count * SMALL_PAYLOAD_BYTES;
  const batchesFrom = gathers ? data.length : 0;
  let bytes = batchesFrom;
  for (let part = 0; part < partCount; part++) bytes += drafts[part]!.bytes;
  const memory = memoryFor(bytes);
  const view = new DataView(memory.buffer, memory.byteOffset, bytes);
  if (gathers) memory.set(data);
  const parts: RoutedPart[] = [];
  let at = batchesFrom;
  for (let part = 0; part < partCount; part++) {
    const draft = drafts[part]!;
    view.setUint32(at, draft.runs);
    view.setUint32(at + 4, draft.tableBytes);
    draft.tableAt = at + BATCH_HEAD_BYTES;
    draft.bodyAt = draft.tableAt + draft.tableBytes;
    parts.push({ shard: draft.shard, count: draft.count, batch: memory.subarray(at, at + draft.bytes) });
    at += draft.bytes;
  }
  write(columns, memory, view, gathers, timeUs);
  for (let part = 0; part < partCount; part++) endRun(view, drafts[part]!);
  return { parts, partOf: partOf.subarray(0, count), indexIn: indexIn.subarray(0, count) };
}

function memoryFor(bytes: number): Buffer {
  if (bytes > KEPT_BYTES) return Buffer.allocUnsafeSlow(bytes);
  if (keptMemory.length < bytes) keptMemory = Buffer.allocUnsafeSlow(Math.min(KEPT_BYTES, bytes * 2));
  return keptMemory;
}

/** @returns how many parts there are */
function measure(columns: PutColumns, shards: ShardMap): number {
  const { count, keys, hashes, hashWords, ends } = columns;
  if (partAt.length < shards.size) partAt = new Uint16Array(shards.size * 2);
  const places: number[] = [];
  let from = 0;
  try {
    for (let i = 0; i < count; i++) {
      const key = keys[i]!;
      const place =
        hashWords !== undefined
          ? shards.placeOfWords(hashWords, i * HASH_WORDS)
          : placeOf(key, hashes?.[i], shards);
      let part = partAt[place]! - 1;
      if (part < 0) {
        part = places.push(place) - 1;
        partAt[place] = part + 1;
        if (part === drafts.length) drafts.push(new Draft());
        drafts[part]!.begin(shards.indexAt(place));
      }
      const draft = drafts[part]!;
      partOf[i] = part;
      indexIn[i] = draft.count++;
      keyBytes[i] = 0;
      if (draft.lastKey !== key) {
        const bytes = utf8Bytes(key);
        if (bytes === 0 || bytes > MAX_KEY_BYTES)
          throw new BadEntryError(`a partition key of ${bytes} bytes`);
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
  } finally {
    for (const place of places) partAt[place] = 0;
  }
  return places.length;
}

/** @param gathered whether the payloads stand at the beginning of `memory` */
function write(columns: PutColumns, memory: Buffer, view: DataView, gathered: boolean, timeUs: number): void {
  const { count, keys, data, ends } = columns;
  const timeHigh = Math.floor(timeUs / 0x1_0000_0000);
  const timeLow = timeUs >>> 0;
  let from = 0;
  for (let i = 0; i < count; i++) {
    const draft = drafts[partOf[i]!]!;
    if (keyBytes[i] !== 0) {
      endRun(view, draft);
      beginRun(memory, draft, keys[i]!, keyBytes[i]!);
    }
    draft.runCount++;
    const end = ends[i]!;
    const at = draft.bodyAt;
    view.setUint32(at, end - from);
    view.setUint32(at + 4, timeHigh);
    view.setUint32(at + 8, timeLow);
    const payloadAt = at + RECORD_HEAD_BYTES;
    // Within one memory no view has to be made for the copy.
    if (gathered) memory.copyWithin(payloadAt, from, end);
    else memory.set(data.subarray(from, end), payloadAt);
    draft.bodyAt = payloadAt + end - from;
    from = end;
  }
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

function endRun(view: DataView, draft: Draft): void {
  if (draft.runCount === 0) return;
  view.setUint32(draft.runHeadAt + 2, draft.runCount);
  view.setUint32(draft.runHeadAt + 6, draft.bodyAt - draft.runBodyFrom);
}

function placeOf(key: string, hash: bigint | undefined, shards: ShardMap): number {
  if (hash === undefined) return shards.placeOfKey(key);
  if (hash < 0n || hash > MAX_HASH) throw new BadEntryError("an explicit hash outside 0 to 2^128 - 1");
  return shards.placeOfHash(hash);
}

/** Of ASCII, as almost all keys are, the length. */
function utf8Bytes(key: string): number {
  for (let i = 0; i < key.length; i++) if (key.charCodeAt(i) > 0x7f) return Buffer.byteLength(key);
  return key.length;
}
