/**
 * Walks the entries of a segment file, tells a torn tail from damage, and finds its way past both.
 */
import type { FileHandle } from "node:fs/promises";
import { ENTRY_HEAD_BYTES, type Entry, entryAt, type Found, MAGIC_BYTES } from "./log-entry.ts";
import type { Extent } from "./segment.ts";

const CHUNK_BYTES = 1_048_576;

/** Reads a file's entries in order; one chunk in memory at a time. */
export class EntryWalk {
  readonly #file: FileHandle;
  readonly #end: number;
  readonly #generation: number | undefined;
  readonly #chunkBytes: number;
  #chunk = Buffer.alloc(0);
  #chunkAt = 0;
  /** Where the next entry is expected. */
  position: number;

  /** @param end bytes at and beyond it are not looked at */
  constructor(
    file: FileHandle,
    from: number,
    end: number,
    generation: number | undefined,
    chunkBytes = CHUNK_BYTES,
  ) {
    this.#file = file;
    this.position = from;
    this.#chunkAt = from;
    this.#end = end;
    this.#generation = generation;
    this.#chunkBytes = chunkBytes;
  }

  /**
   * The entry at `position` if the chunk in memory holds it whole, and steps over it. "read" asks
   * for `fill` first. Synchronous, as most entries are small and a promise each would cost more.
   */
  next(): Entry | "damaged" | "end" | "read" {
    if (this.position >= this.#end) return "end";
    const found = entryAt(this.#chunk, this.position - this.#chunkAt, this.#generation);
    if (found === "damaged") return "damaged";
    if (typeof found === "number") return this.position + found > this.#end ? "damaged" : "read";
    this.position += found.bytes.length;
    return found;
  }

  /** Reads a chunk from `position` on that holds at least what stands there. */
  async fill(): Promise<void> {
    const at = this.position - this.#chunkAt;
    const found = entryAt(this.#chunk, at, this.#generation);
    const atLeast = typeof found === "number" && found > ENTRY_HEAD_BYTES ? found : 0;
    await this.#load(this.position, Math.max(this.#chunkBytes, atLeast));
  }

  async #load(from: number, bytes: number): Promise<void> {
    const wanted = Math.min(bytes, this.#end - from);
    // Never from the pool and never used again: readers keep views of it.
    const chunk = Buffer.allocUnsafeSlow(Math.max(0, wanted));
    let have = 0;
    while (have < wanted) {
      const { bytesRead } = await this.#file.read(chunk, have, wanted - have, from + have);
      if (bytesRead === 0) break;
      have += bytesRead;
    }
    // A file shorter than it should be reads as zeros, which are no entry.
    chunk.fill(0, have);
    this.#chunk = chunk;
    this.#chunkAt = from;
  }

  /** Steps from damage to the next sound entry, or to the end. Returns what was stepped over. */
  async skipDamage(): Promise<Extent> {
    const from = this.position;
    let at = from + 1;
    while (at + ENTRY_HEAD_BYTES <= this.#end) {
      await this.#load(at, this.#chunkBytes);
      let hit = this.#chunk.indexOf(MAGIC_BYTES);
      let found: Found = "damaged";
      for (; hit >= 0; hit = this.#chunk.indexOf(MAGIC_BYTES, hit + 1)) {
        found = entryAt(this.#chunk, hit, this.#generation);
        if (found !== "damaged") break;
      }
      if (hit < 0) {
        // The last three bytes may begin a magic number that the next chunk ends.
        at += Math.max(1, this.#chunk.length - 3);
        continue;
      }
      this.position = this.#chunkAt + hit;
      if (typeof found === "object" || (await this.#loadWhole())) return { from, to: this.position };
      at = this.position + 1;
    }
    this.position = this.#end;
    return { from, to: this.#end };
  }

  /** Reads all of what may be an entry at `position`; true when it is one. */
  async #loadWhole(): Promise<boolean> {
    let bytes = ENTRY_HEAD_BYTES;
    while (this.position + bytes <= this.#end) {
      await this.#load(this.position, bytes);
      const found = entryAt(this.#chunk, 0, this.#generation);
      if (typeof found !== "number") return found !== "damaged";
      bytes = found;
    }
    return false;
  }
}

export interface ScanResult {
  /** Where sound entries end. */
  readonly end: number;
  /** In the middle, with acknowledged entries behind. */
  readonly damage: readonly Extent[];
  /** Bytes beyond `end`, which nobody was told are stored. */
  readonly tornBytes: number;
}

/**
 * Calls `visit` for every entry that counts.
 * @param tail "torn" for the segment that was being written: damage that no later group follows is
 *   the rest of a write that never ended, and what follows it in the same group was not
 *   acknowledged either; "sealed" for the others, where all damage is damage.
 */
export async function scanSegment(
  file: FileHandle,
  from: number,
  fileBytes: number,
  generation: number | undefined,
  tail: "torn" | "sealed",
  visit: (entry: Entry, position: number) => void,
): Promise<ScanResult> {
  const walk = new EntryWalk(file, from, fileBytes, generation);
  const damage: Extent[] = [];
  /** What stands behind damage that may yet turn out to be a torn tail, the damage first. */
  const doubtful: Array<Extent | { entry: Entry; position: number }> = [];
  let end = from;
  const accept = (entry: Entry, position: number): void => {
    visit(entry, position);
    end = position + entry.bytes.length;
  };
  /** Damage is real where a group that begins behind it was written. */
  const settle = (groupStart: number): void => {
    while (doubtful.length > 0 && "from" in doubtful[0]! && doubtful[0].from < groupStart) {
      damage.push(doubtful.shift() as Extent);
      while (doubtful.length > 0 && "entry" in doubtful[0]!) {
        const { entry, position } = doubtful.shift() as { entry: Entry; position: number };
        accept(entry, position);
      }
    }
  };
  for (;;) {
    const position = walk.position;
    const found = walk.next();
    if (found === "end") break;
    if (found === "read") await walk.fill();
    else if (found === "damaged") doubtful.push(await walk.skipDamage());
    else {
      settle(position - found.groupOffset);
      if (doubtful.length === 0) accept(found, position);
      else doubtful.push({ entry: found, position });
    }
  }
  if (tail === "sealed") {
    settle(Number.POSITIVE_INFINITY);
    end = fileBytes;
  }
  return { end, damage, tornBytes: fileBytes - end };
}
