/**
 * Records as lines. A payload that is one JSON value becomes one line, byte for byte; anything else
 * becomes a line of the error output that holds it whole, with the reason.
 */
import { isUtf8 } from "node:buffer";
import { whyNotJson } from "../../runtime/json-check.ts";
import { GzipWriter } from "./gzip-writer.ts";

const LINE_FEED = 0x0a;
const CARRIAGE_RETURN = 0x0d;
const SPACE = 0x20;

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
  /** Compressed; undefined when there are none. */
  readonly delivered: Uint8Array | undefined;
  readonly failed: Uint8Array | undefined;
  readonly deliveredRecords: number;
  readonly failedRecords: number;
}

/**
 * The line of a failed record may be a hundred times as long as the record, so lines are compressed
 * as they come: millions of records of one byte must not take the gateway's memory.
 */
export class LineWriter {
  #delivered: GzipWriter | undefined;
  #failed: GzipWriter | undefined;
  #deliveredRecords = 0;
  #failedRecords = 0;

  /** Copies the payload. Call `drain` after some hundred. */
  add(payload: Buffer, place: () => RecordPlace): void {
    const reason = whyNotOneValue(payload);
    if (reason === undefined) {
      this.#delivered ??= new GzipWriter();
      this.#delivered.addLine(asOneLine(payload));
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
    this.#failed ??= new GzipWriter();
    this.#failed.addLine(Buffer.from(JSON.stringify(line)));
    this.#failedRecords++;
  }

  /** Resolves once hardly anything waits to be compressed. */
  async drain(): Promise<void> {
    await this.#delivered?.drain();
    await this.#failed?.drain();
  }

  async finish(): Promise<Lines> {
    return {
      delivered: await this.#delivered?.finish(),
      failed: await this.#failed?.finish(),
      deliveredRecords: this.#deliveredRecords,
      failedRecords: this.#failedRecords,
    };
  }
}

/** Undefined when the payload is exactly one JSON value (RFC 8259) in UTF-8. */
function whyNotOneValue(payload: Buffer): string | undefined {
  if (payload.length === 0) return "empty";
  if (!isUtf8(payload)) return "not UTF-8";
  // Not parsed: of some large records that would take seconds.
  const reason = whyNotJson(payload);
  return reason === undefined ? undefined : `not JSON: ${reason}`;
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
