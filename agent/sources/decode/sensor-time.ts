/** What a sensor says of the time, and whether it can be believed. */

/** 2020-01-01. A board without a clock begins in 1970 or in the year of its firmware. */
export const EARLIEST_US = 1_577_836_800_000_000;
/** A clock that is ahead by more is wrong. */
export const MAX_AHEAD_US = 300_000_000;
/** A time without a zone may be local time; it is taken for UTC only when it agrees with ours so far. */
const ZONELESS_US = 600_000_000;
const RFC_3339 = /^(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)?$/;

/**
 * @param value RFC 3339 text, or a number of seconds, milliseconds or microseconds since 1970
 * @returns µs since 1970 UTC; undefined when the time of arrival is better
 */
export function believableTimeUs(value: unknown, arrivalUs: number): number | undefined {
  const parsed = typeof value === "string" ? parseText(value) : parseNumber(value);
  if (parsed === undefined) return undefined;
  const { us, zoned } = parsed;
  if (us < EARLIEST_US) return undefined;
  // Our own time of day is not known yet: whoever brings the record to UTC looks whether it is ahead.
  if (arrivalUs < EARLIEST_US) return zoned && us <= Number.MAX_SAFE_INTEGER ? us : undefined;
  if (us > arrivalUs + MAX_AHEAD_US) return undefined;
  if (!zoned && Math.abs(us - arrivalUs) > ZONELESS_US) return undefined;
  return us;
}

function parseText(text: string): { us: number; zoned: boolean } | undefined {
  const match = text.length <= 40 ? RFC_3339.exec(text) : null;
  if (match === null) return undefined;
  const [, day, second, fraction = "", zone] = match;
  const ms = Date.parse(`${day}T${second}${zone?.toUpperCase() ?? "Z"}`);
  if (Number.isNaN(ms)) return undefined;
  return { us: ms * 1_000 + Math.floor(Number(`0${fraction}`) * 1e6), zoned: zone !== undefined };
}

function parseNumber(value: unknown): { us: number; zoned: boolean } | undefined {
  if (typeof value !== "number" || !Number.isFinite(value) || value <= 0) return undefined;
  const factor = value < 1e11 ? 1e6 : value < 1e14 ? 1e3 : 1;
  return { us: Math.floor(value * factor), zoned: true };
}

/** RFC 3339 in UTC with milliseconds, as records carry it. */
export function timeText(timeUs: number): string {
  return new Date(Math.floor(timeUs / 1_000)).toISOString();
}
