/**
 * Reads what a cut covers out of the stream log: each record of the ranges once, in their order, and
 * those that the KPL packed into one as what they were. A range is never cut within such a record.
 */
import { invariant } from "../../runtime/errors.ts";
import {
  forEachUserRecord,
  formatSequenceNumber,
  type LogPart,
  type Offset,
  type ShardDescription,
  type ShardId,
  type Streams,
} from "../streams/streams.ts";
import type { RecordPlace } from "./ndjson.ts";

const READ_BYTES = 1_048_576;

export interface Range {
  readonly shardId: ShardId;
  readonly from: Offset;
  /** Not included. */
  readonly to: Offset;
}

/** @returns how many records of the range retention had removed already */
export async function readRange(
  streams: Streams,
  stream: string,
  range: Range,
  visit: (payload: Buffer, place: () => RecordPlace) => void,
): Promise<number> {
  const shard = streams.describe(stream).shardList.find(({ shardId }) => shardId === range.shardId);
  // Closed, and all its records older than the retention.
  if (shard === undefined) return range.to - range.from;
  let trimmed = 0;
  for (let at = range.from; at < range.to; ) {
    const result = await streams.read(stream, range.shardId, at, READ_BYTES);
    trimmed += Math.min(result.trimmed, range.to - at);
    for (const part of result.parts) visitPart(stream, shard, { ...range, from: at }, part, visit);
    invariant(result.next > at, `${stream} ${range.shardId} ends at ${at}, before ${range.to} of a cut`);
    at = result.next;
  }
  return trimmed;
}

function visitPart(
  stream: string,
  shard: ShardDescription,
  range: Range,
  part: LogPart,
  visit: (payload: Buffer, place: () => RecordPlace) => void,
): void {
  let first = part.first;
  for (const run of part.runs) {
    forEachUserRecord(run, (payload, timeUs, index, partitionKey, sub) => {
      const own = first + index;
      if (own < range.from || own >= range.to) return;
      visit(payload, () => ({
        stream,
        shardId: range.shardId,
        offset: own,
        sequenceNumber: formatSequenceNumber({
          shardCreatedMs: shard.createdMs,
          shardIndex: shard.index,
          offset: own,
          arrivalMs: part.arrivalMs,
        }),
        ...(sub !== undefined && { subSequenceNumber: sub }),
        arrivalMs: part.arrivalMs,
        timeUs,
        partitionKey,
      }));
    });
    first += run.count;
  }
}

/** Bytes of payload that a part brings. */
export function payloadBytes(part: LogPart): number {
  let bytes = 0;
  for (const run of part.runs) bytes += run.body.length;
  return bytes;
}
