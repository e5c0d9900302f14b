/** The folder in which a program keeps what it has, where that is not for this user to read and write. */
import { mkdir, stat } from "node:fs/promises";
import { dirname, relative } from "node:path";
import { HeadwaterError } from "./errors.ts";

/** It belongs to another user, is mounted for reading only, or can be no folder. Nothing of it is damaged. */
export class DataFolderError extends HeadwaterError {
  constructor(cause: NodeJS.ErrnoException) {
    const { code, path = "the data folder" } = cause;
    const isNone = NO_FOLDER.includes(code ?? "");
    super("DATA_FOLDER", {
      message: isNone
        ? `${path} is no folder and cannot be made one: ${code}`
        : `${path} cannot be read and written by this user: ${code}`,
      hint: isNone
        ? "set another dataDir in the config, or move away the file that stands there or above it"
        : code === "EROFS"
          ? "its disk is mounted for reading only: look into the kernel's log, and mount it for writing"
          : "give dataDir with all that is in it to the user that runs this program (chown -R), run it as the user that owns it, or set another dataDir in the config",
      cause,
    });
  }
}

/** A file stands there or above it, or nothing can be made there. */
const NO_FOLDER = ["EEXIST", "ENOTDIR", "ENOENT"];

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

/** Makes it, and the folders above it, where they are missing. @throws DataFolderError where something stands in the way */
export async function makeDataFolder(folder: string): Promise<void> {
  try {
    await makeFolder(folder);
  } catch (error) {
    const { code, path } = error as NodeJS.ErrnoException;
    if (path !== undefined && NO_FOLDER.includes(code ?? ""))
      throw new DataFolderError(error as NodeJS.ErrnoException);
    throw foreignFolder(error) ?? error;
  }
}

/** Node's own recursive mkdir never ends, with a core busy, where a folder is there and takes no others, as /proc. */
async function makeFolder(folder: string): Promise<void> {
  try {
    await mkdir(folder, { mode: 0o700 });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "EEXIST" && (await isFolder(folder))) return;
    if (code !== "ENOENT" || (await isFolder(dirname(folder)))) throw error;
    await makeFolder(dirname(folder));
    await makeFolder(folder);
  }
}

async function isFolder(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined))?.isDirectory() ?? false;
}

/** Neither in the folder nor on the way to it. */
function isApart(path: string, folder: string): boolean {
  const leaves = (way: string): boolean => way === ".." || way.startsWith("../");
  return leaves(relative(folder, path)) && leaves(relative(path, folder));
}
