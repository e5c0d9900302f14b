/**
 * An empty LevelDB in a folder, opened only for its lock: the kernel frees it when the process dies, and it can be
 * taken before anything is looked at or put aside.
 */
import { rm } from "node:fs/promises";
import { Level } from "level";

export interface FolderLock {
  close(): Promise<void>;
}

/**
 * @param folder of the lock
 * @param locked makes the error that is thrown when another process has it
 * @throws what LevelDB says where none can be taken
 */
export async function takeLock(folder: string, locked: (cause: unknown) => Error): Promise<FolderLock> {
  try {
    return await openEmpty(folder);
  } catch (error) {
    if ((error as { cause?: { code?: string } }).cause?.code === "LEVEL_LOCKED") throw locked(error);
    // It holds nothing; what a power cut made of it can go.
    await rm(folder, { recursive: true, force: true });
    return openEmpty(folder);
  }
}

async function openEmpty(folder: string): Promise<FolderLock> {
  const database = new Level(folder, { cacheSize: 65_536, writeBufferSize: 65_536, maxOpenFiles: 64 });
  await database.open();
  return database;
}
