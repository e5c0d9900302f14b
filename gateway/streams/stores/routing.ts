/** From what callers hand in to one batch per shard, touching as few bytes as can be. */
import type { Frame } from "../../../protocol/frame.ts";
import {
  type BatchRecord,
  encodeInOrder,
  joinRuns,
  MAX_KEY_BYTES,
  RECORD_HEAD_BYTES,
  type Run,
} from "../../../protocol/record-batch.ts";
import { MAX_HASH, md5, type ShardMap } from "../shard-map.ts";
import { BadEntryError, type PlainPublish, type PutEntry } from "../streams.ts";
import { IDENTITY_BYTES } from "./log-entry.ts";
import type { RoutedPart } from "./stream-log.ts";

/** Longer client ids are remembered by their MD5; MQTT allows 65,535 bytes. */
const MAX_CLIENT_ID_BYTES = 256;

/** A frame that falls into one shard is stored as it came. */
export function routeFrame(frame: Frame, shards: ShardMap): RoutedPart[] {
  const { runs } = frame;
  if (runs.length === 0) return [];
  const first = shards.shardOfKey(runs[0]!.key);
  let alike = 1;
  while (alike < runs.length && shards.shardOfKey(runs[alike]!.key) === first) alike++;
  if (alike === runs.length) return [{ shard: first, count: frame.recordCount, batch: frame.batch }];
  const split = new Map<number, { count: number; runs: Run[] }>();
  for (const run of runs) {
    const shard = shards.shardOfKey(run.key);
    const part = split.get(shard);
    if (part === undefined) split.set(shard, { count: run.count, runs: [run] });
    else {
      part.count += run.count;
      part.runs.push(run);
    }
  }
  return [...split].map(([shard, part]) => ({ shard, count: part.count, batch: joinRuns(part.runs) }));
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

/** Packet id and the MD5 of key and payload, as latin1. The key is in it: two topics may say the same. */
export function publishIdentity(
  publish: Pick<PlainPublish, "packetId" | "partitionKey" | "payload">,
): string {
  const keyBytes = Buffer.byteLength(publish.partitionKey);
  const hashed = Buffer.allocUnsafe(RECORD_HEAD_BYTES + keyBytes + publish.payload.length);
  hashed.fill(0, 0, RECORD_HEAD_BYTES);
  hashed.writeUInt32BE(keyBytes, 0);
  hashed.write(publish.partitionKey, RECORD_HEAD_BYTES);
  hashed.set(publish.payload, RECORD_HEAD_BYTES + keyBytes);
  const identity = Buffer.allocUnsafe(IDENTITY_BYTES);
  identity.writeUInt16BE(publish.packetId & 0xffff, 0);
  identity.write(md5(hashed), 2, "hex");
  return identity.toString("latin1");
}

export function shortClientId(clientId: string): string {
  return Buffer.byteLength(clientId) <= MAX_CLIENT_ID_BYTES ? clientId : `md5:${md5(clientId)}`;
}

function checkKey(key: string): void {
  const bytes = Buffer.byteLength(key);
  if (bytes === 0 || bytes > MAX_KEY_BYTES) throw new BadEntryError(`a partition key of ${bytes} bytes`);
}
