/** One line of a board: a JSON object that may name its sensor. */
import type { SensorReading } from "../source.ts";
import { parseObject, readingOf } from "./json-object.ts";

const MAX_SENSOR_CHARACTERS = 150;

/** @throws SyntaxError with the reason, when the line is no reading. */
export function decodeJsonLine(line: string, sourceName: string, arrivalUs: number): SensorReading {
  const object = parseObject(line);
  const own = object.sensor;
  if (typeof own !== "string" || own.length === 0 || own.length > MAX_SENSOR_CHARACTERS) {
    return readingOf(sourceName, object, "time", arrivalUs);
  }
  const { sensor: _, ...fields } = object;
  return readingOf(own, fields, "time", arrivalUs);
}
