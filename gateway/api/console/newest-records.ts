/** The newest records of a stream, read backwards from the tip. */
import { forEachRecord } from "../../../protocol/record-batch.ts";
import { type Offset, recordsBetween, type ShardId, type Streams } from "../../streams/streams.ts";

const READ_BYTES = 1_048_576;
/** Of all shards together, for one question. */
const MAX_READ_BYTES = 32 * READ_BYTES;
/** A record longer than this is left out: the page could not show it. */
const MAX_SHOWN_BYTES = 65_536;

export interface NewestRecords {
  /** Newest first. */
  readonly rows: unknown[];
  /** Some were too large to be read or shown: there may be others between these. */
  readonly isCut?: true;
}

interface PlacedRecord {
  readonly arrivalMs: number;
  readonly offset: number;
  readonly json: unknown;
}

/** What stands between two places. */
interface Span {
  /** Where it really begins: what was appended together is read together. */
  readonly from: Offset;
  readonly records: readonly PlacedRecord[];
  readonly seen: number;
  readonly bytes: number;
  /** Its end was reached. */
  readonly isRead: boolean;
  /** None was too large to be shown. */
  readonly isShown: boolean;
}

/**
 * At most `limit`; records that are no JSON are left out.
 * @throws StreamNotFoundError
 */
export async function newestRecords(streams: Streams, stream: string, limit: number): Promise<NewestRecords> {
  const found: PlacedRecord[] = [];
  let isCut = false;
  const shards = streams.describe(stream).shardList;
  for (const { shardId, trimHorizon, latest } of shards) {
    let leftBytes = MAX_READ_BYTES / shards.length;
    let to = latest;
    const kept = recordsBetween(streams, stream, shardId, trimHorizon, latest);
    /** Where the store leaves numbers out; as far as it can tell. */
    let placesEach = Math.ceil((latest - trimHorizon) / Math.max(1, kept));
    let places = placesEach;
    for (let seen = 0; to > trimHorizon && seen < limit; places *= 2) {
      const from = Math.max(trimHorizon, to - Math.min(places, (limit - seen) * placesEach));
      const span = await readSpan(streams, stream, shardId, from, to, leftBytes);
      isCut ||= !span.isRead || !span.isShown;
      if (!span.isRead) break;
      found.push(...span.records);
      seen += span.seen;
      if (span.seen === 0) placesEach *= 2;
      leftBytes -= span.bytes;
      to = span.from;
    }
  }
  found.sort((a, b) => b.arrivalMs - a.arrivalMs || b.offset - a.offset);
  const rows = found.slice(0, limit).map((record) => record.json);
  return isCut ? { rows, isCut } : { rows };
}

async function readSpan(
  streams: Streams,
  stream: string,
  shardId: ShardId,
  from: Offset,
  to: Offset,
  maxBytes: number,
): Promise<Span> {
  const records: PlacedRecord[] = [];
  let begin = from;
  let seen = 0;
  let bytes = 0;
  let isShown = true;
  let next = from;
  while (next < to && bytes <= maxBytes) {
    const read = await streams.read(stream, shardId, next, READ_BYTES);
    for (const part of read.parts) {
      begin = Math.min(begin, part.first);
      let offset = part.first;
      for (const run of part.runs) {
        forEachRecord(run, (payload) => {
          const at = offset++;
          // Of a part that begins before the span all is taken, once.
          if (at >= to || (at < next && next > from)) return;
          seen++;
          bytes += payload.length;
          isShown &&= payload.length <= MAX_SHOWN_BYTES;
          const json = parse(payload);
          if (json !== undefined) records.push({ arrivalMs: part.arrivalMs, offset: at, json });
        });
      }
    }
    next = read.next > next ? read.next : to;
  }
  return { from: begin, records, seen, bytes, isRead: next >= to, isShown };
}

function parse(payload: Buffer): unknown {
  if (payload.length > MAX_SHOWN_BYTES) return undefined;
  try {
    return JSON.parse(payload.toString("utf8")) as unknown;
  } catch {
    return undefined;
  }
}
