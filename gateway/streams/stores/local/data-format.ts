/** Which layout a data folder has. Another one is refused, never guessed at. */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { writeDurably } from "../../../../runtime/durable.ts";
import { HeadwaterError } from "../../../../runtime/errors.ts";

/** 2 keeps each shard under a key of its own; a folder of format 1 is taken over when its metadata is opened. */
const FORMAT = 2;
const OLDER_FORMATS: readonly unknown[] = [1];

/** The folder was written by another version of the program. */
export class StreamFormatError extends HeadwaterError {
  constructor(dir: string, found: string) {
    super("STREAM_FORMAT", {
      message: `${dir} has layout ${found}; this program writes ${FORMAT}`,
      hint: "start the version of Headwater that wrote it, or give this one a dataDir of its own",
    });
  }
}

/** The folder is not whole: a copy that was broken off, most likely. */
export class StreamFormatMissingError extends HeadwaterError {
  constructor(dir: string) {
    super("STREAM_FORMAT", {
      message: `${dir} holds streams, and its format.json is missing`,
      hint: "copy the folder once more, or restore it from a backup; nothing in it was touched",
    });
  }
}

/** Writes the version into a new folder; in any other it must be ours, or an older one that we read. @throws StreamFormatError */
export async function checkFormat(dir: string): Promise<void> {
  const path = join(dir, "format.json");
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    // A first start that was cut off leaves no more than an empty `logs`.
    const others = (await readdir(dir)).filter((name) => name !== "logs" && name !== "format.json.tmp");
    if (others.length > 0 || (await holdsLogs(dir))) throw new StreamFormatMissingError(dir);
    return writeFormat(path);
  }
  let found: unknown;
  try {
    found = (JSON.parse(text) as { format?: unknown }).format;
  } catch {
    found = text.slice(0, 40);
  }
  if (found !== FORMAT && !OLDER_FORMATS.includes(found))
    throw new StreamFormatError(dir, JSON.stringify(found) ?? "unknown");
}

async function holdsLogs(dir: string): Promise<boolean> {
  try {
    return (await readdir(join(dir, "logs"))).length > 0;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return false;
    throw error;
  }
}

/**
 * From here on an older program refuses the folder. To be called by whoever holds the lock, before
 * anything is written that an older program would not understand.
 */
export async function raiseFormat(dir: string): Promise<void> {
  const path = join(dir, "format.json");
  const { format } = JSON.parse(await readFile(path, "utf8")) as { format?: unknown };
  if (format !== FORMAT) await writeFormat(path);
}

function writeFormat(path: string): Promise<void> {
  return writeDurably(path, `${JSON.stringify({ format: FORMAT })}\n`);
}
