/** What a stream may be like. */
import { HeadwaterError } from "../../../../runtime/errors.ts";
import type { StreamChange } from "../../streams.ts";

/** @throws HeadwaterError BAD_STREAM */
export function checkSettings(name: string, { retentionHours, maxRecordBytes }: StreamChange): void {
  if (retentionHours !== undefined && !(retentionHours > 0)) {
    throw badStream(name, `kept for ${retentionHours} hours`, "give a retention above 0");
  }
  if (maxRecordBytes !== undefined && !(Number.isInteger(maxRecordBytes) && maxRecordBytes > 0)) {
    throw badStream(name, `records of ${maxRecordBytes} bytes`, "give a whole number above 0");
  }
}

export function badStream(name: string, what: string, hint: string): HeadwaterError {
  return new HeadwaterError("BAD_STREAM", { message: `stream ${name}: ${what}`, hint });
}
