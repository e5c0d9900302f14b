/**
 * A frame whose records were written with provisional times, with true ones in their place: in its
 * head, in the heads of its records, and in the JSON of those that are ours. Its epoch and sequence,
 * by which the gateway knows it, stay. The same frame and moments give the same bytes.
 */
import { decodeFrame, encodeFrame, type Frame, type TimeSource } from "../../protocol/frame.ts";
import { type BatchRecord, encodeInOrder, forEachRecord } from "../../protocol/record-batch.ts";
import { GAPS_STREAM, type GapRecord } from "../../protocol/topics.ts";
import { MAX_AHEAD_US, timeText } from "../sources/decode/sensor-time.ts";
import type { KnownMoment } from "./boot-table.ts";
import { isProvisional, trueUs } from "./provisional-time.ts";

/** Our own fields stand first: `{"device":…,"sensor":…,"time":…`, and names are bounded. */
const TIME_WITHIN_BYTES = 2_048;
/** As reading-record.ts writes it behind `time` where a sensor said its own. */
const OWN_TIME = Buffer.from(`,"timeSource":"sensor"`);

type MomentOf = (timeUs: number) => KnownMoment | undefined;

/** A record's time as it was written, and as it is now known. */
interface Corrected {
  readonly fromUs: number;
  readonly toUs: number;
  readonly by: TimeSource;
  readonly boundUs: number;
}

/** @param momentOf the boot of a provisional time; undefined leaves it as it is */
export function frameInUtc(frame: Frame, momentOf: MomentOf): Frame {
  if (!hasProvisional(frame)) return frame;
  const stored = corrected(frame.storedUs, momentOf);
  const records: BatchRecord[] = [];
  let by: TimeSource = frame.timeSource;
  for (const run of frame.runs) {
    forEachRecord(run, (payload, timeUs) => {
      const record = corrected(timeUs, momentOf) ?? notAhead(timeUs, stored);
      if (record !== undefined && by !== "estimated") by = record.by;
      const said =
        frame.stream === GAPS_STREAM
          ? gapInUtc(payload, momentOf)
          : record === undefined
            ? payload
            : readingInUtc(payload, record);
      records.push({ key: run.key, timeUs: record?.toUs ?? timeUs, payload: said });
    });
  }
  const storedUs = stored?.toUs ?? frame.storedUs;
  return decodeFrame(encodeFrame({ ...frame, storedUs, timeSource: by }, encodeInOrder(records)));
}

function corrected(timeUs: number, momentOf: MomentOf): Corrected | undefined {
  const moment = isProvisional(timeUs) ? momentOf(timeUs) : undefined;
  return moment && { ...moment, fromUs: timeUs, toUs: trueUs(timeUs, moment.utcUs) };
}

/**
 * While the device did not know the time it had to believe its sensors. One whose clock turns out to be
 * ahead is not believed after all, or its windows would close before all others' records are there.
 */
function notAhead(timeUs: number, stored: Corrected | undefined): Corrected | undefined {
  if (stored === undefined || timeUs <= stored.toUs + stored.boundUs + MAX_AHEAD_US) return undefined;
  return { ...stored, fromUs: timeUs };
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

function readingInUtc(payload: Buffer, { fromUs, toUs, by }: Corrected): Buffer {
  const written = Buffer.from(`"time":"${timeText(fromUs)}"`);
  const at = payload.subarray(0, TIME_WITHIN_BYTES).indexOf(written);
  if (at < 0) return payload;
  let end = at + written.length;
  if (payload.subarray(end, end + OWN_TIME.length).equals(OWN_TIME)) end += OWN_TIME.length;
  const said = by === "ntp" ? "" : `,"timeSource":"${by}"`;
  return Buffer.concat([
    payload.subarray(0, at),
    Buffer.from(`"time":"${timeText(toUs)}"${said}`),
    payload.subarray(end),
  ]);
}

/** A gap's ends are times as well, and may lie in different boots. */
function gapInUtc(payload: Buffer, momentOf: MomentOf): Buffer {
  const inUtc = (timeUs: number): number => corrected(timeUs, momentOf)?.toUs ?? timeUs;
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
