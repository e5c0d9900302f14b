/**
 * Puts into a stream with `limits: aws`: which records their shards may take at the moment. Those
 * that they may not are left out before the append, and told one by one.
 */
import {
  type PutColumns,
  partitionHash,
  ShardNotFoundError,
  type StreamSettings,
  type Streams,
} from "../../../streams/streams.ts";
import type { ShardRates } from "../rate-limits.ts";

/** What became of the records of a request: those that go on, and why the others do not. */
export interface AdmittedPuts {
  /** Without those that were refused, in their order. */
  readonly columns: PutColumns;
  /** By the place of a record in the request: the index of the shard that refused it, or -1. */
  readonly refusedBy: Int32Array;
  readonly refused: number;
}

/** What of the streams is needed to tell where a record goes. */
export type KnownShards = Pick<Streams, "describe" | "shard">;

/** The shards of `stream` may be split before the append: then a record counts for its parent once. */
export function admitPuts(
  rates: ShardRates,
  streams: KnownShards,
  stream: StreamSettings,
  given: PutColumns,
): AdmittedPuts {
  const shardOf = shardFinder(streams, stream);
  const refusedBy = new Int32Array(given.count).fill(-1);
  let refused = 0;
  for (let i = 0; i < given.count; i++) {
    const key = given.keys[i]!;
    const shard = shardOf(given.hashes?.[i] ?? partitionHash(key));
    const dataBytes = given.ends[i]! - (i === 0 ? 0 : given.ends[i - 1]!);
    if (rates.admitRecord(stream.streamId, shard, dataBytes + Buffer.byteLength(key))) continue;
    refusedBy[i] = shard;
    refused++;
  }
  return { columns: refused === 0 ? given : without(given, refusedBy, refused), refusedBy, refused };
}

function without(given: PutColumns, refusedBy: Int32Array, refused: number): PutColumns {
  const count = given.count - refused;
  const keys: string[] = [];
  const hashes: Array<bigint | undefined> = [];
  const pieces: Buffer[] = [];
  const ends = new Uint32Array(count);
  let at = 0;
  for (let i = 0; i < given.count; i++) {
    if (refusedBy[i] !== -1) continue;
    const from = i === 0 ? 0 : given.ends[i - 1]!;
    pieces.push(given.data.subarray(from, given.ends[i]!));
    at += given.ends[i]! - from;
    ends[keys.length] = at;
    keys.push(given.keys[i]!);
    hashes.push(given.hashes?.[i]);
  }
  return {
    count,
    keys,
    hashes: given.hashes === undefined ? undefined : hashes,
    data: Buffer.concat(pieces),
    ends,
  };
}

/** Open shards by their ranges, which together cover all hashes. */
interface OpenShards {
  readonly hashFrom: readonly bigint[];
  readonly index: readonly number[];
}

/** To describe and to sort 4,096 shards takes a hundred times as long as to put a record into one of them. */
const known = new WeakMap<StreamSettings, OpenShards>();

function shardFinder(streams: KnownShards, stream: StreamSettings): (hash: bigint) => number {
  let open = known.get(stream) ?? lookUp(streams, stream);
  return (hash) => {
    const index = indexOf(open, hash);
    if (isOpen(streams, stream.name, index)) return index;
    // It was split or merged; where the number of shards is as before, the settings may be the same.
    open = lookUp(streams, stream);
    return indexOf(open, hash);
  };
}

function lookUp(streams: KnownShards, stream: StreamSettings): OpenShards {
  const shards = streams
    .describe(stream.name)
    .shardList.filter((shard) => shard.closedMs === undefined)
    .sort((a, b) => (a.hashFrom < b.hashFrom ? -1 : 1));
  const open = {
    hashFrom: shards.map((shard) => shard.hashFrom),
    index: shards.map((shard) => shard.index),
  };
  known.set(stream, open);
  return open;
}

function indexOf({ hashFrom, index }: OpenShards, hash: bigint): number {
  let low = 0;
  let high = hashFrom.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >>> 1;
    if (hashFrom[middle]! <= hash) low = middle;
    else high = middle - 1;
  }
  return index[low]!;
}

function isOpen(streams: KnownShards, stream: string, index: number): boolean {
  try {
    return streams.shard(stream, index).closedMs === undefined;
  } catch (error) {
    if (error instanceof ShardNotFoundError) return false;
    throw error;
  }
}
