/** A number and nothing else, on any topic. */
import type { SensorReading } from "../source.ts";

const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/;

/** @returns undefined when the text is anything else, also where a number is too large to be one. */
export function decodeBareNumber(sensor: string, text: string): SensorReading | undefined {
  const trimmed = text.trim();
  if (trimmed.length > 64 || !NUMBER.test(trimmed)) return undefined;
  const value = Number(trimmed);
  return Number.isFinite(value) ? { sensor, timeUs: undefined, fields: { value } } : undefined;
}
