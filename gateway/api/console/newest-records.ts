/** The newest records of a stream, read backwards from the tip. */
import { forEachRecord } from "../../../protocol/record-batch.ts";
import type { Streams } from "../../streams/streams.ts";

const READ_BYTES = 1_048_576;
/** A record longer than this is left out: the page could not show it. */
const MAX_SHOWN_BYTES = 65_536;

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
  for (const shard of streams.describe(stream).shardList) {
    const from = Math.max(shard.trimHorizon, shard.latest - limit);
    for (let next = from; next < shard.latest; ) {
      const read = await streams.read(stream, shard.shardId, next, READ_BYTES);
      for (const part of read.parts) {
        let offset = part.first;
        for (const run of part.runs) {
          forEachRecord(run, (payload) => {
            const at = offset++;
            const json = at < next ? undefined : parse(payload);
            if (json !== undefined) found.push({ arrivalMs: part.arrivalMs, offset: at, json });
          });
        }
      }
      if (read.next <= next) break;
      next = read.next;
    }
  }
  found.sort((a, b) => b.arrivalMs - a.arrivalMs || b.offset - a.offset);
  return found.slice(0, limit).map((record) => record.json);
}

function parse(payload: Buffer): unknown {
  if (payload.length > MAX_SHOWN_BYTES) return undefined;
  try {
    return JSON.parse(payload.toString("utf8")) as unknown;
  } catch {
    return undefined;
  }
}
