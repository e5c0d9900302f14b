/**
 * Reads what a cut covers out of the stream log: each record of the ranges once, in their order, and
 * those that the KPL packed into one as what they were. A range is never cut within such a record.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import { HeadwaterError } from "../../runtime/errors.ts";
import {
  forEachUserRecordInTurns,
  formatSequenceNumber,
  type LogPart,
  type Offset,
  recordsBetween,
  type ShardDescription,
  type ShardId,
  type Streams,
} from "../streams/streams.ts";
import type { RecordPlace } from "./ndjson.ts";

const READ_BYTES = 1_048_576;
/** Reads at the tip wait for nothing. */
const RANGES_A_TURN = 16;

/** The cut under way was begun by another gateway, which had taken more of the stream. It goes on once that came here, too. */
export class DeliveryBehindError extends HeadwaterError {
  constructor(message: string) {
    super("DELIVERY_BEHIND", {
      retryable: true,
      message,
      hint: "it is tried again by itself; where it stays so, the log lost records: see what it says of that",
    });
  }
}

export interface Range {
  readonly shardId: ShardId;
  readonly from: Offset;
  /** Not included. */
  readonly to: Offset;
}

export interface Visitor {
  /** The payload may be looked at within the call only. */
  add(payload: Buffer, place: () => RecordPlace): void;
  /** Called after some hundred records; the next come when it resolved. */
  drain(): Promise<void>;
}

/** @returns how many records of the ranges retention had removed already */
export async function readRanges(
  streams: Streams,
  stream: string,
  ranges: readonly Range[],
  visitor: Visitor,
): Promise<number> {
  // Once for all: a stream may have 4,096 shards, and as many ranges.
  const shards = new Map(streams.describe(stream).shardList.map((shard) => [shard.shardId, shard]));
  let trimmed = 0;
  for (const [i, range] of ranges.entries()) {
    if (i % RANGES_A_TURN === RANGES_A_TURN - 1) await nextTurn();
    const shard = shards.get(range.shardId);
    // Closed, and all its records older than the retention.
    if (shard === undefined) trimmed += recordsBetween(streams, stream, range.shardId, range.from, range.to);
    else trimmed += await readRange(streams, stream, range, shard, visitor);
  }
  return trimmed;
}

async function readRange(
  streams: Streams,
  stream: string,
  range: Range,
  shard: ShardDescription,
  visitor: Visitor,
): Promise<number> {
  let trimmed = 0;
  for (let at = range.from; at < range.to; ) {
    // Asked before the read, as more may come meanwhile.
    const passed = shard.passed ?? 0;
    const result = await streams.read(stream, range.shardId, at, READ_BYTES);
    trimmed += Math.min(result.trimmedRecords ?? result.trimmed, range.to - at);
    const from = at;
    await forEachUserRecordInTurns(
      result.parts,
      (payload, offset, arrivalMs, timeUs, partitionKey, sub) => {
        if (offset < from || offset >= range.to) return;
        visitor.add(payload, () => ({
          stream,
          shardId: range.shardId,
          offset,
          sequenceNumber: formatSequenceNumber({
            shardCreatedMs: shard.createdMs,
            shardIndex: shard.index,
            offset,
            arrivalMs,
          }),
          ...(sub !== undefined && { subSequenceNumber: sub }),
          arrivalMs,
          timeUs,
          partitionKey,
        }));
      },
      () => visitor.drain(),
    );
    result.release?.();
    if (result.next <= at) {
      // Another gateway may have begun where the log ended, and counted a quiet shard up to there.
      if (passed >= range.to) break;
      throw new DeliveryBehindError(`${stream} ${range.shardId} ends at ${at}, before ${range.to} of a cut`);
    }
    at = result.next;
  }
  return trimmed;
}

/** Bytes of payload that a part brings. */
export function payloadBytes(part: LogPart): number {
  let bytes = 0;
  for (const run of part.runs) bytes += run.body.length;
  return bytes;
}
