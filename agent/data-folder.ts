/** The folder in which an agent keeps what it has, where that is not for this user to write to. */
import { HeadwaterError } from "../runtime/errors.ts";

/** It cannot be made or written to. Nothing was started. */
export class DataFolderError extends HeadwaterError {
  constructor(cause: NodeJS.ErrnoException) {
    super("DATA_FOLDER", {
      message: `${cause.path ?? "the data folder"} cannot be written to: ${cause.code}`,
      hint: "set dataDir in the config to a folder of the user that runs the agent, or run it as the user that owns it",
      cause,
    });
  }
}

/** Not this user's, or of a file system that is mounted for reading. */
const NOT_OURS = ["EACCES", "EPERM", "EROFS"];

/** For what failed on the way to the data. @returns the same error, or one that says what to do */
export function explainedFolder(error: unknown): unknown {
  const { code } = error as NodeJS.ErrnoException;
  return NOT_OURS.includes(code ?? "") ? new DataFolderError(error as NodeJS.ErrnoException) : error;
}
