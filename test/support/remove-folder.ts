import { rm } from "node:fs/promises";

/**
 * Also one to which something that is just ending still writes: a test's hooks run in the order in which they were
 * registered, so a folder that was made first is removed first.
 */
export async function removeFolder(folder: string): Promise<void> {
  await rm(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 20 });
}
