/**
 * The record buffer as the uplink sees it: nothing of a boot is read before its time is known, and
 * what was written with provisional times comes out with true ones.
 *
 *   record buffer ─read→ provisional? ─known→ UTC written in ─→ uplink
 *                              └─ not yet ─→ waits
 */
import type { Frame } from "../../protocol/frame.ts";
import type { FramePlace, RecordBuffer } from "../buffer/record-buffer.ts";
import { frameInUtc } from "./frame-in-utc.ts";
import type { TimeKeeper } from "./time-keeper.ts";

export class TimedRecords implements RecordBuffer {
  readonly #inner: RecordBuffer;
  readonly #keeper: TimeKeeper;

  constructor(inner: RecordBuffer, keeper: TimeKeeper) {
    this.#inner = inner;
    this.#keeper = keeper;
  }

  async read(after: FramePlace | undefined, maxBytes: number): Promise<Frame[]> {
    // Strictly oldest first, so nothing can be sent either of what was written later.
    if (!this.#keeper.known) return [];
    const frames = await this.#inner.read(after, maxBytes);
    if (!this.#keeper.mayBeProvisional) return frames;
    return frames.map((frame) => frameInUtc(frame, (timeUs) => this.#keeper.momentOf(timeUs)));
  }

  async waiting(after: FramePlace | undefined, signal: AbortSignal): Promise<void> {
    await this.#keeper.whenKnown(signal);
    await this.#inner.waiting(after, signal);
  }

  append(...records: Parameters<RecordBuffer["append"]>): Promise<void> {
    return this.#inner.append(...records);
  }

  report(...records: Parameters<RecordBuffer["report"]>): Promise<boolean> {
    return this.#inner.report(...records);
  }

  refuses(...records: Parameters<RecordBuffer["refuses"]>): boolean {
    return this.#inner.refuses(...records);
  }

  mark(...source: Parameters<RecordBuffer["mark"]>): ReturnType<RecordBuffer["mark"]> {
    return this.#inner.mark(...source);
  }

  marks(...prefix: Parameters<RecordBuffer["marks"]>): Promise<string[]> {
    return this.#inner.marks(...prefix);
  }

  setMarks(...marks: Parameters<RecordBuffer["setMarks"]>): Promise<void> {
    return this.#inner.setMarks(...marks);
  }

  ack(...place: Parameters<RecordBuffer["ack"]>): Promise<void> {
    return this.#inner.ack(...place);
  }

  ackAhead(...place: Parameters<RecordBuffer["ackAhead"]>): void {
    this.#inner.ackAhead(...place);
  }

  isAhead(...place: Parameters<RecordBuffer["isAhead"]>): boolean {
    return this.#inner.isAhead(...place);
  }

  beginEpoch(): ReturnType<RecordBuffer["beginEpoch"]> {
    return this.#inner.beginEpoch();
  }

  drainedEpochs(): ReturnType<RecordBuffer["drainedEpochs"]> {
    return this.#inner.drainedEpochs();
  }

  forgetEpoch(...epoch: Parameters<RecordBuffer["forgetEpoch"]>): Promise<void> {
    return this.#inner.forgetEpoch(...epoch);
  }

  usage(): ReturnType<RecordBuffer["usage"]> {
    const usage = this.#inner.usage();
    return { ...usage, oldestUs: this.#keeper.oldestInUtc(usage.oldestUs) };
  }

  close(): Promise<void> {
    return this.#inner.close();
  }
}
