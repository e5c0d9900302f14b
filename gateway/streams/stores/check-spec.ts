/** What a stream may be like, in every store. */
import { HeadwaterError } from "../../../runtime/errors.ts";
import { MAX_RECORD_BYTES, MAX_SHARDS, type StreamSpec } from "../streams.ts";

/** @throws HeadwaterError BAD_STREAM */
export function checkSpec({ name, shards, retentionHours, maxRecordBytes = 1 }: StreamSpec): void {
  const refuse = (message: string, hint: string): never => {
    throw new HeadwaterError("BAD_STREAM", { message: `stream ${name}: ${message}`, hint });
  };
  if (!Number.isInteger(shards) || shards < 1 || shards > MAX_SHARDS) {
    refuse(`${shards} shards`, `give 1 to ${MAX_SHARDS}`);
  }
  if (!(retentionHours > 0)) refuse(`kept for ${retentionHours} hours`, "give a retention above 0");
  if (!Number.isInteger(maxRecordBytes) || maxRecordBytes < 1 || maxRecordBytes > MAX_RECORD_BYTES) {
    refuse(`records of up to ${maxRecordBytes} bytes`, `give a limit of 1 to ${MAX_RECORD_BYTES}`);
  }
}
