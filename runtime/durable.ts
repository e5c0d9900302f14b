/** Files that are wholly there or not there at all, also after a power cut. */
import { type FileHandle, open, rename } from "node:fs/promises";
import { dirname } from "node:path";

/** The disk failed behind the rename, or in it: the file may be the new one, and a power cut may leave the old one still. */
export class UnsettledWriteError extends Error {
  readonly code: string | undefined;

  constructor(cause: unknown) {
    super(cause instanceof Error ? cause.message : String(cause), { cause });
    this.name = "UnsettledWriteError";
    this.code = (cause as NodeJS.ErrnoException).code;
  }
}

/**
 * Replaces `path` with `bytes`: temporary file, fdatasync, rename, fsync of the folder.
 * A crash leaves the old file or the new one, and perhaps `path.tmp`, which the next call overwrites.
 * @param mode permissions of a new file
 * @throws UnsettledWriteError when it may have been replaced; any other error says that the old file stands
 */
export async function writeDurably(path: string, bytes: Uint8Array | string, mode = 0o644): Promise<void> {
  const temporary = `${path}.tmp`;
  // First of all: were no descriptor left for it behind the rename, the new file would be there and be called refused.
  const folder = await open(dirname(path), "r");
  try {
    const file = await open(temporary, "w", mode);
    try {
      await file.writeFile(bytes);
      await file.datasync();
    } finally {
      await file.close();
    }
    try {
      await rename(temporary, path);
      await folder.sync();
    } catch (error) {
      throw new UnsettledWriteError(error);
    }
  } finally {
    await folder.close();
  }
}

/** Makes creations, renames and deletions in `folder` survive a power cut. */
export async function syncFolder(folder: string): Promise<void> {
  let handle: FileHandle | undefined;
  try {
    handle = await open(folder, "r");
    await handle.sync();
  } finally {
    await handle?.close();
  }
}
