/** The formats of things that come line by line: from a serial port, a file, a command. */
import { TextDecoder } from "node:util";
import type { CsvConfig, LineFormat } from "../../../config/source-config.ts";
import type { Decoded } from "../source.ts";
import { CsvDecoder } from "./csv.ts";
import { decodeJsonLine } from "./json-line.ts";
import { decodeNmea } from "./nmea.ts";

/** Bytes that are no UTF-8 become U+FFFD: a log line is still worth reading, a number then is none. */
const utf8 = new TextDecoder("utf-8");

export interface LineDecoder {
  /** Never throws. No readings and no reason where a line is meant to make none, such as a header. */
  decode(line: Uint8Array, arrivalUs: number): Decoded;
  /** The first line of a file that is read on from its middle. */
  prime(firstLine: Uint8Array): void;
}

/** @param sensor what a line that names no sensor is from */
export function lineDecoder(format: LineFormat, sensor: string, csv?: CsvConfig): LineDecoder {
  if (format === "csv") {
    const decoder = new CsvDecoder(sensor, csv);
    return {
      decode: (line, arrivalUs) => decoder.decode(utf8.decode(line), arrivalUs),
      prime: (line) => decoder.prime(utf8.decode(line)),
    };
  }
  const decode = format === "nmea" ? decodeNmea : format === "text" ? decodeText : decodeJson;
  return {
    decode: (line, arrivalUs) => decode(utf8.decode(line), sensor, arrivalUs),
    prime() {},
  };
}

function decodeText(line: string, sensor: string): Decoded {
  return { readings: [{ sensor, timeUs: undefined, fields: { line } }] };
}

function decodeJson(line: string, sensor: string, arrivalUs: number): Decoded {
  try {
    return { readings: [decodeJsonLine(line, sensor, arrivalUs)] };
  } catch (error) {
    // RangeError: nested so deep that the parser ran out of stack.
    if (!(error instanceof SyntaxError || error instanceof RangeError)) throw error;
    return { reason: `no reading: ${error.message.slice(0, 120)}` };
  }
}
