/** A log with numbered lines and what is done to it, each of it at once, between two looks of its reader. */
import {
  appendFileSync,
  copyFileSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";

export class RotatedLog {
  readonly path: string;
  readonly #folder: string;
  readonly #clock: string;
  #lines = 0;
  #rotations = 0;

  /** @param clock a file elsewhere, written to for its time */
  constructor(folder: string, clock: string) {
    this.#folder = folder;
    this.#clock = clock;
    this.path = join(folder, "app.log");
    // Some systems give a file a time in fine steps only once that was asked for.
    this.#now();
  }

  /** Written so far; they are numbered from 0. */
  get lines(): number {
    return this.#lines;
  }

  write(count: number): void {
    const from = this.#lines;
    this.#lines += count;
    const line = (n: number): string => `${n} ${"y".repeat(60 + (n % 7))}\n`;
    appendFileSync(this.path, Array.from({ length: count }, (_, i) => line(from + i)).join(""));
  }

  writeUnended(): void {
    appendFileSync(this.path, `${this.#lines++} has no end`);
  }

  touch(): void {
    appendFileSync(this.path, "");
  }

  truncate(): void {
    truncateSync(this.path, 0);
    this.#tick();
  }

  copyTo(to: string): void {
    copyFileSync(this.path, to);
    this.#tick();
  }

  copyAndTruncate(copy = this.#dated()): string {
    copyFileSync(this.path, copy);
    this.truncate();
    return copy;
  }

  rename(to = this.#dated()): string {
    renameSync(this.path, to);
    this.#tick();
    return to;
  }

  /** As `gzip` does: the time of the last write stays. */
  compress(path: string): void {
    const { atime, mtime } = statSync(path);
    writeFileSync(`${path}.gz`, gzipSync(readFileSync(path)));
    utimesSync(`${path}.gz`, atime, mtime);
    rmSync(path);
  }

  #dated(): string {
    return join(this.#folder, `app-2026112${1_000 + ++this.#rotations}.log`);
  }

  /** Times of files tell their order, and no rotator rotates twice in one moment: until it is over. */
  #tick(): void {
    const before = this.#now();
    // A compressed file gets its time rounded to a millisecond here.
    while (this.#now() < before + 2);
  }

  /** What files get for their time, in milliseconds. */
  #now(): number {
    writeFileSync(this.#clock, "");
    return statSync(this.#clock).mtimeMs;
  }
}
