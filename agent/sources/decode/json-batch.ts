/**
 * What is posted at once: one JSON object, an array of them, lines of JSON, or a SenML pack. All or
 * nothing: whoever posts is told what is wrong and where, and can post it again.
 */
import type { Decoded, SensorReading } from "../source.ts";
import { decodeJsonLine } from "./json-line.ts";
import { parseJson } from "./json-object.ts";
import { decodeSenml, isSenml } from "./senml.ts";

const MAX_READINGS = 10_000;

/** `lines` is NDJSON. */
export type BatchKind = "json" | "lines" | "senml";

/** @param sensor what readings that name no sensor are from. Never throws. */
export function decodeJsonBatch(kind: BatchKind, text: string, sensor: string, arrivalUs: number): Decoded {
  if (kind === "lines") return decodeLines(text, sensor, arrivalUs);
  let value: unknown;
  try {
    value = parseJson(text);
  } catch (error) {
    return { reason: `not JSON: ${messageOf(error)}` };
  }
  if (kind === "senml" || isSenml(value)) {
    return isSenml(value) ? decodeSenml(value, sensor, arrivalUs) : { reason: "not a SenML pack" };
  }
  const items: unknown[] = Array.isArray(value) ? value : [value];
  if (items.length > MAX_READINGS) return { reason: `more than ${MAX_READINGS} readings` };
  return decodeEach(
    items,
    // It throws where nesting is so deep that only the parser could follow it.
    (item) => JSON.stringify(item),
    (i) => (Array.isArray(value) ? `item ${i}: ` : ""),
    sensor,
    arrivalUs,
  );
}

function decodeLines(text: string, sensor: string, arrivalUs: number): Decoded {
  const lines = text.split("\n");
  if (lines.length > MAX_READINGS + 1) return { reason: `more than ${MAX_READINGS} lines` };
  return decodeEach(
    lines,
    (line) => line,
    (i) => `line ${i + 1}: `,
    sensor,
    arrivalUs,
  );
}

function decodeEach<T>(
  items: readonly T[],
  textOf: (item: T) => string,
  at: (i: number) => string,
  sensor: string,
  arrivalUs: number,
): Decoded {
  const readings: SensorReading[] = [];
  for (const [i, item] of items.entries()) {
    try {
      const text = textOf(item);
      if (text.trim() === "") continue;
      readings.push(decodeJsonLine(text, sensor, arrivalUs));
    } catch (error) {
      return { reason: `${at(i)}${messageOf(error)}` };
    }
  }
  return { readings };
}

/** A RangeError is nesting so deep that the parser ran out of stack. */
function messageOf(error: unknown): string {
  if (!(error instanceof SyntaxError || error instanceof RangeError)) throw error;
  return error.message.slice(0, 120);
}
