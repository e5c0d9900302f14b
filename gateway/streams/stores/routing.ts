/** From what callers hand in to one batch per shard, touching as few bytes as can be. */
import type { Frame } from "../../../protocol/frame.ts";
import {
  type BatchRecord,
  encodeInOrder,
  joinRuns,
  MAX_KEY_BYTES,
  type Run,
} from "../../../protocol/record-batch.ts";
import { crc32c } from "../../../runtime/crc32c.ts";
import { joinCrc32c } from "../../../runtime/crc32c-join.ts";
import { MAX_HASH, md5, type ShardMap } from "../shard-map.ts";
import { BadEntryError, type PlainPublish, type PutEntry } from "../streams.ts";
import type { RoutedPart } from "./log-entry.ts";

/** Longer client ids are remembered by their MD5; MQTT allows 65,535 bytes. */
const MAX_CLIENT_ID_BYTES = 256;

/** The parts of a frame that is split are put here: it is large, and would be new memory for each. */
const splitMemory = Buffer.allocUnsafeSlow(256 * 1_024);

/** What of a frame goes into one shard. */
interface Share {
  count: number;
  readonly runs: Run[];
  /** Of the runs' bodies, where they are known. */
  readonly checksums: number[];
}

/** A frame that falls into one shard is stored as it came. The parts are good until the next call: the log copies them. */
export function routeFrame(frame: Frame, shards: ShardMap): RoutedPart[] {
  const { runs, runChecksums } = frame;
  if (runs.length === 0) return [];
  const first = shards.shardOfKey(runs[0]!.key);
  let alike = 1;
  while (alike < runs.length && shards.shardOfKey(runs[alike]!.key) === first) alike++;
  if (alike === runs.length) {
    const { recordCount: count, batch } = frame;
    return [{ shard: first, count, batch, checksum: checksumOf(batch, runs, runChecksums) }];
  }
  const split = new Map<number, Share>();
  for (const [i, run] of runs.entries()) {
    const shard = shards.shardOfKey(run.key);
    let share = split.get(shard);
    if (share === undefined) {
      share = { count: 0, runs: [], checksums: [] };
      split.set(shard, share);
    }
    share.count += run.count;
    share.runs.push(run);
    if (runChecksums !== undefined) share.checksums.push(runChecksums[i]!);
  }
  const parts: RoutedPart[] = [];
  let at = 0;
  for (const [shard, { count, runs, checksums }] of split) {
    const batch = joinRuns(runs, splitMemory, at);
    if (batch.buffer === splitMemory.buffer) at += batch.length;
    const checksum = checksumOf(batch, runs, runChecksums && checksums);
    parts.push({ shard, count, batch, checksum });
  }
  return parts;
}

/** Of a batch of these runs: its table is read, and of the runs what is known already. */
function checksumOf(
  batch: Uint8Array,
  runs: readonly Run[],
  checksums: readonly number[] | undefined,
): number | undefined {
  if (checksums === undefined) return undefined;
  let tableEnd = batch.length;
  for (const run of runs) tableEnd -= run.body.length;
  let checksum = crc32c(batch, 0, tableEnd);
  for (const [i, run] of runs.entries()) checksum = joinCrc32c(checksum, checksums[i]!, run.body.length);
  return checksum;
}

export interface RoutedEntries {
  readonly parts: RoutedPart[];
  /** Of each entry: which part, and which place in it. */
  readonly places: ReadonlyArray<{ readonly part: number; readonly index: number }>;
}

/** @throws BadEntryError */
export function routeEntries(entries: readonly PutEntry[], shards: ShardMap, timeUs: number): RoutedEntries {
  const partOf = new Map<number, number>();
  const records: BatchRecord[][] = [];
  const shardOf: number[] = [];
  const places = entries.map((entry) => {
    const { partitionKey: key, explicitHash, data: payload } = entry;
    checkKey(key);
    if (explicitHash !== undefined && (explicitHash < 0n || explicitHash > MAX_HASH)) {
      throw new BadEntryError("an explicit hash outside 0 to 2^128 - 1");
    }
    const shard = explicitHash === undefined ? shards.shardOfKey(key) : shards.shardOfHash(explicitHash);
    let part = partOf.get(shard);
    if (part === undefined) {
      part = records.length;
      partOf.set(shard, part);
      records.push([]);
      shardOf.push(shard);
    }
    const index = records[part]!.push({ key, timeUs, payload }) - 1;
    return { part, index };
  });
  const parts = records.map((batch, i) => ({
    shard: shardOf[i]!,
    count: batch.length,
    batch: encodeInOrder(batch),
  }));
  return { parts, places };
}

/** @throws BadEntryError */
export function routePublish(publish: PlainPublish, shards: ShardMap): RoutedPart {
  const { partitionKey: key, timeUs, payload } = publish;
  checkKey(key);
  if (!Number.isSafeInteger(timeUs) || timeUs < 0) throw new BadEntryError(`a time of ${timeUs} µs`);
  return { shard: shards.shardOfKey(key), count: 1, batch: encodeInOrder([{ key, timeUs, payload }]) };
}

export function shortClientId(clientId: string): string {
  // A UTF-16 unit is at most three bytes of UTF-8, so most need no counting.
  if (clientId.length * 3 <= MAX_CLIENT_ID_BYTES) return clientId;
  return Buffer.byteLength(clientId) <= MAX_CLIENT_ID_BYTES ? clientId : `md5:${md5(clientId)}`;
}

function checkKey(key: string): void {
  const bytes = Buffer.byteLength(key);
  if (bytes === 0 || bytes > MAX_KEY_BYTES) throw new BadEntryError(`a partition key of ${bytes} bytes`);
}
