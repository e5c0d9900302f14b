/**
 * An empty LevelDB in a buffer's folder, opened only for its lock: the kernel frees it when the process
 * dies, and it can be taken before anything is looked at or put aside.
 */
import { rm } from "node:fs/promises";
import { type Database, hasLevelCode, openDatabase } from "./leveldb.ts";

/**
 * @param folder of the lock
 * @param locked makes the error that is thrown when another process has it
 */
export async function takeLock(folder: string, locked: (cause: unknown) => Error): Promise<Database> {
  try {
    return await openDatabase(folder, true);
  } catch (error) {
    if (hasLevelCode(error, "LEVEL_LOCKED")) throw locked(error);
    // It holds nothing; what a power cut made of it can go.
    await rm(folder, { recursive: true, force: true });
    return openDatabase(folder, true);
  }
}
