/**
 * Room that is kept for a start on a full disk. LevelDB writes before it reads: what its log holds goes into
 * a table first (its doc/impl.md, "Recovery"). So a program that ended on a full disk could not start again, not
 * even to read or to send away what it has. A file holds that room, and gives it back for the start.
 *
 *   during(databases are opened) → doors are opened
 */
import { randomFillSync } from "node:crypto";
import { open, stat, statfs, truncate } from "node:fs/promises";
import { join } from "node:path";
import { describeError } from "./errors.ts";
import type { Log } from "./log.ts";

const FILE = "disk-reserve";
/** Twice what a LevelDB's log holds before it becomes a table. */
export const RESERVE_BYTES = 8_388_608;
const STEP_BYTES = 262_144;

export class DiskReserve {
  readonly #folder: string;
  readonly #path: string;
  readonly #log: Log;

  /** @param folder must be there when it is used */
  constructor(folder: string, log: Log) {
    this.#folder = folder;
    this.#path = join(folder, FILE);
    this.#log = log;
  }

  /**
   * Runs what opens databases, with the room given back to the disk if that has less of its own. Afterwards it is taken
   * again, as much of it as there is: before others come in, and for the next try where this one failed.
   */
  async during<T>(opening: () => Promise<T>): Promise<T> {
    await this.#lend();
    try {
      return await opening();
    } finally {
      await this.#keep();
    }
  }

  async #lend(): Promise<void> {
    const { bavail, bsize } = await statfs(this.#folder);
    if (bavail * bsize >= RESERVE_BYTES) return;
    const heldBytes = await this.#heldBytes();
    if (heldBytes > 0) await truncate(this.#path, 0);
    this.#log.warn(
      { freeBytes: bavail * bsize, lentBytes: heldBytes },
      "the disk is full: starting in the reserve",
    );
  }

  /** What was taken before stays. Whatever stands in the way of more is no reason not to start. */
  async #keep(): Promise<void> {
    let heldBytes = 0;
    try {
      heldBytes = await this.#heldBytes();
      if (heldBytes >= RESERVE_BYTES) return;
      const file = await open(this.#path, "a", 0o600);
      try {
        // Not zeros: some file systems store those in no room at all.
        const step = randomFillSync(Buffer.allocUnsafe(STEP_BYTES));
        while (heldBytes < RESERVE_BYTES) {
          const { bytesWritten } = await file.write(step);
          heldBytes += bytesWritten;
        }
        await file.datasync();
      } finally {
        await file.close();
      }
    } catch (error) {
      const fields = { heldBytes, wantedBytes: RESERVE_BYTES, reason: describeError(error) };
      this.#log.warn(fields, "the reserve for a start on a full disk is smaller than it should be");
    }
  }

  async #heldBytes(): Promise<number> {
    const found = await stat(this.#path).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== "ENOENT") throw error;
    });
    return found?.size ?? 0;
  }
}
