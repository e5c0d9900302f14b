/** Memory for answers and events, which is used again once they have gone. */
import { MemoryPool } from "../../../runtime/memory-pool.ts";

/** Of the whole process: lanes and subscriptions give back to it what pages and events took. */
export const answerMemory = new MemoryPool(32 * 1_048_576);

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
