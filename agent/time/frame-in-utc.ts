/**
 * A frame whose records were written with provisional times, with true ones in their place: in its
 * head, in the heads of its records, and in the JSON of those that are ours. Its epoch and sequence,
 * by which the gateway knows it, stay. The same frame and moments give the same bytes.
 */
import { decodeFrame, encodeFrame, type Frame, type TimeSource } from "../../protocol/frame.ts";
import { type BatchRecord, encodeInOrder, forEachRecord } from "../../protocol/record-batch.ts";
import { GAPS_STREAM, type GapRecord } from "../../protocol/topics.ts";
import { timeText } from "../sources/decode/sensor-time.ts";
import type { KnownMoment } from "./boot-table.ts";
import { isProvisional, trueUs } from "./provisional-time.ts";

/** Our own fields stand first: `{"device":…,"sensor":…,"time":…`, and names are bounded. */
const TIME_WITHIN_BYTES = 2_048;

/** @param momentOf the boot of a provisional time; undefined leaves it as it is */
export function frameInUtc(frame: Frame, momentOf: (timeUs: number) => KnownMoment | undefined): Frame {
  if (!hasProvisional(frame)) return frame;
  const records: BatchRecord[] = [];
  let by: TimeSource = frame.timeSource;
  for (const run of frame.runs) {
    forEachRecord(run, (payload, timeUs) => {
      const moment = isProvisional(timeUs) ? momentOf(timeUs) : undefined;
      if (moment !== undefined && by !== "estimated") by = moment.by;
      const inUtcUs = moment === undefined ? timeUs : trueUs(timeUs, moment.utcUs);
      const said =
        frame.stream === GAPS_STREAM
          ? gapInUtc(payload, momentOf)
          : moment === undefined
            ? payload
            : readingInUtc(payload, timeUs, moment);
      records.push({ key: run.key, timeUs: inUtcUs, payload: said });
    });
  }
  const stored = isProvisional(frame.storedUs) ? momentOf(frame.storedUs) : undefined;
  const storedUs = stored === undefined ? frame.storedUs : trueUs(frame.storedUs, stored.utcUs);
  return decodeFrame(encodeFrame({ ...frame, storedUs, timeSource: by }, encodeInOrder(records)));
}

/** Reports of gaps are few, and their ends may be provisional where their own time is not. */
function hasProvisional(frame: Frame): boolean {
  if (isProvisional(frame.storedUs) || frame.stream === GAPS_STREAM) return true;
  let found = false;
  for (const run of frame.runs) {
    forEachRecord(run, (_, timeUs) => {
      found ||= isProvisional(timeUs);
    });
  }
  return found;
}

function readingInUtc(payload: Buffer, timeUs: number, moment: KnownMoment): Buffer {
  const written = Buffer.from(`"time":"${timeText(timeUs)}"`);
  const at = payload.subarray(0, TIME_WITHIN_BYTES).indexOf(written);
  if (at < 0) return payload;
  const said = moment.by === "estimated" ? `,"timeSource":"estimated"` : "";
  return Buffer.concat([
    payload.subarray(0, at),
    Buffer.from(`"time":"${timeText(trueUs(timeUs, moment.utcUs))}"${said}`),
    payload.subarray(at + written.length),
  ]);
}

/** A gap's ends are times as well, and may lie in different boots. */
function gapInUtc(payload: Buffer, momentOf: (timeUs: number) => KnownMoment | undefined): Buffer {
  const inUtc = (timeUs: number): number => {
    const moment = isProvisional(timeUs) ? momentOf(timeUs) : undefined;
    return moment === undefined ? timeUs : trueUs(timeUs, moment.utcUs);
  };
  let gap: GapRecord;
  try {
    gap = JSON.parse(payload.toString()) as GapRecord;
  } catch {
    // A source may have been told to write to this stream.
    return payload;
  }
  if (![gap?.fromUs, gap?.toUs].every(Number.isFinite) || Number.isNaN(Date.parse(gap.time))) return payload;
  const noticedUs = inUtc(Date.parse(gap.time) * 1_000);
  const whole = { ...gap, time: timeText(noticedUs), fromUs: inUtc(gap.fromUs), toUs: inUtc(gap.toUs) };
  return Buffer.from(JSON.stringify(whole));
}
