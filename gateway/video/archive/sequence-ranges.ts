/** A set of frame sequences as ranges: small while they come mostly in order. */
import type { FrameSequence } from "../../../protocol/frame.ts";

export interface SequenceRange {
  readonly first: FrameSequence;
  readonly last: FrameSequence;
}

/** Agents send in order, so that many gaps are no agent's. */
const MAX_RANGES = 4_096;

export class SequenceRanges {
  /** Sorted, apart by at least one missing sequence. */
  #ranges: SequenceRange[];

  constructor(ranges: readonly SequenceRange[] = []) {
    this.#ranges = [...ranges];
  }

  get ranges(): readonly SequenceRange[] {
    return this.#ranges;
  }

  has(sequence: FrameSequence): boolean {
    return this.#ranges.some((range) => range.first <= sequence && sequence <= range.last);
  }

  /** The set with `sequence` in it; this one stays as it is, so that a failed write changes nothing. */
  with(sequence: FrameSequence): SequenceRanges {
    if (this.has(sequence)) return this;
    const apart: SequenceRange[] = [];
    let { first, last } = { first: sequence, last: sequence };
    for (const range of this.#ranges) {
      if (range.last + 1n === first) first = range.first;
      else if (range.first === last + 1n) last = range.last;
      else apart.push(range);
    }
    apart.sort((a, b) => (a.first < b.first ? -1 : 1));
    // The oldest other one is forgotten: at worst its units come once more.
    const kept = [...apart.slice(-(MAX_RANGES - 1)), { first, last }];
    kept.sort((a, b) => (a.first < b.first ? -1 : 1));
    return new SequenceRanges(kept);
  }

  /** `1-17,19-19` */
  toString(): string {
    return this.#ranges.map((range) => `${range.first}-${range.last}`).join(",");
  }

  static parse(text: string): SequenceRanges {
    if (text === "") return new SequenceRanges();
    return new SequenceRanges(
      text.split(",").map((part) => {
        const [first, last] = part.split("-") as [string, string];
        return { first: BigInt(first), last: BigInt(last) };
      }),
    );
  }
}
