/**
 * What of each epoch of a camera's senders is on disk, as `persisted` tells it to them: what stands here they
 * delete. A picture of the index, which is written first.
 */
import type { PersistedRange } from "../../../protocol/footage.ts";
import { type Epoch, epochName, type FrameSequence } from "../../../protocol/frame.ts";
import { SequenceRanges } from "./sequence-ranges.ts";

/** Remembered, most recently used first; an agent starts one a start. */
const MAX_EPOCHS = 256;
/** Answers to GET_PARAMETER stay below a message's size. */
const MAX_PERSISTED_RANGES = 1_000;

interface KnownEpoch {
  readonly ranges: SequenceRanges;
  readonly usedUs: number;
}

export class KnownEpochs {
  readonly #epochs = new Map<string, KnownEpoch>();

  has(epoch: Epoch, sequence: FrameSequence): boolean {
    return this.#epochs.get(epochName(epoch))?.ranges.has(sequence) ?? false;
  }

  /** What the epoch of that name has on disk; nothing for one that is new. */
  ranges(name: string): SequenceRanges {
    return this.#epochs.get(name)?.ranges ?? new SequenceRanges();
  }

  set(name: string, ranges: SequenceRanges, usedUs: number): void {
    this.#epochs.set(name, { ranges, usedUs });
  }

  forget(name: string): void {
    this.#epochs.delete(name);
  }

  /** Which is to be forgotten, if there are too many. Never the one in use, which is not the newest by a clock that was set back. */
  surplus(inUse: string): string | undefined {
    if (this.#epochs.size <= MAX_EPOCHS) return undefined;
    const others = [...this.#epochs].filter(([name]) => name !== inUse);
    return others.sort(([, a], [, b]) => a.usedUs - b.usedUs)[0]![0];
  }

  /** The most recently used first. */
  persisted(): PersistedRange[] {
    const found: PersistedRange[] = [];
    const epochs = [...this.#epochs].sort(([, a], [, b]) => b.usedUs - a.usedUs);
    for (const [name, { ranges }] of epochs) {
      // The newest ranges of an epoch come last.
      for (const range of ranges.ranges.toReversed()) {
        if (found.length === MAX_PERSISTED_RANGES) return found;
        found.push({ epoch: BigInt(`0x${name}`), ...range });
      }
    }
    return found;
  }
}
