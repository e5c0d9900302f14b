/**
 * Objects as files below one folder. A name with slashes makes folders. What `put` resolved is on
 * disk; a file that is seen under its name is whole.
 */
import { mkdir, open, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join, resolve, sep } from "node:path";
import { syncFolder } from "../../../runtime/durable.ts";
import { invariant } from "../../../runtime/errors.ts";
import { type Attempt, type Destination, DestinationError } from "./destination.ts";

/** Hourly folders: more than a week of them is remembered before the memory starts afresh. */
const MAX_SYNCED_FOLDERS = 256;

export class FilesDestination implements Destination {
  readonly description: string;
  readonly #root: string;
  /** Folders whose own names are known to be on disk. */
  readonly #synced = new Set<string>();

  /** @param root absolute; made when it is missing */
  constructor(root: string) {
    this.#root = resolve(root);
    this.description = `files in ${this.#root}`;
  }

  /**
   * A crash before the rename leaves a hidden `.….tmp` file, which goes when the attempt is revoked; a crash
   * after it leaves the whole object, as its bytes were synced before.
   */
  async put(name: string, bytes: Uint8Array, attempt: Attempt): Promise<void> {
    const path = this.#pathOf(name);
    const temporary = temporaryOf(path, attempt.id);
    const isThere = await tried(path, async () => {
      await this.#makeFolder(dirname(path));
      if (await exists(path)) return true;
      await writeSynced(temporary, bytes);
      return false;
    });
    if (!isThere) await confirmed(attempt, temporary);
    await tried(path, async () => {
      // Where it was revoked behind its confirmation, the file is gone.
      if (!isThere) await rename(temporary, path);
      // Also when it was there: the crash may have come between the rename and this sync.
      await syncFolder(dirname(path));
    });
  }

  async has(name: string): Promise<boolean> {
    const path = this.#pathOf(name);
    return tried(path, async () => {
      if (!(await exists(path))) return false;
      // The crash may have come between the rename and the sync, or between the folder's making and its own.
      await this.#makeFolder(dirname(path));
      await syncFolder(dirname(path));
      return true;
    });
  }

  /** By its exact name, as a list of a folder on another machine may be an old one. */
  async revoke(name: string, attempt: string | undefined): Promise<void> {
    const path = this.#pathOf(name);
    await tried(path, async () => {
      await this.#makeFolder(dirname(path));
      await rm(temporaryOf(path, attempt), { force: true });
    });
  }

  #pathOf(name: string): string {
    const path = join(this.#root, name);
    invariant(path.startsWith(this.#root + sep), `object name ${name} leaves the destination`);
    return path;
  }

  /**
   * Also syncs each folder above, up to the one that holds the root: an entry of a new folder is lost otherwise. One above the
   * root may be closed to us but for the way through: then whoever made the root there saw to that.
   */
  async #makeFolder(folder: string): Promise<void> {
    if (this.#synced.has(folder) && (await exists(folder))) return;
    const made = await mkdir(folder, { recursive: true });
    const isRootOurs = made !== undefined && made.length <= this.#root.length;
    for (let at = folder; at.length >= this.#root.length; at = dirname(at)) {
      await syncFolder(dirname(at)).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== "EACCES" || at !== this.#root || isRootOurs) throw error;
      });
      if (at === dirname(at)) break;
    }
    if (this.#synced.size >= MAX_SYNCED_FOLDERS) this.#synced.clear();
    this.#synced.add(folder);
  }
}

function temporaryOf(path: string, attempt: string | undefined): string {
  return join(dirname(path), `.${basename(path)}${attempt === undefined ? "" : `.${attempt}`}.tmp`);
}

async function writeSynced(path: string, bytes: Uint8Array): Promise<void> {
  const file = await open(path, "w");
  try {
    await file.writeFile(bytes);
    await file.datasync();
  } finally {
    await file.close();
  }
}

async function confirmed(attempt: Attempt, temporary: string): Promise<void> {
  try {
    await attempt.confirm();
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

async function tried<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw new DestinationError(path, error);
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return false;
    throw error;
  }
}
