/**
 * Memory for large answers, which is used again once an answer has gone. New memory for each page of
 * GetRecords has V8 collect its whole heap, for the sake of a few large buffers: that took more of a core
 * than to write the pages.
 *
 * What nobody needs is not kept for long, as it costs the others: with 64 MB of memory outside of its heap V8
 * collects all of it every second, and whatever comes meanwhile waits up to 20 ms.
 *
 * Who writes an answer need not say so: what is never given back is collected like any other buffer.
 */
import { isLarge } from "./unread-answers.ts";

/** Of what is kept for the next answers, all together. */
const MAX_IDLE_BYTES = 32 * 1_048_576;
/** What lay idle for so long is let go. */
const REST_MS = 1_000;

export class AnswerMemory {
  readonly #maxIdleBytes: number;
  /** By their size, a power of two, none without any; the size that was given back last stands last. */
  readonly #idle = new Map<number, ArrayBuffer[]>();
  readonly #lent = new WeakSet<ArrayBufferLike>();
  #idleBytes = 0;
  /** Since the last look. */
  #leastIdleBytes = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(maxIdleBytes = MAX_IDLE_BYTES) {
    this.#maxIdleBytes = maxIdleBytes;
  }

  get idleBytes(): number {
    return this.#idleBytes;
  }

  /** @returns so many bytes, with whatever stands in them */
  take(bytes: number): Buffer {
    if (!isLarge(bytes)) return Buffer.allocUnsafe(bytes);
    const size = sizeFor(bytes);
    const idle = this.#idle.get(size);
    const memory = idle?.pop() ?? new ArrayBuffer(size);
    if (idle !== undefined) {
      this.#idleBytes -= size;
      this.#leastIdleBytes = Math.min(this.#leastIdleBytes, this.#idleBytes);
      if (idle.length === 0) this.#idle.delete(size);
    }
    this.#lent.add(memory);
    return Buffer.from(memory, 0, bytes);
  }

  /**
   * For what was taken and has left whole, or a part of it; anything else stays what it is.
   * Nobody may look at it any more, the kernel and a TLS layer included. Once for each `take`: a second
   * time does nothing only for as long as nobody has taken the same memory again.
   */
  give(answer: Buffer): void {
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
    this.#timer ??= setInterval(() => this.rest(), REST_MS).unref();
  }

  /** Lets go of as much as nobody needed since the last call; it calls itself as long as something is idle. */
  rest(): void {
    const keptBytes = this.#idleBytes - this.#leastIdleBytes;
    while (this.#idleBytes > keptBytes) this.#dropOldest();
    this.#leastIdleBytes = this.#idleBytes;
    if (this.#idleBytes > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
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
  return 2 ** Math.ceil(Math.log2(bytes));
}

/** Of the whole process: lanes give back to it what the operations took. */
export const answerMemory = new AnswerMemory();
