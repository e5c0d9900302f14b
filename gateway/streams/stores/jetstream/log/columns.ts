/** What comes in columns, one by one, as lanes take it; and what they answer, in columns again. */
import type {
  Placed,
  PlacedColumns,
  PlainPublish,
  PublishColumns,
  PutColumns,
  PutEntry,
  ShardId,
} from "../../../streams.ts";

/** Their data are views of the columns'. */
export function entriesOf({ count, keys, hashes, data, ends }: PutColumns): PutEntry[] {
  return Array.from({ length: count }, (_, i): PutEntry => {
    const explicitHash = hashes?.[i];
    return {
      partitionKey: keys[i]!,
      data: data.subarray(i === 0 ? 0 : ends[i - 1], ends[i]),
      ...(explicitHash !== undefined && { explicitHash }),
    };
  });
}

/** @param nowMs the time of arrival where there are none */
export function columnsOf(
  placed: readonly Placed[],
  nowMs: number,
  indexOf: (shardId: ShardId) => number,
): PlacedColumns {
  return {
    arrivalMs: placed[0]?.arrivalMs ?? nowMs,
    shards: Uint32Array.from(placed, ({ shardId }) => indexOf(shardId)),
    offsets: Float64Array.from(placed, ({ offset }) => offset),
  };
}

/** Their payloads are views of the columns'. */
export function publishesOf(columns: PublishColumns): PlainPublish[] {
  const { count, clientIds, packetIds, partitionKeys, mayRepeat, timeUs, data, ends } = columns;
  return Array.from({ length: count }, (_, i) => ({
    clientId: clientIds[i]!,
    packetId: packetIds[i]!,
    partitionKey: partitionKeys[i]!,
    mayRepeat: mayRepeat[i]!,
    timeUs,
    payload: data.subarray(ends[i - 1] ?? 0, ends[i]),
  }));
}
