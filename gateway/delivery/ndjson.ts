/**
 * Records as lines. A payload that is one JSON value becomes one line, byte for byte; anything else
 * becomes a line of the error output that holds it whole, with the reason.
 */
import { isUtf8 } from "node:buffer";

const LINE_FEED = 0x0a;
const CARRIAGE_RETURN = 0x0d;
const SPACE = 0x20;
const NEW_LINE = Buffer.from("\n");

/** Where a record stood, for whoever repairs it. */
export interface RecordPlace {
  readonly stream: string;
  readonly shardId: string;
  readonly offset: number;
  /** As Kinesis writes it. */
  readonly sequenceNumber: string;
  /** Its place among the records that the KPL packed into one. */
  readonly subSequenceNumber?: number;
  readonly arrivalMs: number;
  readonly timeUs: number;
  readonly partitionKey: string;
}

export interface Lines {
  readonly delivered: Buffer;
  readonly failed: Buffer;
  readonly deliveredRecords: number;
  readonly failedRecords: number;
}

export class LineWriter {
  readonly #delivered: Uint8Array[] = [];
  readonly #failed: Uint8Array[] = [];
  #deliveredRecords = 0;
  #failedRecords = 0;

  /** @param payload is read again at `finish`; do not write to it until then */
  add(payload: Buffer, place: () => RecordPlace): void {
    const reason = whyNotJson(payload);
    if (reason === undefined) {
      this.#delivered.push(asOneLine(payload), NEW_LINE);
      this.#deliveredRecords++;
      return;
    }
    const { arrivalMs, ...where } = place();
    const line = {
      reason,
      ...where,
      arrival: new Date(arrivalMs).toISOString(),
      data: payload.toString("base64"),
    };
    this.#failed.push(Buffer.from(`${JSON.stringify(line)}\n`));
    this.#failedRecords++;
  }

  finish(): Lines {
    return {
      delivered: Buffer.concat(this.#delivered),
      failed: Buffer.concat(this.#failed),
      deliveredRecords: this.#deliveredRecords,
      failedRecords: this.#failedRecords,
    };
  }
}

/** Undefined when the payload is exactly one JSON value (RFC 8259) in UTF-8. */
export function whyNotJson(payload: Buffer): string | undefined {
  if (payload.length === 0) return "empty";
  if (!isUtf8(payload)) return "not UTF-8";
  try {
    JSON.parse(payload.toString("utf8"));
    return undefined;
  } catch (error) {
    // V8 quotes the payload in its message; the data is in the line anyway.
    return `not JSON: ${error instanceof Error ? error.message.slice(0, 200) : String(error)}`;
  }
}

/**
 * RFC 8259 §2 and §7: a raw line break in valid JSON stands between tokens, never in a string, so a
 * space in its place is the same value. Nothing else is touched: numbers keep all their digits.
 */
function asOneLine(payload: Buffer): Buffer {
  if (!payload.includes(LINE_FEED) && !payload.includes(CARRIAGE_RETURN)) return payload;
  const line = Buffer.from(payload);
  for (let at = 0; at < line.length; at++) {
    if (line[at] === LINE_FEED || line[at] === CARRIAGE_RETURN) line[at] = SPACE;
  }
  return line;
}
