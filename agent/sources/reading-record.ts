/** Readings as the records that are stored: JSON `{device, sensor, time, …fields}`. */
import { createHash } from "node:crypto";
import { GAPS_STREAM, type GapRecord } from "../../protocol/topics.ts";
import type { BufferRecord } from "../buffer/record-buffer.ts";
import { EARLIEST_US, timeText } from "./decode/sensor-time.ts";
import type { SensorReading } from "./source.ts";

/** Kinesis: a partition key has at most 256 characters; ours is `device/sensor`, and devices have up to 64. */
const MAX_SENSOR_CHARACTERS = 190;

export function readingRecord(
  device: string,
  stream: string,
  reading: SensorReading,
  arrivalUs: number,
): BufferRecord {
  const sensor = sensorName(reading.sensor);
  const timeUs = reading.timeUs ?? arrivalUs;
  const fields = namesOurs(reading.fields) ? withoutOurs(reading.fields) : reading.fields;
  const payload = Buffer.from(JSON.stringify({ device, sensor, time: timeText(timeUs), ...fields }));
  return { stream, partitionKey: `${device}/${sensor}`, timeUs, payload };
}

function namesOurs(fields: SensorReading["fields"]): boolean {
  return Object.hasOwn(fields, "device") || Object.hasOwn(fields, "sensor") || Object.hasOwn(fields, "time");
}

/** A decoder keeps to this by itself; a mapping or a convention may name a field as we do. */
function withoutOurs(fields: SensorReading["fields"]): SensorReading["fields"] {
  const ours = ["device", "sensor", "time"];
  return Object.fromEntries(
    Object.entries(fields).map(([name, value]) => [ours.includes(name) ? `reported_${name}` : name, value]),
  );
}

/**
 * Where a gap begins: a clock that was set back must not turn it around. While the time of day is not
 * known `nowUs` lies before 2020 and says nothing of what came first.
 * @param lastUs when the last record before the gap was stored
 */
export function gapStartUs(lastUs: number, nowUs: number): number {
  return nowUs < EARLIEST_US ? lastUs : Math.min(lastUs, nowUs);
}

/** @param fromUs when the last record before the gap was stored */
export function gapRecord(
  device: string,
  gap: Pick<GapRecord, "sensor" | "stream" | "reason" | "fromUs" | "toUs">,
): BufferRecord {
  const sensor = sensorName(gap.sensor);
  const whole: GapRecord = { device, time: timeText(gap.toUs), ...gap, sensor };
  return {
    stream: GAPS_STREAM,
    partitionKey: `${device}/${sensor}`,
    timeUs: gap.toUs,
    payload: Buffer.from(JSON.stringify(whole)),
  };
}

/** A name that is too long is cut, and told apart from others by a hash of the whole. */
export function sensorName(name: string): string {
  // A lone surrogate has no UTF-8; it becomes U+FFFD, as in the payload.
  const wellFormed = Buffer.from(name).toString();
  if (wellFormed.length <= MAX_SENSOR_CHARACTERS) return wellFormed;
  const hash = createHash("sha256").update(wellFormed).digest("hex").slice(0, 16);
  return `${Buffer.from(wellFormed.slice(0, 160)).toString()}~${hash}`;
}
