/**
 * A rotated file that was compressed, read as if it were not. It is decompressed forwards as it is
 * asked for and never as a whole: a look back begins anew. What is damaged ends where the damage is.
 */
import type { FileHandle } from "node:fs/promises";
import { Readable } from "node:stream";
import { createGunzip, type Gunzip } from "node:zlib";

const CHUNK_BYTES = 65_536;

/** A file, or what can be read like one. */
export interface ReadableFile {
  read(into: Buffer, offset: number, length: number, position: number): Promise<{ bytesRead: number }>;
  close(): Promise<void>;
}

export class GzipFile implements ReadableFile {
  readonly #handle: FileHandle;
  readonly #path: string;
  #file: Readable | undefined;
  #gunzip: Gunzip | undefined;
  #chunks: AsyncIterator<Buffer> | undefined;
  /** Decompressed and not yet behind the place that is read. */
  #kept: Buffer[] = [];
  #keptFrom = 0;
  #keptBytes = 0;
  #ended = false;
  #damage: string | undefined;

  /** @param handle closed with this @param path for what is said of it */
  constructor(handle: FileHandle, path: string) {
    this.#handle = handle;
    this.#path = path;
  }

  /** Why there is no more, where it should have been; undefined while all is well. */
  get damage(): string | undefined {
    return this.#damage;
  }

  /** Fewer bytes than asked for only at the end. */
  async read(into: Buffer, offset: number, length: number, position: number): Promise<{ bytesRead: number }> {
    if (this.#chunks === undefined || position < this.#keptFrom) await this.#begin();
    while (!this.#ended && this.#keptFrom + this.#keptBytes < position + length) {
      this.#forget(position);
      await this.#more();
    }
    this.#forget(position);
    let bytesRead = 0;
    let skip = position - this.#keptFrom;
    for (const chunk of this.#kept) {
      if (bytesRead === length) break;
      if (skip < chunk.length)
        bytesRead += chunk.copy(
          into,
          offset + bytesRead,
          skip,
          Math.min(chunk.length, skip + length - bytesRead),
        );
      skip = Math.max(0, skip - chunk.length);
    }
    return { bytesRead };
  }

  async #begin(): Promise<void> {
    this.#stop();
    const file = Readable.from(this.#compressed());
    const gunzip = createGunzip({ chunkSize: CHUNK_BYTES });
    // `pipe` hands no error on.
    file.on("error", (error) => gunzip.destroy(error));
    gunzip.on("error", () => {});
    file.pipe(gunzip);
    this.#file = file;
    this.#gunzip = gunzip;
    this.#chunks = gunzip[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
    this.#keptFrom = 0;
    this.#ended = false;
    this.#damage = undefined;
  }

  async *#compressed(): AsyncGenerator<Buffer> {
    for (let at = 0; ; ) {
      const { bytesRead, buffer } = await this.#handle.read(
        Buffer.allocUnsafe(CHUNK_BYTES),
        0,
        CHUNK_BYTES,
        at,
      );
      if (bytesRead === 0) return;
      at += bytesRead;
      yield buffer.subarray(0, bytesRead);
    }
  }

  async #more(): Promise<void> {
    try {
      const next = await this.#chunks!.next();
      if (next.done) this.#ended = true;
      else {
        this.#kept.push(next.value);
        this.#keptBytes += next.value.length;
      }
    } catch (error) {
      const { code = "" } = error as NodeJS.ErrnoException;
      if (!code.startsWith("Z_") && code !== "ERR_TRAILING_JUNK_AFTER_STREAM_END") throw error;
      this.#ended = true;
      this.#damage = `${this.#path} is damaged: ${(error as Error).message}`;
    }
  }

  #forget(before: number): void {
    while (this.#kept.length > 0 && this.#keptFrom + this.#kept[0]!.length <= before) {
      const { length } = this.#kept.shift()!;
      this.#keptFrom += length;
      this.#keptBytes -= length;
    }
  }

  #stop(): void {
    this.#file?.destroy();
    this.#gunzip?.destroy();
    this.#chunks = undefined;
    this.#kept = [];
    this.#keptFrom = 0;
    this.#keptBytes = 0;
  }

  async close(): Promise<void> {
    this.#stop();
    await this.#handle.close();
  }
}
