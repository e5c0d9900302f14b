/**
 * Payloads into values, compiled once for a plan: one reader for each column that the statement uses.
 * As Flink's JSON format does, a missing field is NULL; a value that does not fit its type rejects
 * the whole record, and says why.
 */
import { isUtf8 } from "node:buffer";
import { SHORT_JSON_BYTES, whyNotJson } from "../../runtime/json-check.ts";
import type { KeyValues } from "./columns.ts";
import { measureKind } from "./columns.ts";
import { type Column, type ColumnType, isTimestamp, type Plan } from "./sql/plan.ts";

/** A record this far ahead of its arrival has a broken clock; it would close everybody's windows. */
export const MAX_AHEAD_MS = 3_600_000;
/** One string key value; the bound on what hostile records can make the state hold. */
const MAX_KEY_CHARACTERS = 1_024;
/** Of one record: more would hold everybody up for as long as its parsing takes. */
const MAX_PARTS = 50_000;

export interface DecodedRecord {
  timeMs: number;
  /** The key as one string, for dictionaries: JSON of its values. */
  keyName: string;
  key: KeyValues;
  measures: (number | null)[];
}

/** Fills `into` and returns undefined, or returns why the record is rejected. */
export type Decoder = (payload: Buffer, arrivalMs: number, into: DecodedRecord) => string | undefined;

type Value = string | number | boolean | null;
/** Thrown by readers and caught by the decoder: the one way out of nested reads. */
class Unfit extends Error {}

export function compileDecoder(plan: Plan): Decoder {
  const time = plan.timeColumn;
  const keys = plan.keys.map((column) => ({ name: column.name, read: keyReader(column.type) }));
  const measures = plan.measures.map((column) => ({ name: column.name, read: measureReader(column) }));
  const required = plan.columns.filter((column) => column.notNull).map((column) => column.name);
  return (payload, arrivalMs, into) => {
    if (!isUtf8(payload)) return "not UTF-8";
    if (payload.length > SHORT_JSON_BYTES) {
      const reason = whyNotJson(payload, { maxParts: MAX_PARTS });
      if (reason !== undefined) return `not JSON: ${reason}`;
    }
    let json: unknown;
    try {
      json = JSON.parse(payload.toString("utf8"));
    } catch {
      return "not JSON";
    }
    if (typeof json !== "object" || json === null || Array.isArray(json)) return "not a JSON object";
    const fields = json as Record<string, unknown>;
    let column = time;
    try {
      const timeMs = readTime(own(fields, time));
      if (timeMs === null) return `${time}: null`;
      if (timeMs > arrivalMs + MAX_AHEAD_MS) return `${time}: more than an hour ahead of its arrival`;
      into.timeMs = timeMs;
      for (const name of required) if ((own(fields, name) ?? null) === null) return `${name}: null`;
      const values: Value[] = [];
      for (const key of keys) {
        column = key.name;
        values.push(key.read(own(fields, key.name)));
      }
      into.key = values;
      into.keyName = JSON.stringify(values);
      for (let i = 0; i < measures.length; i++) {
        column = measures[i]!.name;
        into.measures[i] = measures[i]!.read(own(fields, column));
      }
      return undefined;
    } catch (error) {
      if (error instanceof Unfit) return `${column}: ${error.message}`;
      throw error;
    }
  };
}

/** A field named `constructor` is the record's own or it is missing. */
function own(fields: Record<string, unknown>, name: string): unknown {
  return Object.hasOwn(fields, name) ? fields[name] : undefined;
}

function keyReader(type: ColumnType): (value: unknown) => Value {
  if (type === "STRING") return readKeyText;
  if (type === "BOOLEAN") return readBoolean;
  return integerReader(type);
}

function measureReader(column: Column): (value: unknown) => number | null {
  if (measureKind(column) === "double") return column.type === "FLOAT" ? readFloat : readDouble;
  if (measureKind(column) === "integer") return integerReader(column.type);
  // Only COUNT takes such a column. Whatever it is has a text; what is no BOOLEAN or no time is still wrong.
  if (column.type === "STRING") return (value) => (value === undefined || value === null ? null : 1);
  const read = isTimestamp(column.type) ? readTime : readBoolean;
  return (value) => (read(value) === null ? null : 1);
}

/** Flink turns a number, boolean or object in a STRING column into its text. */
function readKeyText(value: unknown): string | null {
  if (value === undefined || value === null) return null;
  const text = typeof value === "string" ? value : jsonText(value);
  if (text === undefined || text.length > MAX_KEY_CHARACTERS) {
    throw new Unfit(`more than ${MAX_KEY_CHARACTERS} characters`);
  }
  return text;
}

/**
 * JSON.parse takes any depth, JSON.stringify only what the stack holds: some thousand levels, and so
 * more characters than a key may have. Undefined then; thrown on, one such record would stop its
 * statement for good.
 */
function jsonText(value: unknown): string | undefined {
  try {
    return JSON.stringify(value);
  } catch (error) {
    if (error instanceof RangeError) return undefined;
    throw error;
  }
}

function readBoolean(value: unknown): boolean | null {
  if (value === undefined || value === null) return null;
  if (typeof value === "boolean") return value;
  if (value === "true" || value === "false") return value === "true";
  throw new Unfit("no BOOLEAN");
}

const NUMERIC_TEXT = /^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$/;

function readDouble(value: unknown): number | null {
  if (typeof value === "number" && Number.isFinite(value)) return value;
  if (value === undefined || value === null) return null;
  if (typeof value === "string" && value.length <= 64 && NUMERIC_TEXT.test(value)) {
    const number = Number(value);
    if (Number.isFinite(number)) return number;
  }
  throw new Unfit("no finite number");
}

function readFloat(value: unknown): number | null {
  const number = readDouble(value);
  if (number === null) return null;
  if (!Number.isFinite(Math.fround(number))) throw new Unfit("too large for FLOAT");
  return Math.fround(number);
}

const INTEGER_LIMITS: Readonly<Record<string, number>> = {
  TINYINT: 2 ** 7,
  SMALLINT: 2 ** 15,
  INT: 2 ** 31,
  // JSON.parse keeps no more digits; a larger one is rejected, never rounded.
  BIGINT: 2 ** 53,
};

function integerReader(type: ColumnType): (value: unknown) => number | null {
  const limit = INTEGER_LIMITS[type]!;
  return (value) => {
    const number = readDouble(value);
    if (number === null) return null;
    if (!Number.isSafeInteger(number) || number < -limit || number >= limit) throw new Unfit(`no ${type}`);
    return number;
  };
}

/** RFC 3339, the same without a zone (then UTC) or with a space, or ms since 1970. */
const TIME_TEXT =
  /^(\d{4})-(\d{2})-(\d{2})[Tt ](\d{2}):(\d{2})(?::(\d{2})(?:[.,](\d{1,9}))?)?([Zz]|[+-]\d{2}:?\d{2})?$/;
/** The years 1900 to 9999: whatever lies outside is no measurement. */
const MIN_TIME_MS = Date.UTC(1900, 0, 1);
const MAX_TIME_MS = Date.UTC(10_000, 0, 1) - 1;

function readTime(value: unknown): number | null {
  if (value === undefined || value === null) return null;
  let ms = Number.NaN;
  if (typeof value === "number") ms = Math.floor(value);
  else if (typeof value === "string" && value.length <= 40) ms = timeFromText(value);
  if (!(ms >= MIN_TIME_MS && ms <= MAX_TIME_MS)) throw new Unfit("no time, as in 2026-11-21T09:00:00.000Z");
  return ms;
}

/** TIMESTAMP(3): digits after the third are cut off, so a time never moves into the next window. */
function timeFromText(text: string): number {
  const match = TIME_TEXT.exec(text);
  if (match === null) return Number.NaN;
  const [, year, month, day, hour, minute, second = "0", fraction = "0", zone = "Z"] = match;
  const ms = Number(fraction.slice(0, 3).padEnd(3, "0"));
  const [y, mo, d, h, mi, s] = [year, month, day, hour, minute, second].map(Number) as [
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  if (h > 23 || mi > 59 || s > 60) return Number.NaN;
  const date = new Date(Date.UTC(y, mo - 1, d));
  // Date.UTC takes the 31st of February for the 3rd of March, and the year 50 for 1950.
  if (date.getUTCFullYear() !== y || date.getUTCMonth() !== mo - 1 || date.getUTCDate() !== d)
    return Number.NaN;
  // RFC 3339 §5.6: a leap second is the last moment of its minute for us.
  const utc = date.getTime() + h * 3_600_000 + mi * 60_000 + Math.min(s, 59) * 1_000 + (s === 60 ? 999 : ms);
  if (zone === "Z" || zone === "z") return utc;
  const zoneHour = Number(zone.slice(1, 3));
  const zoneMinute = Number(zone.slice(-2));
  if (zoneHour > 23 || zoneMinute > 59) return Number.NaN;
  return utc - (zone[0] === "-" ? -1 : 1) * (zoneHour * 60 + zoneMinute) * 60_000;
}
