/**
 * The frames that are under way: sent, and not yet acknowledged without a gap before them. Bounded
 * in bytes. PUBACKs may come in any order; frames are forgotten only from the oldest on.
 */
import type { Frame } from "../../protocol/frame.ts";
import type { FramePlace } from "../buffer/record-buffer.ts";

interface Publish {
  readonly frames: readonly FramePlace[];
  readonly bytes: number;
  readonly sentMs: number;
  acknowledged: boolean;
}

export class FrameWindow {
  readonly #maxBytes: number;
  readonly #publishes: Publish[] = [];
  #bytes = 0;
  #last: FramePlace | undefined;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** Where the next read begins. */
  get last(): FramePlace | undefined {
    return this.#last;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Bytes that may still be sent; one publish is always allowed. */
  get room(): number {
    return this.#publishes.length === 0 ? this.#maxBytes : Math.max(0, this.#maxBytes - this.#bytes);
  }

  /** When the oldest publish that is not acknowledged was sent. */
  get oldestSentMs(): number | undefined {
    return this.#publishes[0]?.sentMs;
  }

  /** @returns a handle for `acknowledge` */
  add(frames: readonly Frame[], bytes: number, sentMs: number): object {
    const publish: Publish = {
      frames: frames.map(({ epoch, sequence }) => ({ epoch, sequence })),
      bytes,
      sentMs,
      acknowledged: false,
    };
    this.#publishes.push(publish);
    this.#bytes += bytes;
    this.#last = publish.frames.at(-1);
    return publish;
  }

  /** @returns the last frame of each epoch that may now be forgotten */
  acknowledge(handle: object): FramePlace[] {
    (handle as Publish).acknowledged = true;
    const done = new Map<bigint, FramePlace>();
    while (this.#publishes[0]?.acknowledged) {
      const publish = this.#publishes.shift()!;
      this.#bytes -= publish.bytes;
      for (const frame of publish.frames) done.set(frame.epoch, frame);
    }
    return [...done.values()];
  }
}
