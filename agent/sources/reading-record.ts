/** Readings as the records that are stored: JSON `{device, sensor, time, …fields}`, and how `time` was known. */
import { createHash } from "node:crypto";
import type { TimeSource } from "../../protocol/frame.ts";
import { GAPS_STREAM, type GapRecord } from "../../protocol/topics.ts";
import type { BufferRecord } from "../buffer/record-buffer.ts";
import { EARLIEST_US, timeText } from "./decode/sensor-time.ts";
import type { SensorReading } from "./source.ts";

/** Kinesis: a partition key has at most 256 characters; ours is `device/sensor`, and devices have up to 64. */
const MAX_SENSOR_CHARACTERS = 190;

/** @param knownBy how the device knows the time; undefined where nobody asks, or while it does not */
export function readingRecord(
  device: string,
  stream: string,
  reading: SensorReading,
  arrivalUs: number,
  knownBy?: TimeSource,
): BufferRecord {
  const sensor = sensorName(reading.sensor);
  const timeUs = reading.timeUs ?? arrivalUs;
  const fields = namesOurs(reading.fields) ? withoutOurs(reading.fields) : reading.fields;
  const timeSource = saidTimeSource(reading.timeUs !== undefined, arrivalUs, knownBy);
  const said =
    timeSource === undefined
      ? { device, sensor, time: timeText(timeUs), ...fields }
      : { device, sensor, time: timeText(timeUs), timeSource, ...fields };
  return { stream, partitionKey: `${device}/${sensor}`, timeUs, payload: Buffer.from(JSON.stringify(said)) };
}

/**
 * What a record says of its time. Nothing where NTP keeps the device's clock, which is how most devices
 * know it: twenty bytes in each record are dear. While the time is not known nothing yet, either:
 * frame-in-utc.ts adds it.
 */
function saidTimeSource(ownTime: boolean, arrivalUs: number, knownBy?: TimeSource): string | undefined {
  const isKnown = arrivalUs >= EARLIEST_US;
  if (ownTime) return isKnown && knownBy === undefined ? undefined : "sensor";
  return isKnown && knownBy !== "ntp" ? knownBy : undefined;
}

const OURS = ["device", "sensor", "time", "timeSource"];

function namesOurs(fields: SensorReading["fields"]): boolean {
  return (
    Object.hasOwn(fields, "device") ||
    Object.hasOwn(fields, "sensor") ||
    Object.hasOwn(fields, "time") ||
    Object.hasOwn(fields, "timeSource")
  );
}

/** A decoder keeps to this by itself; a mapping or a convention may name a field as we do. */
function withoutOurs(fields: SensorReading["fields"]): SensorReading["fields"] {
  return Object.fromEntries(
    Object.entries(fields).map(([name, value]) => [OURS.includes(name) ? `reported_${name}` : name, value]),
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
