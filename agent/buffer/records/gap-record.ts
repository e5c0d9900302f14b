/** What the buffer itself lost or dropped, as a record of the stream of gaps. */
import { GAPS_STREAM, type GapRecord } from "../../../protocol/topics.ts";
import type { BufferRecord } from "../record-buffer.ts";

export type Gap = Pick<GapRecord, "stream" | "reason" | "fromUs" | "toUs" | "records">;

/** @param nowUs when it was noticed */
export function gapRecord(device: string, nowUs: number, gap: Gap): BufferRecord {
  const time = new Date(nowUs / 1000).toISOString();
  const whole: GapRecord = { device, sensor: "*", time, ...gap };
  return {
    stream: GAPS_STREAM,
    partitionKey: `${device}/*`,
    timeUs: nowUs,
    payload: Buffer.from(JSON.stringify(whole)),
  };
}
