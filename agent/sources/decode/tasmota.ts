/**
 * Tasmota's telemetry, `tele/<name>/SENSOR`:
 * `{"Time":"2026-01-01T00:00:00","AM2301":{"Temperature":21.5},"TempUnit":"C"}`.
 *
 * The sensor is `<name>`. What one chip measures becomes columns as SQL likes them, `temperature`;
 * with several chips in one message their names stand before: `AM2301_Temperature`.
 */
import type { SensorReading } from "../source.ts";
import { type Fields, parseObject, readingOf } from "./json-object.ts";

const TOPIC = /^tele\/([^/]+)\/SENSOR$/;

export function isTasmota(topic: string): boolean {
  return TOPIC.test(topic);
}

/** @throws SyntaxError with the reason */
export function decodeTasmota(topic: string, text: string, arrivalUs: number): SensorReading {
  const object = parseObject(text);
  const chips = Object.entries(object).filter(([, value]) => isFields(value));
  const flat = new Map<string, unknown>();
  if (chips.length === 1) {
    const [[name, readings]] = chips as [[string, Fields]];
    for (const [key, value] of Object.entries(object)) if (key !== name) flat.set(key, value);
    flatten(readings, "", flat, (key) => key.toLowerCase());
  } else {
    flatten(object, "", flat, (key) => key);
  }
  return readingOf(TOPIC.exec(topic)?.[1] ?? topic, Object.fromEntries(flat), "Time", arrivalUs);
}

function flatten(
  object: Fields,
  prefix: string,
  into: Map<string, unknown>,
  rename: (key: string) => string,
): void {
  for (const [key, value] of Object.entries(object)) {
    if (isFields(value)) flatten(value, `${prefix}${rename(key)}_`, into, rename);
    else into.set(prefix + rename(key), value);
  }
}

function isFields(value: unknown): value is Fields {
  return value !== null && typeof value === "object" && !Array.isArray(value);
}
