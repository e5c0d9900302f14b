/**
 * The files of one camera: `<hour>/<id>.mp4`, `.part.mp4` for a truncated unit, `.unit` for a raw one and
 * `.damaged` for what was one of them.
 * The name says all that is needed to find and to order them.
 */
import { mkdir, readdir, readFile, rename, rm, rmdir, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { syncFolder, writeDurably } from "../../../runtime/durable.ts";
import { FRAGMENT_ID, type FragmentId, type FragmentState } from "./fragment-index.ts";

const ENDINGS: Readonly<Record<FragmentState, string>> = {
  truncated: ".part.mp4",
  whole: ".mp4",
  quarantined: ".unit",
  damaged: ".damaged",
};
/** Earlier versions kept the other ending before it. */
const FORMER_DAMAGED = /\.(?:mp4|part\.mp4|unit)\.damaged$/;

const DEVICE_FILE = "device";

export interface FragmentFile {
  readonly id: FragmentId;
  readonly state: FragmentState;
}

export class FragmentFiles {
  readonly #folder: string;
  readonly #knownHours = new Set<string>();

  constructor(folder: string) {
    this.#folder = folder;
  }

  /** Makes the folder, also as far as a power cut is concerned. */
  async create(): Promise<void> {
    await mkdir(this.#folder, { recursive: true });
    await syncFolder(dirname(this.#folder));
  }

  /** Whose camera it is; undefined when no device was named yet. */
  async device(): Promise<string | undefined> {
    const text = await readFile(join(this.#folder, DEVICE_FILE), "utf8").catch((error) => {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return "";
      throw error;
    });
    return text.trim() === "" ? undefined : text.trim();
  }

  /** Resolves when that is on disk. */
  async writeDevice(device: string): Promise<void> {
    await writeDurably(join(this.#folder, DEVICE_FILE), `${device}\n`);
  }

  /** Resolves when the file is on disk under its name; a crash leaves it whole or not at all. */
  async write(file: FragmentFile, bytes: Buffer): Promise<void> {
    const hour = hourOf(file.id);
    if (!this.#knownHours.has(hour)) {
      await mkdir(join(this.#folder, hour), { recursive: true });
      await syncFolder(this.#folder);
      this.#knownHours.add(hour);
    }
    try {
      await writeDurably(this.#pathOf(file), bytes);
    } catch (error) {
      // A full disk must not stay full of halves that nobody counts.
      await rm(`${this.#pathOf(file)}.tmp`, { force: true }).catch(() => undefined);
      throw error;
    }
  }

  /** Undefined when there is no such file. */
  async read(file: FragmentFile): Promise<Buffer | undefined> {
    try {
      return await readFile(this.#pathOf(file));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
      throw error;
    }
  }

  async remove(file: FragmentFile): Promise<void> {
    await rm(this.#pathOf(file), { force: true });
  }

  /** Takes a damaged file out of the way, for whoever wants to look at it. @returns where it is then, and how large */
  async setAside({ id, state }: FragmentFile): Promise<FragmentFile & { readonly bytes: number }> {
    const aside = { id, state: "damaged" } as const;
    await rename(this.#pathOf({ id, state }), this.#pathOf(aside));
    return { ...aside, bytes: await this.sizeOf(aside) };
  }

  async sizeOf(file: FragmentFile): Promise<number> {
    return (await stat(this.#pathOf(file))).size;
  }

  /** Removes the folder of an hour when nothing is left in it. */
  async removeHour(hour: string): Promise<void> {
    // Forgotten first: a write that comes now makes the folder again.
    this.#knownHours.delete(hour);
    await rmdir(join(this.#folder, hour)).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== "ENOTEMPTY" && error.code !== "ENOENT") throw error;
    });
  }

  /** Oldest first. */
  async hours(): Promise<string[]> {
    const entries = await readdir(this.#folder, { withFileTypes: true });
    return entries
      .filter((entry) => entry.isDirectory())
      .map((entry) => entry.name)
      .sort();
  }

  /** The files of an hour. What a crash left half-written is removed. */
  async filesOf(hour: string): Promise<FragmentFile[]> {
    const files = new Map<string, FragmentFile>();
    for (const found of await readdir(join(this.#folder, hour))) {
      if (found.endsWith(".tmp")) await rm(join(this.#folder, hour, found), { force: true });
      const name = found.replace(FORMER_DAMAGED, ENDINGS.damaged);
      const file = fileOf(name);
      if (file !== undefined && name !== found) {
        await rename(join(this.#folder, hour, found), join(this.#folder, hour, name));
      }
      // What somebody copied into another folder is found at its own place only.
      if (file !== undefined && hourOf(file.id) === hour) files.set(name, file);
    }
    return [...files.values()];
  }

  #pathOf(file: FragmentFile): string {
    return join(this.#folder, hourOf(file.id), `${file.id}${ENDINGS[file.state]}`);
  }
}

/** `2026-11-21T09`, by the producer's time. */
export function hourOf(id: FragmentId): string {
  return new Date(Number(id.slice(0, 16)) / 1000).toISOString().slice(0, 13);
}

function fileOf(name: string): FragmentFile | undefined {
  // In this order, as `.part.mp4` ends in `.mp4` too.
  for (const state of Object.keys(ENDINGS) as FragmentState[]) {
    if (!name.endsWith(ENDINGS[state])) continue;
    const id = name.slice(0, -ENDINGS[state].length);
    return FRAGMENT_ID.test(id) ? { id, state } : undefined;
  }
  return undefined;
}
