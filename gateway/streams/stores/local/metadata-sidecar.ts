/**
 * `streams.json`, the file beside the metadata that names the streams that must be in it, and says
 * how far the making or deleting of each has come.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { crcOf } from "../../../../runtime/checked-line.ts";
import { writeDurably } from "../../../../runtime/durable.ts";
import { HeadwaterError } from "../../../../runtime/errors.ts";

/** How far making or deleting a stream has come; a start finishes or undoes what a crash left. */
export type StreamPhase = "creating" | "active" | "deleting";

/** The metadata is not what it was. The gateway does not start, as it would have to guess. */
export class MetadataDamagedError extends HeadwaterError {
  constructor(folder: string, detail: string, cause?: unknown) {
    super("STREAM_METADATA_DAMAGED", {
      message: `${folder}: ${detail}`,
      hint: "restore the folder from a backup; the records in logs/ are untouched. Without a backup, move the whole folder away to start with empty streams",
      cause,
    });
  }
}

export type Phases = ReadonlyMap<string, { name: string; phase: StreamPhase }>;

export function writeSidecar(folder: string, phases: Phases): Promise<void> {
  const text = JSON.stringify({ streams: Object.fromEntries(phases) }, undefined, 2);
  return writeDurably(join(folder, "streams.json"), `${checksum("streams.json", text)}\n${text}\n`);
}

export async function readSidecar(
  folder: string,
): Promise<Map<string, { name: string; phase: StreamPhase }> | undefined> {
  let file: string;
  try {
    file = await readFile(join(folder, "streams.json"), "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
  const text = file.slice(9, -1);
  if (file.slice(0, 8) !== checksum("streams.json", text)) {
    throw new MetadataDamagedError(folder, "the checksum of streams.json does not match");
  }
  return new Map(
    Object.entries(
      (JSON.parse(text) as { streams: Record<string, { name: string; phase: StreamPhase }> }).streams,
    ),
  );
}

/** 8 hex digits. */
export function checksum(key: string, text: string): string {
  return crcOf(`${key}\n${text}`);
}
