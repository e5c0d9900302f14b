/**
 * What lies beside many paths, by its names alone: each folder is listed once for all of them, until two lists
 * in a row agree, as in rotated-files.ts. To list it for each path anew takes seconds where hundreds of logs are gone.
 */
import { readdir } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { FileMoved, steadily } from "./file-place.ts";
import { isRotationOf } from "./rotated-files.ts";

export class FolderNames {
  readonly #isOther: (path: string) => boolean;
  readonly #folders = new Map<string, Promise<readonly string[]>>();

  /** @param isOther followed by itself, whatever its name looks like */
  constructor(isOther: (path: string) => boolean) {
    this.#isOther = isOther;
  }

  /** Whether there is such a file, or one that it may have been rotated to. @throws FileMoved, for the whole folder */
  async mayHold(path: string): Promise<boolean> {
    const folder = dirname(path);
    const name = basename(path);
    let names = this.#folders.get(folder);
    if (names === undefined) {
      names = steadyNames(folder);
      this.#folders.set(folder, names);
    }
    const isOfIt = (other: string): boolean =>
      other === name || (isRotationOf(name, other) && !this.#isOther(join(folder, other)));
    return (await names).some(isOfIt);
  }
}

async function steadyNames(folder: string): Promise<readonly string[]> {
  let before: string | undefined;
  return steadily(async () => {
    const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
    const names = entries.filter((entry) => !entry.isDirectory()).map((entry) => entry.name);
    const list = names.sort().join("\0");
    const steady = list === before;
    before = list;
    if (!steady) throw new FileMoved(folder);
    return names;
  });
}
