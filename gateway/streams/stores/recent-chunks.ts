/**
 * What was read of the logs last, or written and is about to be read, so that readers at the tip and
 * several of one place need not each read it from the disk and check it. Bounded, and shared by all
 * logs of a store.
 *
 * Only memory is trusted: a checksum that was right says so of these bytes, not of the disk's. What
 * is read from the disk again is checked again.
 */
import type { Segment } from "./segment.ts";

const MAX_CHUNKS = 256;
/** What is written is gathered in chunks of this size, or of its own where it is larger. */
const WRITTEN_CHUNK_BYTES = 256 * 1024;

/** Bytes of a segment that never change; entries between `at` and `verifiedTo` were found sound in them. */
export interface Chunk {
  readonly segment: Segment | undefined;
  readonly bytes: Buffer;
  readonly at: number;
  verifiedTo: number;
}

/** A chunk that grows as its log does: what it holds never changes, but there comes to be more of it. */
class WrittenChunk implements Chunk {
  readonly segment: Segment;
  readonly at: number;
  readonly #memory: Buffer;
  bytes: Buffer;
  verifiedTo: number;

  constructor(segment: Segment, at: number, memoryBytes: number) {
    this.segment = segment;
    this.at = at;
    this.verifiedTo = at;
    // Never from the pool and never used again: readers keep views of it.
    this.#memory = Buffer.allocUnsafeSlow(memoryBytes);
    this.bytes = this.#memory.subarray(0, 0);
  }

  /** False when it has no room, or the bytes don't follow its own. */
  add(at: number, bytes: Buffer): boolean {
    const have = this.bytes.length;
    if (this.at + have !== at || have + bytes.length > this.#memory.length) return false;
    bytes.copy(this.#memory, have);
    this.bytes = this.#memory.subarray(0, have + bytes.length);
    // Their checksums were made from these very bytes.
    this.verifiedTo = at + bytes.length;
    return true;
  }

  get memoryBytes(): number {
    return this.#memory.length;
  }
}

export class RecentChunks {
  readonly #maxBytes: number;
  readonly #chunks: Chunk[] = [];
  /** Of each log's active segment, the chunk that what is written next goes to. */
  readonly #growing = new Map<Segment, WrittenChunk>();
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

  /** What was read from the disk. */
  add(chunk: Chunk): void {
    if (chunk.bytes.length > this.#maxBytes) return;
    this.#chunks.push(chunk);
    this.#bytes += chunk.bytes.length;
    this.#shrink();
  }

  /** What was just written to a segment at `at`, whole entries; copied. */
  written(segment: Segment, at: number, bytes: Buffer): void {
    if (bytes.length > this.#maxBytes || this.#growing.get(segment)?.add(at, bytes)) return;
    const chunk = new WrittenChunk(segment, at, Math.max(WRITTEN_CHUNK_BYTES, bytes.length));
    chunk.add(at, bytes);
    this.#growing.set(segment, chunk);
    this.#chunks.push(chunk);
    this.#bytes += chunk.memoryBytes;
    this.#shrink();
  }

  /** Nobody reads them again. */
  forget(segments: readonly Segment[]): void {
    for (let i = this.#chunks.length - 1; i >= 0; i--) {
      const { segment } = this.#chunks[i]!;
      if (segment !== undefined && segments.includes(segment)) this.#drop(i);
    }
  }

  #shrink(): void {
    while (this.#bytes > this.#maxBytes || this.#chunks.length > MAX_CHUNKS) this.#drop(0);
  }

  #drop(place: number): void {
    const chunk = this.#chunks.splice(place, 1)[0]!;
    this.#bytes -= chunk instanceof WrittenChunk ? chunk.memoryBytes : chunk.bytes.length;
    if (chunk instanceof WrittenChunk && this.#growing.get(chunk.segment) === chunk) {
      this.#growing.delete(chunk.segment);
    }
  }
}
