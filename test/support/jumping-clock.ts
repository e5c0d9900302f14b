/**
 * A system's clock that a test sets, for real programs: they live at another time of day until it
 * jumps, while their monotonic clock runs on, as on a device without a battery. By libfaketime
 * (Debian: faketime), which reads how far off it is from a file at every look at the clock.
 */
import { existsSync, readdirSync } from "node:fs";
import { mkdir, readdir, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";

const LIBRARY = "libfaketimeMT.so.1";
/** Where it keeps two small files for each process, which stay behind when that is killed. */
const SHARED_MEMORY = "/dev/shm";

export class JumpingClock {
  /** For `Program`: what lives by this clock, with all its children. */
  readonly environment: Readonly<Record<string, string>>;
  readonly #file: string;
  #offsetMs = 0;

  /** @param folder a file is made there by the first jump; nothing may be started before */
  constructor(folder: string) {
    this.#file = join(folder, "clock-offset");
    this.environment = {
      LD_PRELOAD: libraryPath() ?? "",
      FAKETIME_TIMESTAMP_FILE: this.#file,
      FAKETIME_NO_CACHE: "1",
      // Both names, of older and of newer versions.
      DONT_FAKE_MONOTONIC: "1",
      FAKETIME_DONT_FAKE_MONOTONIC: "1",
      // Times of files stay true: nothing of ours reads them as the time of day.
      NO_FAKE_STAT: "1",
    };
  }

  /** Why there can be none here; undefined where there can. */
  static missing(): string | undefined {
    return libraryPath() === undefined ? `${LIBRARY} is not installed (Debian: faketime)` : undefined;
  }

  /** What the programs take for the time of day, ms since 1970. */
  get nowMs(): number {
    return Date.now() + this.#offsetMs;
  }

  /** From now on it is so many ms from the truth; programs that run see it at once. */
  async setOffset(offsetMs: number): Promise<void> {
    const seconds = (offsetMs / 1_000).toFixed(3);
    // Never half written: a program that read an empty file would keep what it had.
    await mkdir(join(this.#file, ".."), { recursive: true });
    await writeFile(`${this.#file}.new`, `${offsetMs < 0 ? "" : "+"}${seconds}\n`);
    await rename(`${this.#file}.new`, this.#file);
    this.#offsetMs = offsetMs;
  }

  /** As a device does that was just switched on and has no battery: half a minute after 1970 began. */
  setTo1970(): Promise<void> {
    return this.setOffset(30_000 - Date.now());
  }

  /** Removes what killed programs left in shared memory. */
  async close(): Promise<void> {
    for (const name of await readdir(SHARED_MEMORY)) {
      const pid = /^(?:sem\.faketime_sem|faketime_shm)_(\d+)$/.exec(name)?.[1];
      if (pid !== undefined && !existsSync(`/proc/${pid}`))
        await rm(join(SHARED_MEMORY, name), { force: true });
    }
  }
}

function libraryPath(): string | undefined {
  if (process.platform !== "linux") return undefined;
  const folders = ["/usr/lib", ...readdirSync("/usr/lib").map((name) => join("/usr/lib", name))];
  return folders.map((folder) => join(folder, "faketime", LIBRARY)).find((path) => existsSync(path));
}
