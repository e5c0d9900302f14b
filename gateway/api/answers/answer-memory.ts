/** Memory for answers and events, which is used again once they have gone. */
import { MemoryPool } from "../../../runtime/memory-pool.ts";

/** Of the whole process: lanes and subscriptions give back to it what pages and events took. */
export const answerMemory = new MemoryPool(32 * 1_048_576);

/** Up to so many bytes an answer is put into one piece with its head, and its memory is V8's. */
export const ONE_PIECE_BYTES = 16_384;

/** For an answer of so many bytes, which whoever sends it gives back. */
export function memoryForAnswer(bytes: number): Buffer {
  return bytes > ONE_PIECE_BYTES ? answerMemory.take(bytes) : Buffer.allocUnsafe(bytes);
}

/** Whether its memory is to be given back. */
export function isLent(answer: Buffer | string): answer is Buffer {
  return typeof answer !== "string" && answer.length > ONE_PIECE_BYTES;
}

/** Memory that a thread writes an answer into; it goes back to whoever keeps it. */
export interface SharedMemory extends SharedArrayBuffer {
  /** There while it is lent. */
  giveBack?: (() => void) | undefined;
}

/** For an answer of whatever memory, as `MemoryPool.give`. */
export function giveAnswer(answer: Buffer | string): void {
  if (typeof answer === "string") return;
  const memory: ArrayBufferLike | SharedMemory = answer.buffer;
  if ("giveBack" in memory) memory.giveBack?.();
  else answerMemory.give(answer);
}
