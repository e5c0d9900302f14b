/**
 * What was written last, of all logs of a store, for readers at their tips: in one piece of memory, in
 * which the newest takes the place of the oldest. Readers are given copies, as they keep views of what they
 * read for as long as they like.
 *
 *   memory  … | chunk of log a | chunk of log b, growing | chunk of log a, growing |→ oldest chunk | …
 *
 * New memory for each chunk, which readers then had views of, was what V8 collected its whole heap for in a
 * gateway with subscribers: memory that lives for seconds is only found to be free in that way.
 */
import { Chunk } from "./chunk.ts";
import type { Segment } from "./segment.ts";

/** What is written is gathered in chunks of this size, or of its own where it is larger. */
const CHUNK_BYTES = 128 * 1024;
/** A reader that wants to know more asks again. */
const COPY_BYTES = 64 * 1024;

interface WrittenChunk {
  readonly segment: Segment;
  /** Where its bytes stand in the segment. */
  readonly at: number;
  /** Where they stand in the memory, and where what may come there ends. */
  readonly from: number;
  readonly to: number;
  bytes: number;
}

export class WrittenTail {
  readonly #maxBytes: number;
  /** Made when it is needed: many a gateway has no readers at its tip. */
  #memory: Buffer | undefined;
  /** The oldest first; once around the memory from there. */
  #chunks: WrittenChunk[] = [];
  /** Of each log's active segment, the chunk that what is written next goes to. */
  readonly #growing = new Map<Segment, WrittenChunk>();
  #next = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** What was just written to a segment at `at`, whole entries. */
  add(segment: Segment, at: number, bytes: Buffer): void {
    if (bytes.length > this.#maxBytes) return;
    this.#memory ??= Buffer.allocUnsafeSlow(this.#maxBytes);
    const known = this.#growing.get(segment);
    const goesOn =
      known !== undefined &&
      known.at + known.bytes === at &&
      known.from + known.bytes + bytes.length <= known.to;
    const chunk = goesOn ? known : this.#open(segment, at, bytes.length);
    this.#memory.set(bytes, chunk.from + chunk.bytes);
    chunk.bytes += bytes.length;
  }

  /** A copy of what stands at `from`: of at least `bytes`, and of somewhat more where there is more. */
  copy(segment: Segment, from: number, bytes: number): Chunk | undefined {
    for (let i = this.#chunks.length - 1; i >= 0; i--) {
      const chunk = this.#chunks[i]!;
      const left = chunk.at + chunk.bytes - from;
      if (chunk.segment !== segment || chunk.at > from || left < bytes) continue;
      const copy = new Chunk(segment, from, Math.max(bytes, Math.min(left, COPY_BYTES)));
      this.#memory!.copy(copy.bytes, 0, chunk.from + from - chunk.at);
      // Their checksums were made from these very bytes.
      copy.verifiedTo = from + copy.bytes.length;
      return copy;
    }
    return undefined;
  }

  /** Nobody reads them again. */
  forget(segments: readonly Segment[]): void {
    this.#chunks = this.#chunks.filter((chunk) => !segments.includes(chunk.segment));
    for (const segment of segments) this.#growing.delete(segment);
  }

  #open(segment: Segment, at: number, bytes: number): WrittenChunk {
    const size = Math.min(Math.max(CHUNK_BYTES, bytes), this.#maxBytes);
    if (this.#next + size > this.#maxBytes) {
      // Those up to the memory's end are older than all at its beginning.
      this.#dropWhile(({ from }) => from >= this.#next);
      this.#next = 0;
    }
    const from = this.#next;
    const to = from + size;
    this.#dropWhile((oldest) => oldest.from < to && oldest.to > from);
    this.#next = to;
    const chunk = { segment, at, from, to, bytes: 0 };
    this.#chunks.push(chunk);
    this.#growing.set(segment, chunk);
    return chunk;
  }

  #dropWhile(isInTheWay: (oldest: WrittenChunk) => boolean): void {
    while (this.#chunks.length > 0 && isInTheWay(this.#chunks[0]!)) {
      const chunk = this.#chunks.shift()!;
      if (this.#growing.get(chunk.segment) === chunk) this.#growing.delete(chunk.segment);
    }
  }
}
