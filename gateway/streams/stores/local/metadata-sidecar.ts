/**
 * `streams.json`, the file beside the metadata that names the streams that must be in it, and says
 * how far the making or deleting of each has come.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { crcOf } from "../../../../runtime/checked-line.ts";
import { UnsettledWriteError, writeDurably } from "../../../../runtime/durable.ts";
import { HeadwaterError } from "../../../../runtime/errors.ts";
import { DatabaseWriteError } from "../../../../runtime/synced-level.ts";

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

export interface Phase {
  readonly name: string;
  readonly phase: StreamPhase;
}

export type Phases = ReadonlyMap<string, Phase>;

/**
 * What the file says, as far as that holds: a change that was refused must not come with the next.
 *
 *   set → temporary file → rename → fsync of the folder → holds
 *           └ refused: the old file stands
 *                            └ refused: the old one is written again → the old file stands
 *                                         └ refused: unsettled, until any write succeeds
 *
 * A crash while a stream is unsettled leaves its phase from before or the one that was refused.
 */
export class Sidecar {
  readonly #folder: string;
  #phases: Phases;
  readonly #unsettled = new Set<string>();
  /** One write at a time; they would share the temporary file. */
  #last: Promise<void> = Promise.resolve();

  constructor(folder: string, phases: Phases) {
    this.#folder = folder;
    this.#phases = phases;
  }

  get phases(): Phases {
    return this.#phases;
  }

  /** Whether a start finds the phase that `phases` tells. */
  isSettled(streamId: string): boolean {
    return !this.#unsettled.has(streamId);
  }

  /** Holds once it is on disk. @throws DatabaseWriteError when it does not hold, or is unsettled */
  set(streamId: string, phase: Phase | undefined): Promise<void> {
    return this.#inTurn(async () => {
      const phases = new Map(this.#phases);
      if (phase === undefined) phases.delete(streamId);
      else phases.set(streamId, phase);
      try {
        await this.#write(phases);
      } catch (error) {
        if (error instanceof UnsettledWriteError) {
          this.#unsettled.add(streamId);
          // Written, not just synced again: the kernel may have dropped what the disk refused, and call that a success.
          await this.#write(this.#phases).catch(() => undefined);
        }
        throw new DatabaseWriteError(this.#folder, error);
      }
      this.#phases = phases;
    });
  }

  /** Writes what holds. @throws DatabaseWriteError */
  settle(): Promise<void> {
    return this.#inTurn(async () => {
      if (this.#unsettled.size === 0) return;
      await this.#write(this.#phases).catch((error: unknown) => {
        throw new DatabaseWriteError(this.#folder, error);
      });
    });
  }

  /** Waits for a write on its way. */
  async close(): Promise<void> {
    await this.#last.catch(() => undefined);
  }

  /** The whole file, so whatever was in doubt is told by it too. */
  async #write(phases: Phases): Promise<void> {
    await writeSidecar(this.#folder, phases);
    this.#unsettled.clear();
  }

  #inTurn(work: () => Promise<void>): Promise<void> {
    this.#last = this.#last.catch(() => undefined).then(work);
    return this.#last;
  }
}

export function writeSidecar(folder: string, phases: Phases): Promise<void> {
  const text = JSON.stringify({ streams: Object.fromEntries(phases) }, undefined, 2);
  return writeDurably(join(folder, "streams.json"), `${checksum("streams.json", text)}\n${text}\n`);
}

export async function readSidecar(folder: string): Promise<Phases | undefined> {
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
  return new Map(Object.entries((JSON.parse(text) as { streams: Record<string, Phase> }).streams));
}

/** 8 hex digits. */
export function checksum(key: string, text: string): string {
  return crcOf(`${key}\n${text}`);
}
