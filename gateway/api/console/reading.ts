/** What of a record can be drawn: the numbers at the top of a JSON object, or a bare number. */

const MAX_PAYLOAD_BYTES = 65_536;
const MAX_FIELDS = 32;
const MAX_NAME_CHARACTERS = 128;

export interface Reading {
  /** When it was measured, µs since 1970 UTC. */
  readonly timeUs: number;
  readonly values: Readonly<Record<string, number>>;
}

/** Undefined when the record holds no number. */
export function readingOf(payload: Buffer, timeUs: number): Reading | undefined {
  if (payload.length > MAX_PAYLOAD_BYTES) return undefined;
  let parsed: unknown;
  try {
    parsed = JSON.parse(payload.toString("utf8"));
  } catch {
    return undefined;
  }
  if (typeof parsed === "number")
    return Number.isFinite(parsed) ? { timeUs, values: { value: parsed } } : undefined;
  if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed)) return undefined;
  const fields: [string, number][] = [];
  for (const [name, value] of Object.entries(parsed)) {
    // A record's own time is its place on the axis, not a line in the chart.
    if (typeof value !== "number" || !Number.isFinite(value) || name === "time") continue;
    if (name.length > MAX_NAME_CHARACTERS) continue;
    if (fields.push([name, value]) === MAX_FIELDS) break;
  }
  // fromEntries makes own members, also of a hostile `__proto__`.
  return fields.length === 0 ? undefined : { timeUs, values: Object.fromEntries(fields) };
}
