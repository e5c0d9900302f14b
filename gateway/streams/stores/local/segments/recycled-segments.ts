/**
 * Spare files for the logs of a store: whole on disk before anything is written, so that an
 * fdatasync of a log need not write the file system's own tables as well.
 *
 *   filled with zeros, or a segment that retention removed ─→ [spare] ─→ the next segment of a brisk log
 *
 * What a spare holds does not matter: the random generation inside each entry's checksum tells a
 * file's earlier life from its present one. Nothing depends on the pool: whoever finds it empty
 * makes a fresh file, and a crash loses no more than the spares themselves, which are removed at the
 * next start.
 */
import { mkdir, open, rename, rm, stat, statfs, unlink } from "node:fs/promises";
import { dirname, join } from "node:path";
import { syncFolder } from "../../../../../runtime/durable.ts";

/** Spares that lie ready, at most; removed segments beyond it free their disk at once. */
const MAX_SPARES = 2;
/** One write of zeros. Small, so that a log's own write never waits long behind it. */
const FILL_BYTES = 1_048_576;
/**
 * So many are synced together: each sync is a commit of the file system's journal, for which the
 * log's own syncs would have to wait; a sync of all at once would keep them waiting long.
 */
const FILL_SYNC_BYTES = 16 * FILL_BYTES;
/** With less room than so many spares the disk is short, and none is kept. */
const ROOM_IN_SPARES = 16;
/** Spares that no log took for so long are given back to the disk. */
const IDLE_MS = 60_000;

export class RecycledSegments {
  readonly #folder: string;
  readonly #bytes: number;
  readonly #fills: boolean;
  readonly #spares: string[] = [];
  #count = 0;
  #work: Promise<void> = Promise.resolve();
  #making = false;
  #idle: NodeJS.Timeout | undefined;
  #closed = false;

  /**
   * @param folder on the file system of the logs, which are renamed to and from it; the pool's alone
   * @param bytes of a spare
   * @param fills whether spares are also made, of zeros: that writes each byte twice, so it pays only
   *   where the disk has bandwidth to spare; otherwise removed segments alone come back
   */
  constructor(folder: string, bytes: number, fills: boolean) {
    this.#folder = folder;
    this.#fills = fills;
    this.#bytes = bytes;
  }

  /** Removes what an earlier process left. */
  async start(): Promise<void> {
    await rm(this.#folder, { recursive: true, force: true });
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
  }

  get ready(): number {
    return this.#spares.length;
  }

  /** A log will soon have use for a spare: makes one, in the background, when there is none and the pool fills. */
  want(): void {
    if (this.#closed) return;
    this.#stayAwake();
    if (!this.#fills || this.#making || this.#spares.length > 0) return;
    this.#making = true;
    // A disk that refuses it is no reason to trouble anybody: logs do without.
    void this.#inTurn(() => this.#make().catch(() => undefined)).finally(() => {
      this.#making = false;
    });
  }

  /** The path of a file that may be written over, the caller's from here on; undefined when there is none. */
  take(): string | undefined {
    const path = this.#spares.pop();
    if (path !== undefined) this.#stayAwake();
    return path;
  }

  /**
   * Takes over a segment's file that nobody is to find again; true when it did, false when the
   * caller has to remove it. The old name is gone from the disk before the file can be taken: were
   * it written over before that, a crash would bring back a segment full of foreign bytes.
   */
  async give(path: string): Promise<boolean> {
    if (this.#closed || this.#idle === undefined || this.#spares.length >= MAX_SPARES) return false;
    const { size } = await stat(path);
    if (size < this.#bytes || size > 2 * this.#bytes || !(await this.#hasRoom())) return false;
    const spare = this.#nextPath();
    await rename(path, spare);
    try {
      await syncFolder(dirname(path));
    } catch (error) {
      // A crash may bring the old name back: so it is not written over, and nobody else knows of it.
      await unlink(spare).catch(() => undefined);
      throw error;
    }
    await this.#keep(spare);
    return true;
  }

  /** The disk is short, or nobody had use for them: all spares go. */
  async release(): Promise<void> {
    clearTimeout(this.#idle);
    this.#idle = undefined;
    await this.#inTurn(async () => {
      for (const path of this.#spares.splice(0)) await unlink(path).catch(() => undefined);
    });
  }

  /** Safe to call twice. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.release();
    await rm(this.#folder, { recursive: true, force: true });
  }

  async #make(): Promise<void> {
    if (!(await this.#hasRoom())) return;
    const path = this.#nextPath();
    const file = await open(path, "w");
    try {
      const zeros = Buffer.alloc(Math.min(FILL_BYTES, this.#bytes));
      for (let at = 0; at < this.#bytes && !this.#closed; at += zeros.length) {
        await file.write(zeros, 0, Math.min(zeros.length, this.#bytes - at), at);
        if ((at + zeros.length) % FILL_SYNC_BYTES === 0) await file.datasync();
      }
      await file.datasync();
    } catch (error) {
      await file.close();
      await unlink(path).catch(() => undefined);
      throw error;
    }
    await file.close();
    await this.#keep(path);
  }

  /** Meanwhile the disk may have become short, or others may have come. */
  async #keep(path: string): Promise<void> {
    const isFull = this.#spares.length >= MAX_SPARES;
    if (this.#closed || this.#idle === undefined || isFull) await unlink(path).catch(() => undefined);
    else this.#spares.push(path);
  }

  async #hasRoom(): Promise<boolean> {
    const { bavail, bsize } = await statfs(this.#folder);
    return bavail * bsize >= ROOM_IN_SPARES * this.#bytes;
  }

  #nextPath(): string {
    return join(this.#folder, `${++this.#count}.spare`);
  }

  #stayAwake(): void {
    // Asked for with each group: a new timer each time would be garbage.
    if (this.#idle !== undefined) this.#idle.refresh();
    else this.#idle = setTimeout(() => void this.release(), IDLE_MS).unref();
  }

  #inTurn(work: () => Promise<void>): Promise<void> {
    this.#work = this.#work.then(work);
    return this.#work;
  }
}
