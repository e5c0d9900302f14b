/**
 * The marks of a source that follows several files:
 *
 *   file/<source>/at/<hash of the path>      how far a file was read
 *   file/<source>/left/<inode>/<offset>      what was left of a file that has no name of ours for now
 */
import { createHash } from "node:crypto";
import type { RecordBuffer } from "../../buffer/record-buffer.ts";
import { decodePlace, type FilePlace, type FoundFile } from "./file-place.ts";

/** Places of files that are gone. */
export const MAX_GONE = 500;

export class FileMarks {
  readonly #buffer: RecordBuffer;
  /** The source's own. */
  readonly name: string;

  constructor(buffer: RecordBuffer, sourceName: string) {
    this.#buffer = buffer;
    this.name = `file/${sourceName}`;
  }

  nameOf(path: string): string {
    return `${this.name}/at/${createHash("sha256").update(path).digest("hex").slice(0, 32)}`;
  }

  nameOfLeft({ id, offset }: FilePlace): string {
    return `${this.name}/left/${id}/${offset}`;
  }

  async placeOf(path: string): Promise<FilePlace | undefined> {
    return decodePlace(await this.#buffer.mark(this.nameOf(path)), path);
  }

  async places(kind: "at" | "left"): Promise<[name: string, place: FilePlace][]> {
    const places: [string, FilePlace][] = [];
    for (const name of await this.#buffer.marks(`${this.name}/${kind}/`)) {
      const place = decodePlace(await this.#buffer.mark(name));
      if (place !== undefined) places.push([name, place]);
    }
    return places;
  }
}

/** Of files that are gone, those beyond the newest. */
export function oldestGone<T extends { readonly timeUs: number }>(gone: readonly T[]): T[] {
  return [...gone].sort((a, b) => b.timeUs - a.timeUs).slice(MAX_GONE);
}

/** A new file is soon given the inode of one that was removed. Places of the first form do not know when theirs was made. */
export function mayBeRenamed(place: FilePlace, { id, bornNs }: FoundFile): boolean {
  return place.id === id && (place.bornNs === "0" || place.bornNs === String(bornNs));
}
