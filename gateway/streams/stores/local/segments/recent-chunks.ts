/**
 * What was read of the logs last, or written and is about to be read, so that readers at the tip and
 * several of one place need not each read it from the disk and check it. Bounded, and shared by all
 * logs of a store.
 *
 * Only memory is trusted: a checksum that was right says so of these bytes, not of the disk's. What
 * is read from the disk again is checked again.
 */
import type { Chunk } from "./chunk.ts";
import type { Segment } from "./segment.ts";
import { WrittenTail } from "./written-tail.ts";

const MAX_CHUNKS = 256;

export class RecentChunks {
  readonly #maxBytes: number;
  /** What was read, oldest first. */
  readonly #chunks: Chunk[] = [];
  #bytes = 0;
  readonly #written: WrittenTail;

  /** @param maxBytes of what was read, and of what was written as much again */
  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
    this.#written = new WrittenTail(maxBytes);
  }

  /** A chunk that holds at least `bytes` from `from` on; the longest way on from there that was read. */
  find(segment: Segment, from: number, bytes: number): Chunk | undefined {
    let best: Chunk | undefined;
    for (const chunk of this.#chunks) {
      if (chunk.segment !== segment || chunk.at > from || from + bytes > chunk.at + chunk.bytes.length)
        continue;
      if (best === undefined || chunk.at + chunk.bytes.length > best.at + best.bytes.length) best = chunk;
    }
    return best ?? this.#written.copy(segment, from, bytes);
  }

  /** What was read from the disk. */
  add(chunk: Chunk): void {
    if (chunk.memoryBytes > this.#maxBytes) return;
    chunk.hold();
    this.#chunks.push(chunk);
    this.#bytes += chunk.memoryBytes;
    while (this.#bytes > this.#maxBytes || this.#chunks.length > MAX_CHUNKS) this.#drop(0);
  }

  /** What was just written to a segment at `at`, whole entries; copied. */
  written(segment: Segment, at: number, bytes: Buffer): void {
    this.#written.add(segment, at, bytes);
  }

  /** Nobody reads them again. */
  forget(segments: readonly Segment[]): void {
    for (let i = this.#chunks.length - 1; i >= 0; i--) {
      const { segment } = this.#chunks[i]!;
      if (segment !== undefined && segments.includes(segment)) this.#drop(i);
    }
    this.#written.forget(segments);
  }

  #drop(place: number): void {
    const [chunk] = this.#chunks.splice(place, 1) as [Chunk];
    this.#bytes -= chunk.memoryBytes;
    chunk.letGo();
  }
}
