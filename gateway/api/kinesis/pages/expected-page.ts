/** How large a page of GetRecords will be, by what is known of its shard before anything of it is read. */
import type { Offset, ShardDescription } from "../../../streams/streams.ts";
import type { PageLimits } from "./record-page.ts";
import { MAX_FRAME_BYTES } from "./record-writer.ts";

/**
 * Bytes of the answer in JSON, as if all records of the shard were alike: they need not be. Of a shard whose
 * bytes the store does not count, as large as the limits let it be.
 */
export function expectedBytes(
  shard: Pick<ShardDescription, "trimHorizon" | "latest" | "storedBytes" | "appendedRecords">,
  from: Offset,
  limits: PageLimits,
): number {
  const { latest } = shard;
  if (from >= latest) return 0;
  const { trimHorizon, storedBytes, appendedRecords } = shard;
  const kept = Math.max(1, latest - trimHorizon);
  // Not every place need have a record, and more may be kept than a store has counted.
  const recordBytes = storedBytes / Math.max(1, Math.min(kept, appendedRecords));
  if (recordBytes === 0) return answerBytes(limits.dataBytes, limits.records);
  const leftBytes = (storedBytes * (latest - Math.max(from, trimHorizon))) / kept;
  const dataBytes = Math.min(leftBytes, limits.records * recordBytes, limits.dataBytes);
  return answerBytes(dataBytes, dataBytes / recordBytes);
}

function answerBytes(dataBytes: number, records: number): number {
  return Math.ceil((dataBytes * 4) / 3 + records * MAX_FRAME_BYTES);
}
