/**
 * Memory that is used again once nobody looks at it any more. V8 counts new memory outside of its heap as if it
 * stood in it, and collects the whole heap when that has grown: for a few pages of GetRecords that took more
 * of a core than to write the pages, and for the events of 10,000 records/s it came every second, and
 * whatever came meanwhile waited up to 20 ms.
 *
 * Who takes some need not give it back: what is never given back is collected like any other buffer.
 */

/** Who wants less is lent so much. */
export const LEAST_LENT_BYTES = 8_192;

/** It knows whose it is, so that nobody keeps a list of what is lent. */
class LentMemory extends ArrayBuffer {
  readonly owner: MemoryPool;
  isLent = false;

  constructor(bytes: number, owner: MemoryPool) {
    super(bytes);
    this.owner = owner;
  }
}

/** What is idle of one size, and when some of it was given back last, counted in gifts. */
interface Idle {
  readonly size: number;
  readonly memories: LentMemory[];
  lastGift: number;
}

export class MemoryPool {
  readonly #maxIdleBytes: number;
  /** By the logarithm of their size. No Map: one that empties and fills makes garbage that only whole collections find. */
  readonly #idle: Array<Idle | undefined> = [];
  #idleBytes = 0;
  #gifts = 0;

  /** @param maxIdleBytes of what is kept for whoever takes next, all together */
  constructor(maxIdleBytes: number) {
    this.#maxIdleBytes = maxIdleBytes;
  }

  get idleBytes(): number {
    return this.#idleBytes;
  }

  /** @returns so many bytes, with whatever stands in them */
  take(bytes: number): Buffer {
    const size = sizeFor(bytes);
    let memory = this.#idle[Math.log2(size)]?.memories.pop();
    if (memory === undefined) memory = new LentMemory(size, this);
    else this.#idleBytes -= size;
    memory.isLent = true;
    return Buffer.from(memory, 0, bytes);
  }

  /**
   * For what was taken, or a part of it; anything else, such as a text, stays what it is. Nobody may look at it
   * any more, the kernel and a TLS layer included. Once for each `take`: a second time does nothing only for as
   * long as nobody has taken the same memory again.
   */
  give(bytes: Buffer | string): void {
    if (typeof bytes === "string") return;
    const memory: ArrayBufferLike = bytes.buffer;
    if (!(memory instanceof LentMemory) || memory.owner !== this || !memory.isLent) return;
    memory.isLent = false;
    const size = memory.byteLength;
    if (size > this.#maxIdleBytes) return;
    const idle = this.#idle[Math.log2(size)] ?? { size, memories: [], lastGift: 0 };
    this.#idle[Math.log2(size)] = idle;
    idle.memories.push(memory);
    idle.lastGift = ++this.#gifts;
    this.#idleBytes += size;
    // What a burst of other sizes left behind makes room; it would keep these out for ever.
    while (this.#idleBytes > this.#maxIdleBytes) this.#dropOldest();
  }

  #dropOldest(): void {
    let oldest: Idle | undefined;
    for (const idle of this.#idle) {
      if (idle === undefined || idle.memories.length === 0) continue;
      if (oldest === undefined || idle.lastGift < oldest.lastGift) oldest = idle;
    }
    this.#idleBytes -= oldest!.size;
    oldest!.memories.shift();
  }
}

/** The next power of two. */
function sizeFor(bytes: number): number {
  return 2 ** Math.ceil(Math.log2(Math.max(bytes, LEAST_LENT_BYTES)));
}
