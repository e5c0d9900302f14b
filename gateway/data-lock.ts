/**
 * One gateway to a data folder, whichever store it has: a second one is refused before it changes anything there,
 * the reserve for a start on a full disk included.
 */
import { join } from "node:path";
import { foreignFolder } from "../runtime/data-folder.ts";
import { HeadwaterError } from "../runtime/errors.ts";
import { type FolderLock, takeLock } from "../runtime/folder-lock.ts";

/** Another process has the data folder open. Nothing was changed. */
export class DataFolderLockedError extends HeadwaterError {
  constructor(folder: string, cause: unknown) {
    super("DATA_FOLDER_LOCKED", {
      message: `${folder} is in use by another process`,
      hint: "stop the other gateway, or give this one a dataDir of its own",
      cause,
    });
  }
}

/**
 * @returns undefined where the disk lets none be taken, as a full one: what is opened next says so in its own words
 * @throws DataFolderLockedError; DataFolderError where it is another user's
 */
export async function lockDataFolder(folder: string): Promise<FolderLock | undefined> {
  try {
    return await takeLock(join(folder, "lock"), (cause) => new DataFolderLockedError(folder, cause));
  } catch (error) {
    if (error instanceof DataFolderLockedError) throw error;
    const foreign = foreignFolder(error);
    if (foreign !== undefined) throw foreign;
    return undefined;
  }
}
