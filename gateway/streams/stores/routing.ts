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
import { splitFrame } from "./split-frame.ts";

/** Longer client ids are remembered by their MD5; MQTT allows 65,535 bytes. */
const MAX_CLIENT_ID_BYTES = 256;

/** A frame that falls into one shard is stored as it came. The parts are good until the next call: the log copies them. */
export function routeFrame(frame: Frame, shards: ShardMap): RoutedPart[] {
  const { runs, recordCount: count, batch } = frame;
  if (runs.length === 0) return [];
  const first = shards.shardOfKey(runs[0]!.key);
  let alike = 1;
  while (alike < runs.length && shards.shardOfKey(runs[alike]!.key) === first) alike++;
  if (alike === runs.length) return [{ shard: first, count, batch, checksum: checksumOf(frame) }];
  return splitFrame(frame, shards) ?? splitPlainly(frame, shards);
}

/** The checksum of a frame's batch, if those of its runs are known: then only its table is read. */
function checksumOf({ batch, runs, runChecksums }: Frame): number | undefined {
  if (runChecksums === undefined) return undefined;
  let tableEnd = batch.length;
  for (const { body } of runs) tableEnd -= body.length;
  let checksum = crc32c(batch, 0, tableEnd);
  for (let i = 0; i < runs.length; i++)
    checksum = joinCrc32c(checksum, runChecksums[i]!, runs[i]!.body.length);
  return checksum;
}

/** As `splitFrame`, of frames of any size. */
export function splitPlainly({ runs }: Frame, shards: ShardMap): RoutedPart[] {
  const split = new Map<number, Run[]>();
  for (const run of runs) {
    const shard = shards.shardOfKey(run.key);
    const share = split.get(shard);
    if (share === undefined) split.set(shard, [run]);
    else share.push(run);
  }
  return Array.from(split, ([shard, share]) => {
    return { shard, count: share.reduce((sum, run) => sum + run.count, 0), batch: joinRuns(share) };
  });
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
