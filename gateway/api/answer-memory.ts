/** Memory for answers and events, which is used again once they have gone. */
import { MemoryPool } from "../../runtime/memory-pool.ts";

/** Of the whole process: lanes and subscriptions give back to it what pages and events took. */
export const answerMemory = new MemoryPool(32 * 1_048_576);
