/**
 * Calls of the kernel on one open file, one at a time, each of them one promise and what node:fs needs for
 * it. A FileHandle's own promises, and the async functions around them, were a fifth of all garbage of a
 * gateway that stores small groups. The FileHandle still opens the file and closes it, but not before `end`
 * has resolved.
 */
import { fdatasync, write } from "node:fs";

/** What becomes of a write. @returns what its promise waits for as well @throws what it is to fail with */
export type WriteOutcome = (
  error: NodeJS.ErrnoException | null,
  writtenBytes: number,
) => Promise<void> | undefined;

type Resolve = (more?: Promise<void>) => void;

export class FileCalls {
  readonly #fd: number;
  /** Of the call that is under way. */
  #resolve: Resolve | undefined;
  #reject: ((error: unknown) => void) | undefined;
  #outcome: WriteOutcome | undefined;
  #ended = false;
  #onIdle: (() => void) | undefined;

  constructor(fd: number) {
    this.#fd = fd;
  }

  /** Whether anything may be called: nothing is under way, nor has it ended. */
  get isFree(): boolean {
    return this.#resolve === undefined && !this.#ended;
  }

  /** @param outcome called once, before this resolves */
  write(bytes: Buffer, length: number, position: number, outcome: WriteOutcome): Promise<void> {
    const promise = new Promise<void>(this.#begin);
    this.#outcome = outcome;
    write(this.#fd, bytes, 0, length, position, this.#written);
    return promise;
  }

  datasync(): Promise<void> {
    const promise = new Promise<void>(this.#begin);
    fdatasync(this.#fd, this.#synced);
    return promise;
  }

  /** Nothing may be called any more. Resolves once nothing is under way. */
  async end(): Promise<void> {
    this.#ended = true;
    if (this.#resolve === undefined) return;
    await new Promise<void>((resolve) => {
      this.#onIdle = resolve;
    });
  }

  readonly #begin = (resolve: Resolve, reject: (error: unknown) => void): void => {
    this.#resolve = resolve;
    this.#reject = reject;
  };

  readonly #written = (error: NodeJS.ErrnoException | null, writtenBytes: number): void => {
    const [resolve, reject, outcome] = [this.#resolve!, this.#reject!, this.#outcome!];
    this.#outcome = undefined;
    this.#idle();
    try {
      resolve(outcome(error, writtenBytes));
    } catch (failure) {
      reject(failure);
    }
  };

  readonly #synced = (error: NodeJS.ErrnoException | null): void => {
    const [resolve, reject] = [this.#resolve!, this.#reject!];
    this.#idle();
    if (error === null) resolve();
    else reject(error);
  };

  #idle(): void {
    this.#resolve = undefined;
    this.#reject = undefined;
    this.#onIdle?.();
  }
}
