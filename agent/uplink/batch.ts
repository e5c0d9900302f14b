/**
 * What a lane makes of the frames that it read in a row: those that it sends in one publish, and how
 * far everything is done once that is acknowledged.
 */
import type { Epoch, Frame } from "../../protocol/frame.ts";
import type { FramePlace, StreamPlace } from "../buffer/record-buffer.ts";

/**
 * What a lane does with a frame: it is to be sent; or it is done, or another lane's, as far as this one
 * is concerned; or it may not go now, and what is behind it in its epoch is not wholly done before it is.
 */
export type Duty = "send" | "pass" | "hold";

export class Batch {
  readonly frames: Frame[] = [];
  bytes = 0;
  /** Frames that were looked at. */
  seen = 0;
  /** The last that was looked at. */
  last: FramePlace | undefined;
  readonly #upTo = new Map<Epoch, FramePlace>();
  readonly #streams = new Map<string, StreamPlace>();
  /** The epoch that was held last: nothing behind is wholly done in it. */
  #held: Epoch | undefined;

  /** @param held the epoch in which a frame before these is held */
  constructor(held: Epoch | undefined) {
    this.#held = held;
  }

  get held(): Epoch | undefined {
    return this.#held;
  }

  take(frame: Frame, duty: Duty): void {
    const { epoch, sequence, stream } = frame;
    this.seen++;
    this.last = { epoch, sequence };
    if (duty === "hold") this.#held = epoch;
    if (duty === "send") {
      this.frames.push(frame);
      this.bytes += frame.bytes.length;
      this.#streams.set(`${epoch}/${stream}`, { epoch, sequence, stream });
    }
    if (this.#held !== epoch) this.#upTo.set(epoch, { epoch, sequence });
  }

  /** Once it is acknowledged, all up to these is done: one place an epoch. */
  get upTo(): FramePlace[] {
    return [...this.#upTo.values()];
  }

  /** Whether frames of the epoch are sent. */
  carries(epoch: Epoch): boolean {
    for (const place of this.#streams.values()) if (place.epoch === epoch) return true;
    return false;
  }

  /** Of each stream and epoch, the last frame that is sent. */
  get streams(): Iterable<StreamPlace> {
    return this.#streams.values();
  }
}
