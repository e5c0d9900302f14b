/**
 * What says that a stream is to be erased, and that it is not.
 *
 *   condemn → "deleting" in streams.json → the stream is gone
 *               └ the disk is full, or nobody knows what stands there: an empty file beside its folder, the mark
 *                    └ refused: the mark is taken back, and that synced → the stream is as it was
 *                                  └ refused as well: in doubt, until the disk takes either
 *
 * A stream in doubt can be read, but takes no records: the next start may find it condemned, and would erase with it
 * what had been acknowledged since the deletion was refused. Each record that it refuses, and whoever asks for its health,
 * has the doubt settled: behind a load balancer that goes by the health no record would come.
 */
import { type FileHandle, open, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "../../../../runtime/clock.ts";
import { syncFolder } from "../../../../runtime/durable.ts";
import { describeError } from "../../../../runtime/errors.ts";
import type { Log } from "../../../../runtime/log.ts";
import type { DatabaseWriteError } from "../../../../runtime/synced-level.ts";
import { Turnstile } from "../../../../runtime/turnstile.ts";
import type { Metadata } from "./metadata.ts";

/** An empty file with a stream's id and this for a name says that the stream is to be erased. */
const MARK = ".deleted";

/** A disk that could not settle a doubt is asked again after so long. */
const SETTLE_PAUSE_MS = 500;

/** Ids of streams that were deleted while `streams.json` could not be written. */
export async function condemnedStreams(dir: string): Promise<string[]> {
  const names = await readdir(join(dir, "logs"));
  return names.filter((name) => name.endsWith(MARK)).map((name) => name.slice(0, -MARK.length));
}

export class CondemnedStreams {
  readonly #options: { readonly dir: string; readonly clock: Clock; readonly log: Log };
  readonly #metadata: Metadata;
  readonly #logs: string;
  /** Streams whose mark is on disk. */
  readonly #marked = new Set<string>();
  /** Streams that are not to go, whose mark may be on disk all the same. */
  readonly #strayMarks = new Set<string>();
  /** Why it is not known whether they are condemned. */
  readonly #doubts = new Map<string, DatabaseWriteError>();
  /** A doubt is not settled while the same stream is condemned again. */
  readonly #turns = new Turnstile(1);
  #settling: Promise<void> | undefined;
  #settleAfterMs = 0;

  constructor(options: { dir: string; clock: Clock; log: Log }, metadata: Metadata) {
    this.#options = options;
    this.#metadata = metadata;
    this.#logs = join(options.dir, "logs");
  }

  /** Finds the marks. @returns the streams that are to be erased, those in the making among them */
  async start(): Promise<string[]> {
    for (const streamId of await condemnedStreams(this.#options.dir)) this.#marked.add(streamId);
    // A crash may have come before its sync: without that a power cut would leave the stream, and no folder.
    if (this.#marked.size > 0) await syncFolder(this.#logs);
    return [...new Set([...this.#metadata.unfinished(), ...this.#marked])];
  }

  /** Whether the next start erases it for certain, whatever streams.json says. */
  isMarked(streamId: string): boolean {
    return this.#marked.has(streamId);
  }

  /** Once this is on disk the stream is gone. @throws DatabaseWriteError; then it is as it was, or in doubt */
  condemn(streamId: string): Promise<void> {
    return this.#turns.run(1, async () => {
      try {
        await this.#condemn(streamId);
      } catch (error) {
        if (!this.#isCertain(streamId)) this.#doubt(streamId, error as DatabaseWriteError);
        throw error;
      }
      this.#strayMarks.delete(streamId);
      this.#doubts.delete(streamId);
    });
  }

  async #condemn(streamId: string): Promise<void> {
    try {
      await this.#metadata.condemnStream(streamId);
    } catch (error) {
      const { code } = ((error as Error).cause ?? {}) as NodeJS.ErrnoException;
      const isFull = code === "ENOSPC" || code === "EDQUOT";
      if (!isFull && this.#metadata.isSettled(streamId)) throw error;
      // To delete is what makes room. Where streams.json has none, the name of an empty file says the same.
      await this.#mark(streamId).catch(() => {
        throw error;
      });
    }
  }

  /** Leaves no mark when it fails, unless to take it back is refused too. */
  async #mark(streamId: string): Promise<void> {
    // First of all: a mark that no descriptor is left to sync, or to take back, must not be made.
    const logs = await open(this.#logs, "r");
    try {
      this.#strayMarks.add(streamId);
      await (await open(this.#markOf(streamId), "w")).close();
      await logs.sync();
    } catch (error) {
      await this.#takeBack(streamId, logs).catch(() => undefined);
      throw error;
    } finally {
      await logs.close();
    }
    this.#marked.add(streamId);
  }

  /** A crash before the sync may leave it, and the stream is erased. */
  async #takeBack(streamId: string, logs: FileHandle): Promise<void> {
    await rm(this.#markOf(streamId), { force: true });
    await logs.sync();
    this.#strayMarks.delete(streamId);
  }

  /** Once nothing is left of the stream. */
  async forget(streamId: string): Promise<void> {
    await rm(this.#markOf(streamId), { force: true });
    this.#marked.delete(streamId);
  }

  /** Why the stream takes no records and no changes, when it is in doubt. Whoever asks has that settled. */
  doubtOf(streamId: string): DatabaseWriteError | undefined {
    if (this.#doubts.size === 0) return undefined;
    const doubt = this.#doubts.get(streamId);
    if (doubt !== undefined) this.#settleSoon();
    return doubt;
  }

  #settleSoon(): void {
    const nowMs = this.#options.clock.monotonicMs();
    if (this.#settling !== undefined || nowMs < this.#settleAfterMs) return;
    this.#settleAfterMs = nowMs + SETTLE_PAUSE_MS;
    this.#settling = this.#settle()
      // Whoever asks next has it tried again.
      .catch(() => undefined)
      .finally(() => {
        this.#settling = undefined;
      });
  }

  #settle(): Promise<void> {
    return this.#turns.run(1, async () => {
      await this.#metadata.settle();
      if (this.#strayMarks.size > 0) {
        const logs = await open(this.#logs, "r");
        try {
          for (const streamId of this.#strayMarks) await this.#takeBack(streamId, logs);
        } finally {
          await logs.close();
        }
      }
      for (const streamId of this.#doubts.keys()) {
        if (!this.#isCertain(streamId)) continue;
        this.#doubts.delete(streamId);
        const fields = { stream: this.#metadata.nameOf(streamId), streamId };
        this.#options.log.warn(
          fields,
          "the disk takes writes again: the stream was not deleted, and takes records",
        );
      }
    });
  }

  #isCertain(streamId: string): boolean {
    return this.#metadata.isSettled(streamId) && !this.#strayMarks.has(streamId);
  }

  #doubt(streamId: string, error: DatabaseWriteError): void {
    this.#doubts.set(streamId, error);
    const fields = { stream: this.#metadata.nameOf(streamId), streamId, error: describeError(error) };
    this.#options.log.error(
      fields,
      "a stream may be deleted at the next start or not, as the disk refused both; it takes no records until that is settled",
    );
  }

  /** Settles what the disk lets it. Safe to call twice. */
  async close(): Promise<void> {
    await this.#settling;
    if (this.#doubts.size > 0) await this.#settle().catch(() => undefined);
  }

  #markOf(streamId: string): string {
    return join(this.#logs, `${streamId}${MARK}`);
  }
}
