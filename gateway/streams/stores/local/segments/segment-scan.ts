/**
 * Walks the entries of a segment file, tells a torn tail from damage, and finds its way past both.
 */
import {
  ENTRY_HEAD_BYTES,
  type Entry,
  entryAt,
  type Found,
  generationAt,
  MAGIC_BYTES,
  MAX_ENTRY_BYTES,
} from "../../log-entry.ts";
import type { ReadableFile } from "./bad-sectors.ts";
import { Chunk } from "./chunk.ts";
import { MAX_PADDING_BYTES } from "./log-file.ts";
import type { RecentChunks } from "./recent-chunks.ts";
import type { Segment } from "./segment.ts";
import type { Extent } from "./segment-index.ts";

const CHUNK_BYTES = 1_048_576;

/** The chunks that were read last, as far as they are of one segment. */
export interface RecentOf {
  readonly chunks: RecentChunks;
  readonly segment: Segment;
}

/** Reads a file's entries in order; one chunk in memory at a time. */
export class EntryWalk {
  readonly #file: ReadableFile;
  readonly #end: number;
  readonly #generation: number | undefined;
  readonly #chunkBytes: number;
  readonly #recent: RecentOf | undefined;
  /** Held as long as it is in hand, and until `release` if somebody looks at what was found in it. */
  #chunk: Chunk;
  #isKept = false;
  readonly #kept: Chunk[] = [];
  /** Where the next entry is expected. */
  position: number;
  /** Where the last bytes end that are an entry of the generation, or have the head of one. */
  claimedEnd: number;

  /**
   * @param end bytes at and beyond it are not looked at
   * @param recent where chunks are looked for and left; `from` is then the beginning of an entry, and of what is found
   *   nothing outlives the next `fill` that was not kept
   */
  constructor(
    file: ReadableFile,
    from: number,
    end: number,
    generation: number | undefined,
    chunkBytes = CHUNK_BYTES,
    recent?: RecentOf,
  ) {
    this.#file = file;
    this.position = from;
    this.claimedEnd = from;
    this.#chunk = new Chunk(undefined, from, 0);
    this.#chunk.hold();
    this.#recent = recent;
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
    const chunk = this.#chunk;
    const isVerified = this.position < chunk.verifiedTo;
    const found = entryAt(chunk.bytes, this.position - chunk.at, this.#generation, isVerified);
    if (found === "damaged") return "damaged";
    if (typeof found === "number") return this.position + found > this.#end ? "damaged" : "read";
    const end = this.position + found.bytes.length;
    if (this.position === chunk.verifiedTo) chunk.verifiedTo = end;
    this.position = end;
    this.claimedEnd = this.position;
    return found;
  }

  /** Reads a chunk from `position` on that holds at least what stands there. */
  async fill(): Promise<void> {
    if (this.fillFromMemory()) return;
    await this.#load(this.position, Math.max(this.#chunkBytes, this.#needed()));
    if (this.#recent !== undefined) this.#recent.chunks.add(this.#chunk);
  }

  /** As `fill`, if that needs no read from the disk. */
  fillFromMemory(): boolean {
    const known = this.#recent?.chunks.find(this.#recent.segment, this.position, this.#needed());
    if (known === undefined) return false;
    this.#use(known);
    return true;
  }

  /** The entry that was found last is looked at, or what is a view of it, until `release`. */
  keep(): void {
    if (this.#isKept) return;
    this.#isKept = true;
    this.#kept.push(this.#chunk);
  }

  /** Nobody looks at what was kept any more, and nobody walks on. */
  release(): void {
    this.keep();
    for (const chunk of this.#kept) chunk.letGo();
    this.#kept.length = 0;
  }

  #use(chunk: Chunk): void {
    chunk.hold();
    // Without `recent` everything may be looked at for as long as anybody likes.
    if (!this.#isKept && this.#recent !== undefined) this.#chunk.letGo();
    this.#isKept = false;
    this.#chunk = chunk;
  }

  #needed(): number {
    const found = entryAt(this.#chunk.bytes, this.position - this.#chunk.at, this.#generation);
    return typeof found === "number" ? found : ENTRY_HEAD_BYTES;
  }

  async #load(from: number, bytes: number): Promise<void> {
    const wanted = Math.min(bytes, this.#end - from);
    const chunk = new Chunk(this.#recent?.segment, from, Math.max(0, wanted));
    let have = 0;
    while (have < wanted) {
      const { bytesRead } = await this.#file.read(chunk.bytes, have, wanted - have, from + have);
      if (bytesRead === 0) break;
      have += bytesRead;
    }
    // A file shorter than it should be reads as zeros, which are no entry.
    chunk.bytes.fill(0, have);
    this.#use(chunk);
  }

  /** Steps from damage to the next sound entry, or to the end. Returns what was stepped over. */
  async skipDamage(): Promise<Extent> {
    const from = this.position;
    // Its head tells whether anything was written here at all.
    await this.#load(from, ENTRY_HEAD_BYTES);
    this.#noteClaim(0);
    let at = from + 1;
    while (at + ENTRY_HEAD_BYTES <= this.#end) {
      await this.#load(at, this.#chunkBytes);
      let hit = this.#chunk.bytes.indexOf(MAGIC_BYTES);
      let found: Found = "damaged";
      for (; hit >= 0; hit = this.#chunk.bytes.indexOf(MAGIC_BYTES, hit + 1)) {
        found = entryAt(this.#chunk.bytes, hit, this.#generation);
        this.#noteClaim(hit);
        if (found !== "damaged") break;
      }
      if (hit < 0) {
        // The last three bytes may begin a magic number that the next chunk ends.
        at += Math.max(1, this.#chunk.bytes.length - 3);
        continue;
      }
      this.position = this.#chunk.at + hit;
      if (typeof found === "object" || (await this.#loadWhole())) return { from, to: this.position };
      at = this.position + 1;
    }
    this.position = this.#end;
    return { from, to: this.#end };
  }

  /** A head of this generation, even of an entry that is not whole, tells that something was written here. */
  #noteClaim(at: number): void {
    const chunk = this.#chunk.bytes;
    if (chunk.length - at < 24 || chunk.compare(MAGIC_BYTES, 0, 4, at, at + 4) !== 0) return;
    if (this.#generation !== undefined && generationAt(chunk, at) !== this.#generation) return;
    const size = Math.max(ENTRY_HEAD_BYTES, Math.min(MAX_ENTRY_BYTES, chunk.readUInt32BE(at + 12)));
    this.claimedEnd = Math.max(this.claimedEnd, Math.min(this.#end, this.#chunk.at + at + size));
  }

  /** Reads all of what may be an entry at `position`; true when it is one. */
  async #loadWhole(): Promise<boolean> {
    let bytes = ENTRY_HEAD_BYTES;
    while (this.position + bytes <= this.#end) {
      await this.#load(this.position, bytes);
      const found = entryAt(this.#chunk.bytes, 0, this.#generation);
      if (typeof found !== "number") return found !== "damaged";
      bytes = found;
    }
    return false;
  }
}

export type Rest = "nothing" | "zeros" | "old bytes";

export interface ScanResult {
  /** Where sound entries end. */
  readonly end: number;
  /** In the middle, with acknowledged entries behind. */
  readonly damage: readonly Extent[];
  /** Bytes beyond `end` of a write that never ended, which nobody was told are stored. */
  readonly tornBytes: number;
}

/**
 * Calls `visit` for every entry that counts.
 * @param tail "torn" for the segment that was being written: damage that no later group follows is
 *   the rest of a write that never ended, and what follows it in the same group was not
 *   acknowledged either; "sealed" for the others, where all damage is damage.
 * @param acknowledgedTo with "torn": what stands before it was there when the log was last closed in peace, so
 *   damage that begins before it is real as well
 * @param rest what may stand behind the last entry of a file that was not cut to its end when it was
 *   closed: "zeros" of a fresh one; "old bytes" of a recycled one, which are those that no entry of
 *   this generation claims: of a torn write only what lies behind a head that reached the disk can
 *   be told from them. Neither is torn or damage.
 */
export async function scanSegment(
  file: ReadableFile,
  from: number,
  fileBytes: number,
  generation: number | undefined,
  tail: "torn" | "sealed",
  visit: (entry: Entry, position: number) => void,
  rest: Rest = "nothing",
  acknowledgedTo = 0,
): Promise<ScanResult> {
  const walk = new EntryWalk(file, from, fileBytes, generation);
  const damage: Extent[] = [];
  /** What stands behind damage that may yet turn out to be a torn tail, the damage first. */
  const doubtful: Array<Extent | { entry: Entry; position: number }> = [];
  let end = from;
  /** Numbers rise in the order of writing: what stands there again, put there by whatever it was, is no entry. */
  let number = 0;
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
    else if (found === "damaged") doubtful.push(...splitAt(acknowledgedTo, await walk.skipDamage()));
    else if (found.number < number) doubtful.push({ from: position, to: walk.position });
    else {
      number = found.number + 1;
      settle(position - found.groupOffset);
      if (doubtful.length === 0) accept(found, position);
      else doubtful.push({ entry: found, position });
    }
  }
  const last = doubtful.at(-1);
  let wholeBytes = fileBytes;
  if (rest === "zeros" && last !== undefined && "from" in last && last.to === fileBytes) {
    if (await isPadding(file, last)) {
      doubtful.pop();
      wholeBytes = last.from;
    }
  }
  const written = rest === "old bytes" ? Math.max(end, walk.claimedEnd) : wholeBytes;
  if (tail === "sealed") {
    settle(written);
    const rearmost = damage.at(-1);
    if (rearmost !== undefined && rearmost.to > written) {
      damage[damage.length - 1] = { from: rearmost.from, to: written };
    }
    end = written;
  }
  if (tail === "torn" && acknowledgedTo > from) {
    settle(acknowledgedTo);
    end = Math.max(end, Math.min(acknowledgedTo, fileBytes));
  }
  return { end, damage, tornBytes: Math.max(0, written - end) };
}

function splitAt(place: number, { from, to }: Extent): Extent[] {
  if (place <= from || place >= to) return [{ from, to }];
  return [
    { from, to: place },
    { from: place, to },
  ];
}

/** Whether these are the zeros that a log's file has behind its last write. */
async function isPadding(file: ReadableFile, { from, to }: Extent): Promise<boolean> {
  if (to - from > MAX_PADDING_BYTES) return false;
  const bytes = Buffer.alloc(to - from, 1);
  await file.read(bytes, 0, bytes.length, from);
  return bytes.every((byte) => byte === 0);
}
