/**
 * What was read of the logs last, so that several readers of one place, of other shards or at the
 * tip, need not each read it from the disk and check it. Bounded, and shared by all logs of a store.
 *
 * Only memory is trusted: a checksum that was right says so of these bytes, not of the disk's. What
 * is read from the disk again is checked again.
 */
import type { Segment } from "./segment.ts";

const MAX_CHUNKS = 64;

/** Bytes of a segment that never change; entries between `at` and `verifiedTo` were found sound in them. */
export interface Chunk {
  readonly segment: Segment | undefined;
  readonly bytes: Buffer;
  readonly at: number;
  verifiedTo: number;
}

export class RecentChunks {
  readonly #maxBytes: number;
  readonly #chunks: Chunk[] = [];
  #bytes = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** A chunk that holds at least `bytes` from `from` on; the longest way on from there. */
  find(segment: Segment, from: number, bytes: number): Chunk | undefined {
    let best: Chunk | undefined;
    for (const chunk of this.#chunks) {
      if (chunk.segment !== segment || chunk.at > from || from + bytes > chunk.at + chunk.bytes.length)
        continue;
      if (best === undefined || chunk.at + chunk.bytes.length > best.at + best.bytes.length) best = chunk;
    }
    return best;
  }

  add(chunk: Chunk): void {
    if (chunk.bytes.length > this.#maxBytes) return;
    this.#chunks.push(chunk);
    this.#bytes += chunk.bytes.length;
    while (this.#bytes > this.#maxBytes || this.#chunks.length > MAX_CHUNKS) {
      this.#bytes -= this.#chunks.shift()!.bytes.length;
    }
  }

  /** Nobody reads them again. */
  forget(segments: readonly Segment[]): void {
    for (let i = this.#chunks.length - 1; i >= 0; i--) {
      const chunk = this.#chunks[i]!;
      if (chunk.segment === undefined || !segments.includes(chunk.segment)) continue;
      this.#chunks.splice(i, 1);
      this.#bytes -= chunk.bytes.length;
    }
  }
}
