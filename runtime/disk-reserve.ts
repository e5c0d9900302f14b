/**
 * Room that is kept for a start on a full disk. LevelDB writes before it reads: what its log holds goes into
 * a table first (its doc/impl.md, "Recovery"). So a program that ended on a full disk could not start again, not
 * even to read or to send away what it has. A file holds that room, and gives it back for the start.
 *
 *   lend() → databases are opened → keep() → doors are opened
 */
import { randomFillSync } from "node:crypto";
import { open, stat, statfs, truncate } from "node:fs/promises";
import { join } from "node:path";
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

  /** Gives the room back to the disk, if that has less of its own. */
  async lend(): Promise<void> {
    const { bavail, bsize } = await statfs(this.#folder);
    if (bavail * bsize >= RESERVE_BYTES) return;
    const heldBytes = await this.#heldBytes();
    if (heldBytes > 0) await truncate(this.#path, 0);
    this.#log.warn(
      { freeBytes: bavail * bsize, lentBytes: heldBytes },
      "the disk is full: starting in the reserve",
    );
  }

  /** Takes the room, or as much of it as there is; what was taken before stays. Never fails for want of room. */
  async keep(): Promise<void> {
    let heldBytes = await this.#heldBytes();
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
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code !== "ENOSPC" && code !== "EDQUOT") throw error;
      this.#log.warn({ heldBytes, wantedBytes: RESERVE_BYTES }, "the disk is full: the reserve is smaller");
    } finally {
      await file.close();
    }
  }

  async #heldBytes(): Promise<number> {
    const found = await stat(this.#path).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== "ENOENT") throw error;
    });
    return found?.size ?? 0;
  }
}
