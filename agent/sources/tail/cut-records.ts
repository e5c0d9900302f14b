/**
 * Cuts what was read of a file into records: a line each, or a first line with those that belong to
 * it. Holds no state: what is not cut yet is read again, so a crash changes nothing.
 */

/** A longer line or record is cut into pieces of this size. */
export const MAX_RECORD_BYTES = 65_536;
const LINE_FEED = 10;
const CARRIAGE_RETURN = 13;

export interface CutRecord {
  /** Without its line end; empty where there is nothing to store. */
  readonly bytes: Buffer;
  /** Where the next one begins, counted from the start of the window. */
  readonly end: number;
}

/**
 * `open`: more may come. `quiet`: nothing came for a while, so a record of several lines is whole,
 * but a line without its end is not. `final`: nothing will ever come.
 */
export type WindowEnd = "open" | "quiet" | "final";

/** @param first matches the first line of a record; without it every line is one */
export function cutRecords(window: Buffer, ends: WindowEnd, first?: RegExp): CutRecord[] {
  const lines = cutLines(window, ends);
  if (first === undefined) return lines;
  const records: CutRecord[] = [];
  let group: CutRecord[] = [];
  let bytes = 0;
  const close = (): void => {
    if (group.length > 0) records.push({ bytes: joined(group), end: group.at(-1)!.end });
    group = [];
    bytes = 0;
  };
  for (const line of lines) {
    if (first.test(line.bytes.toString()) || bytes + line.bytes.length > MAX_RECORD_BYTES) close();
    group.push(line);
    bytes += line.bytes.length + 1;
  }
  if (ends !== "open") close();
  return records;
}

function joined(lines: readonly CutRecord[]): Buffer {
  if (lines.length === 1) return lines[0]!.bytes;
  return Buffer.concat(lines.flatMap(({ bytes }, i) => (i === 0 ? [bytes] : [NEW_LINE, bytes])));
}

const NEW_LINE = Buffer.of(LINE_FEED);

function cutLines(window: Buffer, ends: WindowEnd): CutRecord[] {
  const lines: CutRecord[] = [];
  let at = 0;
  while (at < window.length) {
    // A writer that does not append leaves a hole of zeros before it when its file was truncated.
    let from = at;
    while (window[from] === 0) from++;
    const feed = window.indexOf(LINE_FEED, from);
    const lineEnd = feed < 0 ? window.length : feed;
    if (lineEnd - from > MAX_RECORD_BYTES) {
      at = from + MAX_RECORD_BYTES;
      lines.push({ bytes: window.subarray(from, at), end: at });
    } else if (feed >= 0) {
      at = feed + 1;
      const returned = feed > from && window[feed - 1] === CARRIAGE_RETURN;
      lines.push({ bytes: window.subarray(from, returned ? feed - 1 : feed), end: at });
    } else {
      // The zeros of a hole are done with, whatever comes behind them.
      if (ends === "final" || from === window.length)
        lines.push({ bytes: window.subarray(from), end: window.length });
      break;
    }
  }
  return lines;
}
