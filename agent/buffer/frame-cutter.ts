/** Cuts a group commit into frames: one a stream, or several where one would be too large. */
import { encodeFrame, type TimeSource } from "../../protocol/frame.ts";
import { encodeBatch, RECORD_HEAD_BYTES, RUN_OVERHEAD_BYTES } from "../../protocol/record-batch.ts";
import type { EpochState } from "./epoch-ledger.ts";
import type { BufferRecord } from "./record-buffer.ts";

/** A frame ends when its payloads would pass this; a single larger record does not exist. */
const FRAME_PAYLOAD_BYTES = 1_048_576;
const FRAME_RECORDS = 50_000;
/** Header of a frame and of its batch, and its keys in LevelDB. */
const FRAME_OVERHEAD_BYTES = 128;

export interface CutFrame {
  readonly sequence: bigint;
  readonly bytes: Buffer;
  readonly records: number;
}

/** @returns the frames behind `epoch.last`, streams in the order of their first record */
export function cutFrames(
  device: string,
  epoch: EpochState,
  storedUs: number,
  records: Iterable<BufferRecord>,
  timeSource: TimeSource = "system",
): CutFrame[] {
  const streams = new Map<string, BufferRecord[][]>();
  const filled = new Map<string, number>();
  for (const record of records) {
    const parts = streams.get(record.stream) ?? [];
    if (parts.length === 0) streams.set(record.stream, parts);
    const bytes = (filled.get(record.stream) ?? 0) + record.payload.length;
    const current = parts.at(-1);
    if (current === undefined || bytes > FRAME_PAYLOAD_BYTES || current.length >= FRAME_RECORDS) {
      parts.push([record]);
      filled.set(record.stream, record.payload.length);
    } else {
      current.push(record);
      filled.set(record.stream, bytes);
    }
  }
  const frames: CutFrame[] = [];
  let sequence = epoch.last;
  for (const [stream, parts] of streams) {
    for (const part of parts) {
      sequence += 1n;
      const batch = encodeBatch(
        part.map((record) => ({ key: record.partitionKey, timeUs: record.timeUs, payload: record.payload })),
      );
      const bytes = encodeFrame(
        {
          device,
          stream,
          epoch: epoch.epoch,
          epochStart: epoch.start,
          sequence,
          storedUs,
          recordCount: part.length,
          timeSource,
        },
        batch,
      );
      frames.push({ sequence, bytes, records: part.length });
    }
  }
  return frames;
}

/** What records will take on disk, never less than they do. */
export function estimateBytes(records: readonly BufferRecord[]): number {
  let bytes = FRAME_OVERHEAD_BYTES;
  for (const record of records) {
    bytes += record.payload.length + record.partitionKey.length * 3 + RECORD_HEAD_BYTES + RUN_OVERHEAD_BYTES;
  }
  return bytes;
}
