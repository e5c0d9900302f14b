/** Watches the free space of the buffer's disk, so that others find some too and a write never fails for want of it. */
import { statfs } from "node:fs/promises";

const LOOK_EVERY_MS = 5_000;

export class DiskSpace {
  readonly #folder: string;
  readonly #minFreeBytes: number;
  readonly #onRoom: () => void;
  readonly #freeBytes: (folder: string) => Promise<number>;
  #isShort = false;
  #timer: NodeJS.Timeout | undefined;

  /**
   * @param onRoom called when it is no longer short
   * @param freeBytes for unprivileged users; asked of the file system unless given
   */
  constructor(
    folder: string,
    minFreeBytes: number,
    onRoom: () => void,
    freeBytes: (folder: string) => Promise<number> = freeBytesOf,
  ) {
    this.#folder = folder;
    this.#minFreeBytes = minFreeBytes;
    this.#onRoom = onRoom;
    this.#freeBytes = freeBytes;
  }

  get isShort(): boolean {
    return this.#isShort;
  }

  async start(): Promise<void> {
    if (this.#minFreeBytes === 0) return;
    await this.look();
    this.#timer = setInterval(() => void this.look(), LOOK_EVERY_MS);
    this.#timer.unref();
  }

  /** Now, and not only when it is time. A file system that does not say counts as having room. */
  async look(): Promise<void> {
    if (this.#minFreeBytes === 0) return;
    const free = await this.#freeBytes(this.#folder).catch(() => Number.POSITIVE_INFINITY);
    const wasShort = this.#isShort;
    this.#isShort = free < this.#minFreeBytes;
    if (wasShort && !this.#isShort) this.#onRoom();
  }

  close(): void {
    clearInterval(this.#timer);
  }
}

async function freeBytesOf(folder: string): Promise<number> {
  const { bavail, bsize } = await statfs(folder);
  return bavail * bsize;
}
