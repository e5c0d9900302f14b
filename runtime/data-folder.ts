/** The folder in which a program keeps what it has, where that is not for this user to read and write. */
import { relative } from "node:path";
import { HeadwaterError } from "./errors.ts";

/** It belongs to another user, or is mounted for reading only. Nothing of it is damaged. */
export class DataFolderError extends HeadwaterError {
  constructor(cause: NodeJS.ErrnoException) {
    const { code, path = "the data folder" } = cause;
    super("DATA_FOLDER", {
      message: `${path} cannot be read and written by this user: ${code}`,
      hint:
        code === "EROFS"
          ? "its disk is mounted for reading only: look into the kernel's log, and mount it for writing"
          : "give dataDir with all that is in it to the user that runs this program (chown -R), run it as the user that owns it, or set another dataDir in the config",
      cause,
    });
  }
}

/** Not this user's, or of a file system that is mounted for reading. */
const NOT_OURS = ["EACCES", "EPERM", "EROFS"];

/**
 * For what failed on the way to the data. @returns what says what to do, where that is the reason
 * @param folder where much else is opened, too: a certificate or a serial line that may not be read lies elsewhere
 */
export function foreignFolder(error: unknown, folder?: string): DataFolderError | undefined {
  const { code, path } = error as NodeJS.ErrnoException;
  // Ports are refused with the same code, and have no path.
  if (!NOT_OURS.includes(code ?? "") || path === undefined) return undefined;
  if (folder !== undefined && isApart(path, folder)) return undefined;
  return new DataFolderError(error as NodeJS.ErrnoException);
}

/** Neither in the folder nor on the way to it. */
function isApart(path: string, folder: string): boolean {
  const leaves = (way: string): boolean => way === ".." || way.startsWith("../");
  return leaves(relative(folder, path)) && leaves(relative(path, folder));
}
