/** LevelDB as the buffers use it: string keys, bytes as values, little memory. */
import { Level } from "level";

export type Database = Level<string, Buffer>;
export type Operation = { type: "put"; key: string; value: Buffer } | { type: "del"; key: string };

/** @throws what LevelDB says, also when the folder is held by another process. */
export async function openDatabase(
  folder: string,
  createIfMissing: boolean,
  writeBufferSize = 2 * 1_048_576,
): Promise<Database> {
  const database: Database = new Level(folder, {
    keyEncoding: "utf8",
    valueEncoding: "buffer",
    createIfMissing,
    cacheSize: 512 * 1_024,
    writeBufferSize,
    maxOpenFiles: 64,
  });
  await database.open();
  return database;
}

/** Whether LevelDB says this of an operation, or of an opening. */
export function hasLevelCode(failure: unknown, code: "LEVEL_LOCKED" | "LEVEL_CORRUPTION"): boolean {
  const { code: own, cause } = (failure ?? {}) as { code?: string; cause?: { code?: string } };
  return own === code || cause?.code === code;
}

/** All or nothing, and on disk when it resolves. */
export function writeSynced(database: Database, operations: Operation[]): Promise<void> {
  const [only] = operations;
  // The same bytes in the log, but LevelDB makes its batch of them in its own thread and not in ours.
  if (operations.length === 1 && only?.type === "put") {
    return database.put(only.key, only.value, { sync: true });
  }
  return database.batch(operations, { sync: true });
}

/** Gives the disk space of deleted keys back, which LevelDB by itself does late or never. */
export function compact(database: Database, from: string, to: string): Promise<void> {
  return (database as unknown as { compactRange(from: string, to: string): Promise<void> }).compactRange(
    from,
    to,
  );
}

/** Rebuilds CURRENT and MANIFEST from the tables and logs that can be read. */
export function repairDatabase(folder: string): Promise<void> {
  return (Level as unknown as { repair(folder: string): Promise<void> }).repair(folder);
}
