/** Closed windows as result records, and result records as frames for the output stream. */
import { createHash, randomBytes } from "node:crypto";
import { setImmediate as nextTurn } from "node:timers/promises";
import { decodeFrame, encodeFrame, type Frame } from "../../protocol/frame.ts";
import { type BatchRecord, encodeBatch } from "../../protocol/record-batch.ts";
import { type Group, sumOf } from "./panes.ts";
import { isInteger, type Output, type Plan } from "./sql/plan.ts";

/** A frame is made at once, and the event loop is everybody's. */
const MAX_FRAME_RESULTS = 2_000;
const MAX_FRAME_PAYLOAD_BYTES = 4 * 1_048_576;
/** Kinesis: 1 to 256 characters. */
const MAX_PARTITION_KEY_CHARACTERS = 256;

export interface Sink {
  readonly device: string;
  readonly stream: string;
  readonly epoch: bigint;
}

/** Where the producer of the results stands. */
export interface SinkState {
  readonly epoch: bigint;
  nextSequence: bigint;
  /** Frames that may not have reached the output stream. */
  pending: Buffer[];
}

export function newSink(): SinkState {
  return { epoch: randomBytes(8).readBigUInt64BE(), nextSequence: 1n, pending: [] };
}

/** A device's name has at most 64 characters; the sink's epoch is random, so two names may meet. */
export function sinkDevice(statement: string): string {
  const name = `analytics.${statement}`;
  if (name.length <= 64) return name;
  return `${name.slice(0, 55)}.${createHash("sha256").update(statement).digest("hex").slice(0, 8)}`;
}

/** One JSON object a window and key, its fields in the order of the output table. */
export function resultRecord(plan: Plan, group: Group): BatchRecord {
  const fields = plan.outputs.map(
    (output) => `${JSON.stringify(output.name)}:${jsonValue(plan, output, group)}`,
  );
  return {
    key: partitionKey(group),
    timeUs: Math.max(0, (group.paneMs + plan.windowMs) * 1_000),
    payload: Buffer.from(`{${fields.join(",")}}`),
  };
}

/** All results of a key go to one shard, in the order of their windows. */
function partitionKey(group: Group): string {
  const key = group.key.map((value) => String(value)).join("/");
  return key === "" ? "-" : key.slice(0, MAX_PARTITION_KEY_CHARACTERS);
}

/** As JSON. Integers keep all their digits; what JSON cannot say (an infinite sum) is null. */
function jsonValue(plan: Plan, output: Output, group: Group): string {
  const { source } = output;
  switch (source.kind) {
    case "key":
      return JSON.stringify(group.key[source.key]);
    case "window_start":
      return JSON.stringify(new Date(group.paneMs).toISOString());
    case "window_end":
      return JSON.stringify(new Date(group.paneMs + plan.windowMs).toISOString());
    case "count_all":
      return String(group.rows);
    case "aggregate": {
      const measure = group.measures[source.measure]!;
      if (source.function === "COUNT") return String(measure.count);
      // SQL: an aggregate over nothing but NULL is NULL.
      if (measure.count === 0) return "null";
      if (source.function === "MIN") return number(measure.min);
      if (source.function === "MAX") return number(measure.max);
      const sum = sumOf(measure);
      if (source.function === "SUM") return number(sum);
      // Flink: AVG of an integer type is of that type; both divisions round towards zero.
      if (isInteger(plan.measures[source.measure]!.type)) return number(BigInt(sum) / BigInt(measure.count));
      return number(Number(sum) / measure.count);
    }
  }
}

function number(value: number | bigint): string {
  return typeof value === "bigint" || Number.isFinite(value) ? String(value) : "null";
}

/** @param first sequence of the first frame; they rise by one */
export async function resultFrames(
  sink: Sink,
  first: bigint,
  storedUs: number,
  records: readonly BatchRecord[],
): Promise<Buffer[]> {
  const frames: Buffer[] = [];
  let from = 0;
  let bytes = 0;
  for (let at = 0; at <= records.length; at++) {
    const size = records[at]?.payload.length ?? 0;
    const full = at - from >= MAX_FRAME_RESULTS || bytes + size > MAX_FRAME_PAYLOAD_BYTES;
    if (at > from && (at === records.length || full)) {
      const head = {
        ...sink,
        epochStart: 1,
        sequence: first + BigInt(frames.length),
        storedUs,
        recordCount: at - from,
        timeSource: "system" as const,
      };
      frames.push(encodeFrame(head, encodeBatch(records.slice(from, at))));
      await nextTurn();
      from = at;
      bytes = 0;
    }
    bytes += size;
  }
  return frames;
}

export function asFrame(bytes: Buffer): Frame {
  return decodeFrame(bytes);
}
