/**
 * A piece of a segment in memory. Reads that found records in it hold it, and so does whoever keeps it for others;
 * when all of them have let it go, its memory is used again. A replay by GetRecords took new memory of 1 MiB for
 * each piece, some 300 MB/s, and for that V8 collected its whole heap ten times a second.
 *
 * Who never lets go leaves it to the collector.
 */
import { LEAST_LENT_BYTES, MemoryPool } from "../../../../../runtime/memory-pool.ts";
import type { Segment } from "./segment.ts";

/** Larger ones are rare; as memory comes in powers of two, they would waste too much of it. */
const MAX_LENT_BYTES = 4 * 1_048_576;
const MAX_IDLE_BYTES = 16 * 1_048_576;

/** Of the whole process: what one log lets go, another one takes. */
const chunkMemory = new MemoryPool(MAX_IDLE_BYTES);

export class Chunk {
  readonly segment: Segment | undefined;
  /** They do not change as long as anybody holds them. */
  readonly bytes: Buffer;
  /** Where they stand in the segment. */
  readonly at: number;
  /** Entries from `at` up to here were found sound in these very bytes. */
  verifiedTo: number;
  #holders = 0;

  /** @param bytes to be written before anybody reads them: whatever stands there is older */
  constructor(segment: Segment | undefined, at: number, bytes: number) {
    this.segment = segment;
    this.at = at;
    this.verifiedTo = at;
    // Small ones of node:buffer's pool, where several share a memory.
    this.bytes =
      bytes < LEAST_LENT_BYTES || bytes > MAX_LENT_BYTES
        ? Buffer.allocUnsafe(bytes)
        : chunkMemory.take(bytes);
  }

  /** What it costs to keep it. */
  get memoryBytes(): number {
    return this.bytes.buffer.byteLength;
  }

  hold(): void {
    this.#holders++;
  }

  /** Once for each `hold`. */
  letGo(): void {
    this.#holders--;
    if (this.#holders === 0) chunkMemory.give(this.bytes);
  }
}
