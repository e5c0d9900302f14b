/**
 * Lets a test do something to files between two looks that a source takes at them, so that what else is
 * a race has one outcome. A look is a call of `node:fs/promises` at a folder or what is in it, also at a
 * file of it that is open. What the test does meanwhile must be synchronous: it is done before the look
 * is taken, and is no look itself.
 */
import fs from "node:fs";
import type { FileHandle } from "node:fs/promises";
import { syncBuiltinESMExports } from "node:module";
import { sep } from "node:path";
import type { TestContext } from "node:test";

type Call = (...args: unknown[]) => Promise<unknown>;
const AT_PATHS = ["stat", "readdir", "open"] as const;
const AT_OPEN_FILES = ["stat", "read"] as const;

/** Those at one folder. */
export class Looks {
  readonly #acts: { readonly at: number; readonly act: () => void }[] = [];
  #taken = 0;

  /** So far. */
  get count(): number {
    return this.#taken;
  }

  /** @param looks are taken first, counted from now */
  after(looks: number, act: () => void): void {
    this.#acts.push({ at: this.#taken + looks, act });
  }

  take(): void {
    const due = this.#acts.filter(({ at }) => at <= this.#taken);
    for (const one of due) this.#acts.splice(this.#acts.indexOf(one), 1);
    for (const { act } of due) act();
    this.#taken++;
  }
}

/** All that are taken until the test ends. Only one at a time. */
export class Watch {
  readonly #folders = new Map<string, Looks>();

  constructor(t: TestContext) {
    const calls = fs.promises as unknown as Record<string, Call>;
    for (const name of AT_PATHS) {
      const plain = calls[name]!;
      calls[name] = async (path, ...args) => {
        const looks = this.#looksAt(String(path));
        looks?.take();
        const answer = await plain(path, ...args);
        if (looks !== undefined && name === "open") watchFile(answer as FileHandle, looks);
        return answer;
      };
      t.after(() => {
        calls[name] = plain;
        syncBuiltinESMExports();
      });
    }
    syncBuiltinESMExports();
  }

  at(folder: string): Looks {
    const looks = new Looks();
    this.#folders.set(folder, looks);
    return looks;
  }

  #looksAt(path: string): Looks | undefined {
    for (const [folder, looks] of this.#folders)
      if (path === folder || path.startsWith(`${folder}${sep}`)) return looks;
    return undefined;
  }
}

function watchFile(file: FileHandle, looks: Looks): void {
  const calls = file as unknown as Record<string, Call>;
  for (const name of AT_OPEN_FILES) {
    const plain = calls[name]!.bind(file);
    calls[name] = (...args) => {
      looks.take();
      return plain(...args);
    };
  }
}
