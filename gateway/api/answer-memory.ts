/**
 * Memory for answers and events, which is used again once they have gone. V8 counts new memory outside of
 * its heap as if it stood in it, and collects the whole heap when that has grown: for a few pages of
 * GetRecords that took more of a core than to write the pages, and for the events of 10,000 records/s
 * it came every second, and whatever came meanwhile waited up to 20 ms.
 *
 * Who writes an answer need not say so: what is never given back is collected like any other buffer.
 */

/** Of what is kept for the next answers, all together. */
const MAX_IDLE_BYTES = 32 * 1_048_576;
const LEAST_BYTES = 8_192;

export class AnswerMemory {
  readonly #maxIdleBytes: number;
  /** By their size, a power of two, none without any; the size that was given back last stands last. */
  readonly #idle = new Map<number, ArrayBuffer[]>();
  readonly #lent = new WeakSet<ArrayBufferLike>();
  #idleBytes = 0;

  constructor(maxIdleBytes = MAX_IDLE_BYTES) {
    this.#maxIdleBytes = maxIdleBytes;
  }

  get idleBytes(): number {
    return this.#idleBytes;
  }

  /** @returns so many bytes, with whatever stands in them */
  take(bytes: number): Buffer {
    const size = sizeFor(bytes);
    const idle = this.#idle.get(size);
    const memory = idle?.pop() ?? new ArrayBuffer(size);
    if (idle !== undefined) {
      this.#idleBytes -= size;
      if (idle.length === 0) this.#idle.delete(size);
    }
    this.#lent.add(memory);
    return Buffer.from(memory, 0, bytes);
  }

  /**
   * For what was taken and has left whole, or a part of it; anything else, such as a text, stays what it is.
   * Nobody may look at it any more, the kernel and a TLS layer included. Once for each `take`: a second
   * time does nothing only for as long as nobody has taken the same memory again.
   */
  give(answer: Buffer | string): void {
    if (typeof answer === "string") return;
    const memory = answer.buffer as ArrayBuffer;
    if (!this.#lent.delete(memory)) return;
    const size = memory.byteLength;
    if (size > this.#maxIdleBytes) return;
    const idle = this.#idle.get(size) ?? [];
    idle.push(memory);
    this.#idle.delete(size);
    this.#idle.set(size, idle);
    this.#idleBytes += size;
    // What a burst of other answers left behind makes room; it would keep these out for ever.
    while (this.#idleBytes > this.#maxIdleBytes) this.#dropOldest();
  }

  #dropOldest(): void {
    const [size, idle] = this.#idle.entries().next().value!;
    idle.shift();
    this.#idleBytes -= size;
    if (idle.length === 0) this.#idle.delete(size);
  }
}

/** The next power of two. */
function sizeFor(bytes: number): number {
  return 2 ** Math.ceil(Math.log2(Math.max(bytes, LEAST_BYTES)));
}

/** Of the whole process: lanes and subscriptions give back to it what pages and events took. */
export const answerMemory = new AnswerMemory();
