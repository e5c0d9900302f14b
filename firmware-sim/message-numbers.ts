/**
 * Message numbers that are never used twice, also not by the next run in the same folder: they are
 * reserved on disk in blocks before use. A kill skips the rest of a block, a clean close skips none.
 */
import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { HeadwaterError } from "../runtime/errors.ts";

const BLOCK_MESSAGES = 1_000;

/** The file that keeps the next message numbers was changed by another hand. */
export class MessageNumbersError extends HeadwaterError {
  constructor(path: string, cause: unknown) {
    super("SIM_NUMBERS_UNREADABLE", {
      message: `${path} does not hold message numbers`,
      hint: "remove the simulator's data folder together with the agent's and the gateway's",
      cause,
    });
  }
}

export class MessageNumbers {
  readonly #path: string;
  readonly #reserved = new Map<string, number>();

  constructor(path: string) {
    this.#path = path;
  }

  /** @throws MessageNumbersError */
  open(): void {
    mkdirSync(dirname(this.#path), { recursive: true });
    let text: string;
    try {
      text = readFileSync(this.#path, "utf8");
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return;
      throw error;
    }
    try {
      for (const [group, next] of Object.entries(JSON.parse(text) as object)) {
        if (!Number.isSafeInteger(next) || next < 0) throw new RangeError(`${group}: ${next}`);
        this.#reserved.set(group, next);
      }
    } catch (error) {
      throw new MessageNumbersError(this.#path, error);
    }
  }

  /** The number that the group's next message gets. */
  first(group: string): number {
    return this.#reserved.get(group) ?? 0;
  }

  /** Call before message n is made. */
  use(group: string, n: number): void {
    if (n < this.first(group)) return;
    this.#reserved.set(group, n + BLOCK_MESSAGES);
    this.#save();
  }

  /** Nothing from `next` on was used: the rest of the block is given back. */
  release(group: string, next: number): void {
    this.#reserved.set(group, next);
    this.#save();
  }

  // Renamed into place, so that a crash leaves the old numbers or the new ones, and both are unused.
  #save(): void {
    writeFileSync(`${this.#path}.tmp`, JSON.stringify(Object.fromEntries(this.#reserved)));
    renameSync(`${this.#path}.tmp`, this.#path);
  }
}
