/**
 * What the API's thread and the one that writes pages tell each other (page-thread.ts). Records pass by no
 * message: they stand in memory that both see.
 *
 *   pieces | table of stretches, batches | page
 */
import type { Codec } from "../wire/codec.ts";
import { IN_AT, type RecordWindow, SHARED_IN_BYTES, SHARED_OUT_BYTES } from "./record-window.ts";
import { RecordWriter, type Stretch } from "./record-writer.ts";

/** All that a page is made of. */
export interface PageJob {
  readonly codec: Codec["name"];
  readonly shard: { readonly createdMs: number; readonly index: number };
  readonly stretches: readonly Stretch[];
  readonly frame: PageFrame;
  /** At most so much the records take. */
  readonly recordsBytes: number;
}

/** What stands around the records of an answer. */
export interface PageFrame {
  /** The answer without a record, and what comes in place of its end. */
  readonly empty: string | Buffer;
  readonly head: Buffer;
  /** What both take before the first record. */
  readonly beginBytes: number;
  readonly finish: Buffer;
  /** What stands behind the last record for another one. */
  readonly separatorBytes: number;
}

/** Puts it around the records, which stand from `at` up to `end`. @returns where the answer ends; it begins at `at - beginBytes` */
export function putFrame(frame: PageFrame, out: Buffer, at: number, end: number): number {
  const { empty, head, beginBytes, finish, separatorBytes } = frame;
  if (typeof empty === "string") out.write(empty.slice(0, -finish.length), at - beginBytes);
  else {
    empty.copy(out, at - beginBytes, 0, empty.length - 1);
    head.copy(out, at - head.length);
  }
  const finishAt = end - separatorBytes;
  finish.copy(out, finishAt);
  return finishAt + finish.length;
}

/** A piece of memory, by its number. The answer to `make` is `made`, and that to a page, `written`. */
export type ToThread = { readonly make: number } | ({ readonly write: number } & PlacedJob);

/** A job whose stretches stand in shared memory. */
export interface PlacedJob extends Pick<PageJob, "codec" | "shard"> {
  /** How many. */
  readonly stretches: number;
  /** Where the first record goes. */
  readonly at: number;
}

export type FromThread =
  /** No memory: this machine has not what it takes. */
  | { readonly made: number; readonly memory: SharedArrayBuffer | undefined; readonly outAt: number }
  /** Up to where; none where it could not be written. */
  | { readonly written: number; readonly end: number | undefined };

/** Of a stretch: arrivalMs, first, from, to, and where its batch is and how long. */
const WORDS = 6;
const WORD_BYTES = 8;

/**
 * Puts the stretches of a job into the memory of a shared window.
 * @returns undefined, with anything left there, when they or the page do not fit
 */
export function placeJob(job: PageJob, memory: Buffer, outAt: number): PlacedJob | undefined {
  const { codec, stretches, frame, recordsBytes } = job;
  if (frame.beginBytes + recordsBytes + frame.finish.length > SHARED_OUT_BYTES) return undefined;
  const end = IN_AT + SHARED_IN_BYTES;
  let batchAt = IN_AT + stretches.length * WORDS * WORD_BYTES;
  if (batchAt > end) return undefined;
  const table = new Float64Array(memory.buffer, memory.byteOffset + IN_AT, stretches.length * WORDS);
  for (const [i, { batch, arrivalMs, first, from, to }] of stretches.entries()) {
    // V8 copies into shared memory word by word, and byte by byte where words do not lie on words.
    batchAt += (batch.byteOffset - batchAt) & (WORD_BYTES - 1);
    if (batchAt + batch.length > end) return undefined;
    memory.set(batch, batchAt);
    table.set([arrivalMs, first, from, to, batchAt, batch.length], i * WORDS);
    batchAt += batch.length;
  }
  const { createdMs, index } = job.shard;
  return { codec, shard: { createdMs, index }, stretches: stretches.length, at: outAt + frame.beginBytes };
}

/** Writes the records of a job that was placed in this window. @returns where they end */
export function writeJob(job: PlacedJob, window: RecordWindow): number {
  const { memory } = window.arena;
  const writer = new RecordWriter(job.codec, job.shard, memory, job.at, window);
  const table = new Float64Array(memory.buffer, memory.byteOffset + IN_AT, job.stretches * WORDS);
  for (let i = 0; i < table.length; i += WORDS) {
    const batchAt = table[i + 4]!;
    writer.write({
      batch: memory.subarray(batchAt, batchAt + table[i + 5]!),
      arrivalMs: table[i]!,
      first: table[i + 1]!,
      from: table[i + 2]!,
      to: table[i + 3]!,
    });
  }
  return writer.end();
}
