/** Which layout a data folder has. Another one is refused, never guessed at. */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { writeDurably } from "../../../runtime/durable.ts";
import { HeadwaterError } from "../../../runtime/errors.ts";

const FORMAT = 1;

/** The folder was written by another version of the program. */
export class StreamFormatError extends HeadwaterError {
  constructor(dir: string, found: string) {
    super("STREAM_FORMAT", {
      message: `${dir} has layout ${found}; this program writes ${FORMAT}`,
      hint: "start the version of Headwater that wrote it, or give this one a dataDir of its own",
    });
  }
}

/** Writes the version into a new folder; in any other it must be ours. @throws StreamFormatError */
export async function checkFormat(dir: string): Promise<void> {
  const path = join(dir, "format.json");
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    const others = (await readdir(dir)).filter((name) => name !== "logs" && name !== "format.json.tmp");
    if (others.length > 0) throw new StreamFormatError(dir, "unknown, as format.json is missing");
    return writeDurably(path, `${JSON.stringify({ format: FORMAT })}\n`);
  }
  let found: unknown;
  try {
    found = (JSON.parse(text) as { format?: unknown }).format;
  } catch {
    found = text.slice(0, 40);
  }
  if (found !== FORMAT) throw new StreamFormatError(dir, JSON.stringify(found) ?? "unknown");
}
