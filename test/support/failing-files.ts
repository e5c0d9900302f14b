/**
 * The real files of a folder, on a disk that refuses some operations of this process: those that open, write, sync,
 * rename, make and remove. LevelDB's own are left out.
 */
import { promises, readlinkSync } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { syncBuiltinESMExports } from "node:module";

export interface Refusal {
  readonly code: "EIO" | "ENOSPC" | "EMFILE";
  /** How many operations go well before; none unless told. */
  readonly after?: number;
  /** How many are refused then; all unless told. */
  readonly count?: number;
  /** What others do counts for nothing. The path begins at the folder, which is "". */
  readonly matching?: (operation: string, path: string) => boolean;
  /** A rename, or the opening of a file, is done and then called refused. */
  readonly late?: boolean;
}

type Calls = Record<string, (...args: never[]) => Promise<unknown>>;

export class FailingFiles {
  readonly #folder: string;
  readonly #synced: (folder: string) => void;
  readonly #undo: Array<() => void> = [];
  #refusals: Array<Refusal & { seen: number }> = [];
  /** What was refused since `refuse`, in order. */
  readonly refused: string[] = [];

  private constructor(folder: string, synced: (folder: string) => void) {
    this.#folder = folder;
    this.#synced = synced;
  }

  /** @param synced told of each folder whose sync succeeded */
  static async in(folder: string, synced: (folder: string) => void = () => {}): Promise<FailingFiles> {
    const files = new FailingFiles(folder, synced);
    for (const name of ["open", "rename", "mkdir", "rm", "unlink"]) files.#replace(promises, name);
    const any = await open("/dev/null");
    const handles = Object.getPrototypeOf(any) as FileHandle;
    await any.close();
    for (const name of ["writeFile", "datasync", "sync"]) files.#replace(handles, name);
    syncBuiltinESMExports();
    return files;
  }

  /** The first of them that matches an operation decides. */
  refuse(...refusals: readonly Refusal[]): void {
    this.#refusals = refusals.map((refusal) => ({ ...refusal, seen: 0 }));
    this.refused.length = 0;
  }

  heal(): void {
    this.#refusals = [];
  }

  /** Files are as they were. */
  restore(): void {
    for (const undo of this.#undo) undo();
    syncBuiltinESMExports();
  }

  #replace(holder: object, name: string): void {
    const calls = holder as Calls;
    const plain = calls[name]!;
    const pathOf = this.#pathOf.bind(this);
    const judge = this.#judge.bind(this);
    const synced = this.#synced;
    calls[name] = async function (this: unknown, ...args: never[]): Promise<unknown> {
      const path = pathOf(this, args);
      const refused = path === undefined ? undefined : judge(name, path);
      if (refused?.late === false) throw refused.error;
      const done = await plain.apply(this, args);
      if (refused !== undefined) {
        if (name === "open") await (done as FileHandle).close();
        throw refused.error;
      }
      if (name === "sync" && path !== undefined) synced(path);
      return done;
    };
    this.#undo.push(() => {
      calls[name] = plain;
    });
  }

  /** Where the folder is concerned, from there on. */
  #pathOf(self: unknown, args: readonly unknown[]): string | undefined {
    const { fd } = (self ?? {}) as { fd?: number };
    const path = fd === undefined ? String(args[0]) : readlinkSync(`/proc/self/fd/${fd}`);
    if (path !== this.#folder && !path.startsWith(`${this.#folder}/`)) return undefined;
    const inside = path.slice(this.#folder.length);
    return inside.startsWith("/meta") ? undefined : inside;
  }

  #judge(name: string, path: string): { error: Error; late: boolean } | undefined {
    for (const refusal of this.#refusals) {
      const { after = 0, count = Number.POSITIVE_INFINITY, code, late = false, matching } = refusal;
      if (matching?.(name, path) === false) continue;
      const at = refusal.seen++ - after;
      if (at < 0 || at >= count) return undefined;
      this.refused.push(`${code} ${name} ${path}`);
      const error = Object.assign(new Error(`${code}: the disk refuses ${name}`), {
        code,
        syscall: name,
        path,
      });
      return { error, late: late && (name === "rename" || name === "open") };
    }
    return undefined;
  }
}
