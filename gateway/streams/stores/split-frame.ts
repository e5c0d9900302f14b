/**
 * A frame's runs, sorted by shard, as one batch for each shard they fall into: what `joinRuns` makes of
 * the runs of each, written without an object or a string for a run.
 *
 *   batch: [counts | row row row row | body body body body]
 *        → [counts | row row | body body] [counts | row row | body body]
 *
 * Most of the time was in the table: keys that were text were made bytes again. Its rows are copied.
 */
import type { Frame } from "../../../protocol/frame.ts";
import { BATCH_HEAD_BYTES, RUN_OVERHEAD_BYTES, type Run } from "../../../protocol/record-batch.ts";
import { putU32, u16 } from "../../../runtime/big-endian.ts";
import { crc32c } from "../../../runtime/crc32c.ts";
import { joinCrc32c } from "../../../runtime/crc32c-join.ts";
import type { ShardMap } from "../shard-map.ts";
import type { RoutedPart } from "./log-entry.ts";

/** Frames are large: their parts would be new memory for each. */
const memory = Buffer.allocUnsafeSlow(256 * 1_024);

/** All runs are looked at once for each shard, which is nothing as long as they are few. */
export const MAX_SPLIT_RUNS = 128;
const DONE = -1;
const shardOf = new Int32Array(MAX_SPLIT_RUNS);
/** Where each run's row of the table begins; and the last one's end. */
const rowAt = new Int32Array(MAX_SPLIT_RUNS + 1);

/**
 * @returns a part for each shard, in the order of their first runs, good until the next call; undefined for
 *   a frame that is too large for it, or has too many runs
 */
export function splitFrame(frame: Frame, shards: ShardMap): RoutedPart[] | undefined {
  const { batch, runs, runChecksums } = frame;
  if (runs.length > MAX_SPLIT_RUNS) return undefined;
  // Each part has a head of its own.
  if (batch.length + runs.length * BATCH_HEAD_BYTES > memory.length) return undefined;
  let row = BATCH_HEAD_BYTES;
  for (let i = 0; i < runs.length; i++) {
    shardOf[i] = shards.shardOfKey(runs[i]!.key);
    rowAt[i] = row;
    row += RUN_OVERHEAD_BYTES + u16(batch, row);
  }
  rowAt[runs.length] = row;
  const parts: RoutedPart[] = [];
  let at = 0;
  for (let i = 0; i < runs.length; i++) {
    if (shardOf[i] === DONE) continue;
    const part = writePart(batch, runs, runChecksums, i, at);
    parts.push(part);
    at += part.batch.length;
  }
  return parts;
}

/** The part of the shard that run `first` falls into, at `from` of the memory. */
function writePart(
  source: Buffer,
  runs: readonly Run[],
  checksums: readonly number[] | undefined,
  first: number,
  from: number,
): RoutedPart {
  const shard = shardOf[first]!;
  let runCount = 0;
  let count = 0;
  let at = from + BATCH_HEAD_BYTES;
  for (let i = first; i < runs.length; i++) {
    if (shardOf[i] !== shard) continue;
    runCount++;
    count += runs[i]!.count;
    for (let byte = rowAt[i]!; byte < rowAt[i + 1]!; byte++) memory[at++] = source[byte]!;
  }
  const tableEnd = at;
  putU32(memory, runCount, from);
  putU32(memory, tableEnd - from - BATCH_HEAD_BYTES, from + 4);
  let checksum = checksums && crc32c(memory, from, tableEnd);
  for (let i = first; i < runs.length; i++) {
    if (shardOf[i] !== shard) continue;
    shardOf[i] = DONE;
    const { body } = runs[i]!;
    memory.set(body, at);
    at += body.length;
    if (checksum !== undefined) checksum = joinCrc32c(checksum, checksums![i]!, body.length);
  }
  return { shard, count, batch: memory.subarray(from, at), checksum };
}
