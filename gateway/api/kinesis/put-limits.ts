/**
 * Puts into a stream with `limits: aws`: which records their shards may take at the moment. Those
 * that they may not are left out before the append, and told one by one.
 */
import { type PutColumns, partitionHash, type StreamDescription } from "../../streams/streams.ts";
import type { ShardRates } from "./rate-limits.ts";

/** What became of the records of a request: those that go on, and why the others do not. */
export interface AdmittedPuts {
  /** Without those that were refused, in their order. */
  readonly columns: PutColumns;
  /** By the place of a record in the request: the index of the shard that refused it, or -1. */
  readonly refusedBy: Int32Array;
  readonly refused: number;
}

/** The shards of `stream` may have been split since: then a record counts for its parent once. */
export function admitPuts(rates: ShardRates, stream: StreamDescription, given: PutColumns): AdmittedPuts {
  const shardOf = shardFinder(stream);
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

function shardFinder(stream: StreamDescription): (hash: bigint) => number {
  const open = stream.shardList
    .filter((shard) => shard.closedMs === undefined)
    .sort((a, b) => (a.hashFrom < b.hashFrom ? -1 : 1));
  return (hash) => {
    let low = 0;
    let high = open.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if (open[middle]!.hashFrom <= hash) low = middle;
      else high = middle - 1;
    }
    return open[low]!.index;
  };
}
