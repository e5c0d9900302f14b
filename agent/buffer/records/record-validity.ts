/** What may be stored at all: what no frame or stream could hold is refused at once, by its reason. */
import { MAX_KEY_BYTES } from "../../../protocol/record-batch.ts";
import { STREAM_NAME } from "../../../protocol/topics.ts";
import { type BufferRecord, MAX_PAYLOAD_BYTES, RecordInvalidError } from "../record-buffer.ts";

const MAX_MARK_BYTES = 4_096;

/** @throws RecordInvalidError */
export function assertValid(record: BufferRecord): void {
  const { stream, partitionKey, payload, mark } = record;
  if (!STREAM_NAME.test(stream))
    throw new RecordInvalidError(`no stream may be called ${JSON.stringify(stream.slice(0, 80))}`);
  if (payload.length === 0 || payload.length > MAX_PAYLOAD_BYTES) {
    throw new RecordInvalidError(`${payload.length} bytes; 1 to ${MAX_PAYLOAD_BYTES} are allowed`);
  }
  const keyBytes = Buffer.byteLength(partitionKey);
  if (keyBytes === 0 || keyBytes > MAX_KEY_BYTES)
    throw new RecordInvalidError(`a partition key of ${keyBytes} bytes`);
  if (!Number.isSafeInteger(record.timeUs) || record.timeUs < 0)
    throw new RecordInvalidError(`the time ${record.timeUs}`);
  if (mark !== undefined && mark.value.length > MAX_MARK_BYTES) {
    throw new RecordInvalidError(`a mark of ${mark.value.length} bytes`);
  }
}
