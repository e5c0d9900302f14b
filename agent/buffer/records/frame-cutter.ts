/**
 * Cuts a group commit into frames: one a stream, or several where one would be too large.
 *
 * They are written into memory that the next commit uses again. With fresh memory for each of them V8
 * collects its whole heap every few dozen commits, and what is being stored then waits for that.
 */
import { BatchBuilder } from "../../../protocol/batch-builder.ts";
import { type FrameHead, frameBytes, writeFrame } from "../../../protocol/frame.ts";
import { RECORD_HEAD_BYTES, RUN_OVERHEAD_BYTES } from "../../../protocol/record-batch.ts";
import type { BufferRecord } from "../record-buffer.ts";
import type { EpochState } from "./epoch-ledger.ts";

/** A frame ends when its payloads would pass this; a single larger record does not exist. */
const FRAME_PAYLOAD_BYTES = 1_048_576;
const FRAME_RECORDS = 50_000;
/** A gateway routes each run by itself, and takes a frame at once. */
const FRAME_RUNS = 8_192;
/** Header of a frame and of its batch, and its keys in LevelDB. */
const FRAME_OVERHEAD_BYTES = 128;
/** More than that is not kept from one commit to the next; a group of the usual size fits. */
const KEPT_BYTES = 1_310_720;
const LEAST_BYTES = 65_536;

export interface CutFrame {
  readonly sequence: bigint;
  readonly bytes: Buffer;
  readonly records: number;
}

/** What all frames of a commit have in common. */
export type CommitHead = Pick<FrameHead, "device" | "storedUs" | "timeSource">;

export class FrameCutter {
  #memory = Buffer.alloc(0);

  /**
   * @returns the frames behind `epoch.last`, streams in the order of their first record. Their bytes
   * may be read until the next call.
   */
  cut(epoch: EpochState, head: CommitHead, records: Iterable<BufferRecord>): CutFrame[] {
    const planned = [...batchesOf(records)].map(([stream, batch], i) => {
      const sequence = epoch.last + BigInt(i + 1);
      return {
        batch,
        head: {
          ...head,
          stream,
          epoch: epoch.epoch,
          epochStart: epoch.start,
          sequence,
          recordCount: batch.records,
        },
      };
    });
    const memory = this.#take(
      planned.reduce((sum, each) => sum + frameBytes(each.head, each.batch.bytes), 0),
    );
    let at = 0;
    return planned.map(({ batch, head: frameHead }) => {
      const bytes = writeFrame(memory, at, frameHead, batch.bytes, (from) => batch.writeTo(memory, from));
      at += bytes.length;
      return { sequence: frameHead.sequence, bytes, records: batch.records };
    });
  }

  #take(bytes: number): Buffer {
    if (bytes <= this.#memory.length) return this.#memory;
    if (bytes > KEPT_BYTES) return Buffer.allocUnsafe(bytes);
    let size = LEAST_BYTES;
    while (size < bytes) size *= 2;
    this.#memory = Buffer.allocUnsafeSlow(Math.min(size, KEPT_BYTES));
    return this.#memory;
  }
}

/** In the order of the streams' first records. */
function batchesOf(records: Iterable<BufferRecord>): [stream: string, BatchBuilder][] {
  const streams = new Map<string, BatchBuilder[]>();
  let stream: string | undefined;
  let batches: BatchBuilder[] = [];
  for (const record of records) {
    if (record.stream !== stream) {
      stream = record.stream;
      batches = streams.get(stream) ?? [new BatchBuilder()];
      streams.set(stream, batches);
    }
    let batch = batches.at(-1)!;
    const isFull = batch.payloadBytes + record.payload.length > FRAME_PAYLOAD_BYTES;
    if (batch.records > 0 && (isFull || batch.records >= FRAME_RECORDS || batch.runs >= FRAME_RUNS)) {
      batch = new BatchBuilder();
      batches.push(batch);
    }
    batch.add(record.partitionKey, record.timeUs, record.payload);
  }
  return [...streams].flatMap(([name, all]) => all.map((batch): [string, BatchBuilder] => [name, batch]));
}

/** What records will take on disk, never less than they do. */
export function estimateBytes(records: readonly BufferRecord[]): number {
  let bytes = FRAME_OVERHEAD_BYTES;
  for (const record of records) {
    bytes += record.payload.length + record.partitionKey.length * 3 + RECORD_HEAD_BYTES + RUN_OVERHEAD_BYTES;
  }
  return bytes;
}
