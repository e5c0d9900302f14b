/**
 * What is under way in a lane: read from the buffer, and not yet acknowledged without a gap before it.
 * Bounded in bytes. PUBACKs may come in any order; batches are done only from the oldest on.
 */
import type { Epoch } from "../../protocol/frame.ts";
import type { Batch } from "./batch.ts";

/** A batch on its way. */
export interface Underway {
  readonly batch: Batch;
  /** Of its frames, and once it is published of the publish. */
  bytes: number;
  /** Undefined before it is published. */
  sentMs: number | undefined;
  acknowledged: boolean;
}

export class FrameWindow {
  /** May change; what is under way stays so. */
  limitBytes: number;
  #underway: Underway[] = [];
  #bytes = 0;

  constructor(limitBytes: number) {
    this.limitBytes = limitBytes;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Bytes that may still be sent; one publish is always allowed. */
  get room(): number {
    return this.#bytes === 0 ? this.limitBytes : Math.max(0, this.limitBytes - this.#bytes);
  }

  get isEmpty(): boolean {
    return this.#underway.length === 0;
  }

  /** When the oldest publish that is not acknowledged was sent. */
  get oldestSentMs(): number | undefined {
    return this.#underway.find(({ acknowledged }) => !acknowledged)?.sentMs;
  }

  /** Whether frames of the epoch are under way. */
  carries(epoch: Epoch): boolean {
    return this.#underway.some(({ batch }) => batch.carries(epoch));
  }

  /** Its frames were read; it is not published yet. */
  add(batch: Batch): Underway {
    const { bytes } = batch;
    const underway: Underway = { batch, bytes, sentMs: undefined, acknowledged: false };
    this.#underway.push(underway);
    this.#bytes += bytes;
    return underway;
  }

  sent(underway: Underway, wireBytes: number, nowMs: number): void {
    this.#bytes += wireBytes - underway.bytes;
    underway.bytes = wireBytes;
    underway.sentMs = nowMs;
  }

  /** @returns the batches that are done now, in their order */
  acknowledge(underway: Underway): Batch[] {
    underway.acknowledged = true;
    const done: Batch[] = [];
    while (this.#underway[0]?.acknowledged) {
      const first = this.#underway.shift()!;
      this.#bytes -= first.bytes;
      done.push(first.batch);
    }
    return done;
  }

  /** Gives up what is not published; all that was read behind it is not either. */
  dropUnsent(): void {
    const from = this.#underway.findIndex(
      ({ sentMs, acknowledged }) => sentMs === undefined && !acknowledged,
    );
    if (from < 0) return;
    for (const { bytes } of this.#underway.splice(from)) this.#bytes -= bytes;
  }
}
