/** The newest records of a stream, read backwards from the tip. */
import { forEachRecord } from "../../../protocol/record-batch.ts";
import { type Offset, recordsBetween, type ShardId, type Streams } from "../../streams/streams.ts";

const READ_BYTES = 1_048_576;
/** A record longer than this is left out: the page could not show it. */
const MAX_SHOWN_BYTES = 65_536;
const MAX_STEPS = 4;

interface PlacedRecord {
  readonly arrivalMs: number;
  readonly offset: number;
  readonly json: unknown;
}

/**
 * Newest first, at most `limit`; records that are no JSON are left out.
 * @throws StreamNotFoundError
 */
export async function newestRecords(streams: Streams, stream: string, limit: number): Promise<unknown[]> {
  const found: PlacedRecord[] = [];
  for (const { shardId, trimHorizon, latest } of streams.describe(stream).shardList) {
    const kept = recordsBetween(streams, stream, shardId, trimHorizon, latest);
    let places = latest - trimHorizon;
    if (kept > limit) places = Math.ceil(places * (limit / kept));
    for (let step = 1; step <= MAX_STEPS; step++, places *= 8) {
      const from = Math.max(trimHorizon, latest - places);
      const { seen, records } = await readFrom(streams, stream, shardId, from, latest);
      // Where the store can only guess where so many records begin, it may be further back.
      if (seen < limit && from > trimHorizon && step < MAX_STEPS) continue;
      found.push(...records);
      break;
    }
  }
  found.sort((a, b) => b.arrivalMs - a.arrivalMs || b.offset - a.offset);
  return found.slice(0, limit).map((record) => record.json);
}

async function readFrom(
  streams: Streams,
  stream: string,
  shardId: ShardId,
  from: Offset,
  to: Offset,
): Promise<{ seen: number; records: PlacedRecord[] }> {
  const records: PlacedRecord[] = [];
  let seen = 0;
  for (let next = from; next < to; ) {
    const read = await streams.read(stream, shardId, next, READ_BYTES);
    for (const part of read.parts) {
      let offset = part.first;
      for (const run of part.runs) {
        forEachRecord(run, (payload) => {
          const at = offset++;
          if (at < next) return;
          seen++;
          const json = parse(payload);
          if (json !== undefined) records.push({ arrivalMs: part.arrivalMs, offset: at, json });
        });
      }
    }
    if (read.next <= next) break;
    next = read.next;
  }
  return { seen, records };
}

function parse(payload: Buffer): unknown {
  if (payload.length > MAX_SHOWN_BYTES) return undefined;
  try {
    return JSON.parse(payload.toString("utf8")) as unknown;
  } catch {
    return undefined;
  }
}
