/** A JSON object: its members become fields, `time` becomes the record's time. */
import { SHORT_JSON_BYTES, whyNotJson } from "../../../runtime/json-check.ts";
import type { SensorReading } from "../source.ts";
import { believableTimeUs } from "./sensor-time.ts";

/** Deeper nesting than any sensor has; a hostile one would exhaust the stack when it is written again. */
const MAX_DEPTH = 32;
/** Of a text that may hold several readings, in a list or two: ten thousand, of some fifty members. */
const BOUNDS = { maxDepth: MAX_DEPTH + 2, maxParts: 500_000 };
/** These are ours in a record; what a sensor says under their names is kept beside them. */
const OURS: ReadonlySet<string> = new Set(["device", "sensor", "time"]);

export type Fields = Readonly<Record<string, unknown>>;

/** @throws SyntaxError; a long text is looked at before, as brackets alone may take the parser seconds. */
export function parseJson(text: string): unknown {
  if (text.length > SHORT_JSON_BYTES) {
    const reason = whyNotJson(Buffer.from(text), BOUNDS);
    if (reason !== undefined) throw new SyntaxError(reason);
  }
  return JSON.parse(text);
}

/** @throws SyntaxError with the reason, when the text is no JSON object. */
export function parseObject(text: string): Fields {
  const value = parseJson(text);
  if (value === null || typeof value !== "object" || Array.isArray(value)) {
    throw new SyntaxError("JSON, but no object");
  }
  assertShallow(value);
  return value as Fields;
}

/** @throws SyntaxError */
export function assertShallow(value: object, depth = 1): void {
  if (depth > MAX_DEPTH) throw new SyntaxError(`nested deeper than ${MAX_DEPTH}`);
  for (const inner of Object.values(value)) {
    if (inner !== null && typeof inner === "object") assertShallow(inner as object, depth + 1);
  }
}

/** @param timeKey the member that holds the time */
export function readingOf(sensor: string, object: Fields, timeKey: string, arrivalUs: number): SensorReading {
  const timeUs = believableTimeUs(object[timeKey], arrivalUs);
  const entries = Object.entries(object)
    .filter(([key]) => !(key === timeKey && timeUs !== undefined))
    .map(([key, value]) => [OURS.has(key) ? `reported_${key}` : key, value] as const);
  // Object.fromEntries defines members, so that `__proto__` is a name like any other.
  return { sensor, timeUs, fields: Object.fromEntries(entries) };
}

/** `{"temperature": 21.5, "time": "2026-01-01T00:00:00Z"}` on any topic. */
export function decodeJsonObject(sensor: string, text: string, arrivalUs: number): SensorReading {
  return readingOf(sensor, parseObject(text), "time", arrivalUs);
}
