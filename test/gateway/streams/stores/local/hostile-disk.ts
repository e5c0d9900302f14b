/**
 * The real disk of a local store, with the whims of a bad one: writes that fail at once or half-way, syncs
 * that fail, slowness, and power that goes. What a power cut leaves is a copy of the folder, in which of the
 * write that was under way any sectors stand and any do not; from then on the store that runs has no disk.
 */
import {
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join, relative } from "node:path";
import { type Disk, realDisk } from "../../../../../gateway/streams/stores/local/log/segment-file.ts";
import type { LogFile } from "../../../../../gateway/streams/stores/local/segments/log-file.ts";

const SECTOR_BYTES = 512;

export class HostileDisk implements Disk {
  readonly #dir: string;
  readonly #random: () => number;
  /** Of the next calls, so many fail. */
  failingWrites = 0;
  failingSyncs = 0;
  code: "ENOSPC" | "EIO" = "EIO";
  /** The most turns of the event loop that a call waits for. */
  slowness = 0;
  /** Where the power leaves its image, once it goes at the next write. */
  #image: string | undefined;
  #isDead = false;
  #cut: (() => void) | undefined;

  /** @param dir of the store */
  constructor(dir: string, random: () => number) {
    this.#dir = dir;
    this.#random = random;
  }

  get isDead(): boolean {
    return this.#isDead;
  }

  /** The power goes in the middle of the next write. Resolves then. */
  cutAtNextWrite(image: string): Promise<void> {
    this.#image = image;
    return new Promise((resolve) => {
      this.#cut = resolve;
    });
  }

  /** The power goes now, unless it has. */
  cut(image: string): void {
    if (this.#isDead) return;
    this.#isDead = true;
    // Nothing of this process goes on meanwhile, but for calls that the kernel has already and LevelDB's own thread.
    for (let isWhole = false; !isWhole; ) {
      try {
        rmSync(image, { recursive: true, force: true });
        copyFolder(this.#dir, image);
        isWhole = true;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
      }
    }
    this.#cut?.();
  }

  async write(file: LogFile, bytes: Buffer, position: number): Promise<void> {
    await this.#wait();
    if (this.#image !== undefined && !this.#isDead) {
      const path = join(this.#image, relative(this.#dir, readlinkSync(`/proc/self/fd/${file.handle.fd}`)));
      this.cut(this.#image);
      this.#tear(path, bytes, position);
    }
    this.#refuseWhenDead();
    if (this.failingWrites > 0) {
      this.failingWrites--;
      const part = Math.floor(this.#random() * bytes.length);
      if (part > 0 && this.#random() < 0.5) await realDisk.write(file, bytes.subarray(0, part), position);
      throw Object.assign(new Error("the disk refuses it"), { code: this.code });
    }
    await realDisk.write(file, bytes, position);
  }

  async datasync(file: LogFile): Promise<void> {
    await this.#wait();
    this.#refuseWhenDead();
    if (this.failingSyncs > 0) {
      this.failingSyncs--;
      throw Object.assign(new Error("the disk refuses it"), { code: this.code });
    }
    await realDisk.datasync(file);
  }

  #refuseWhenDead(): void {
    if (this.#isDead) throw Object.assign(new Error("there is no power"), { code: "EIO" });
  }

  async #wait(): Promise<void> {
    for (let turns = Math.floor(this.#random() * (this.slowness + 1)); turns > 0; turns--) {
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  /** Any sectors of a write; what lies between them behind the file's end is zeros. */
  #tear(path: string, bytes: Buffer, position: number): void {
    const file = openSync(path, "r+");
    const share = [0, 0.1, 0.5, 0.9, 1][Math.floor(this.#random() * 5)]!;
    for (let at = 0; at < bytes.length; ) {
      // Sectors are those of the file, not of the write.
      const end = Math.min(bytes.length, at + SECTOR_BYTES - ((position + at) % SECTOR_BYTES));
      if (this.#random() < share) writeSync(file, bytes, at, end - at, position + at);
      at = end;
    }
    closeSync(file);
  }
}

/** Not by copyFile, which never ends when a log cuts the file meanwhile. */
function copyFolder(from: string, to: string): void {
  mkdirSync(to, { recursive: true });
  for (const entry of readdirSync(from, { withFileTypes: true })) {
    const [source, target] = [join(from, entry.name), join(to, entry.name)];
    if (entry.isDirectory()) copyFolder(source, target);
    else writeFileSync(target, readFileSync(source));
  }
}
