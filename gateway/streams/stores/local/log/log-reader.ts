/** Reads one shard out of the segments of a log: index, then a walk over entries, each checked by its CRC. */
import { type FileHandle, open } from "node:fs/promises";
import { decodeBatch } from "../../../../../protocol/record-batch.ts";
import type { LogPart } from "../../../streams.ts";
import { ENTRY_KIND } from "../../log-entry.ts";
import { PastBadSectors, type ReadableFile } from "../segments/bad-sectors.ts";
import type { RecentChunks } from "../segments/recent-chunks.ts";
import { SEGMENT_HEAD_BYTES, type Segment } from "../segments/segment.ts";
import type { Extent } from "../segments/segment-index.ts";
import { EntryWalk, type RecentOf } from "../segments/segment-scan.ts";
import { ReadPlaces } from "./read-places.ts";

const MIN_CHUNK_BYTES = 128 * 1024;
const MAX_CHUNK_BYTES = 1_048_576;
/** A reader that is no farther behind than this will soon want what is written now. */
const FOLLOWED_BYTES = 8 * 1_048_576;
const FOLLOWED_MS = 1_000;
const INDEXED_SEGMENTS = 4;

export interface PartsRead {
  readonly parts: LogPart[];
  readonly next: number;
  /** As in ReadResult. */
  release(): void;
}

const nothingUpTo = (next: number): PartsRead => ({ parts: [], next, release: () => undefined });

export class LogReader {
  readonly #segments: readonly Segment[];
  readonly #recent: RecentChunks | undefined;
  readonly #onDamage: (segment: Segment, extent: Extent) => void;
  readonly #monotonicMs: () => number;
  readonly #places = new ReadPlaces();
  /** Closed segments whose index points are in memory. */
  readonly #indexed: Segment[] = [];
  #tipReadMs = Number.NEGATIVE_INFINITY;

  /**
   * @param segments the log's own list, which changes as it goes on
   * @param recent shared with the readers of other logs
   */
  constructor(
    segments: readonly Segment[],
    recent: RecentChunks | undefined,
    onDamage: (segment: Segment, extent: Extent) => void,
    monotonicMs: () => number,
  ) {
    this.#monotonicMs = monotonicMs;
    this.#segments = segments;
    this.#recent = recent;
    this.#onDamage = onDamage;
  }

  /** Whether somebody read close to the end just now, and so will want what is written next. */
  get isFollowed(): boolean {
    return this.#monotonicMs() - this.#tipReadMs < FOLLOWED_MS;
  }

  /** The oldest offset that is kept; undefined when there is none. */
  horizon(shard: number): number | undefined {
    for (const segment of this.#segments) {
      const index = segment.shards.get(shard);
      if (index !== undefined) return index.first;
    }
    return undefined;
  }

  /** When the newest record that is kept arrived; 0 when there is none. */
  newestMs(shard: number): number {
    for (let i = this.#segments.length - 1; i >= 0; i--) {
      const index = this.#segments[i]!.shards.get(shard);
      if (index !== undefined) return index.newestMs;
    }
    return 0;
  }

  /**
   * @param from at or after the horizon
   * @param latest where what is on disk ends
   */
  read(shard: number, from: number, latest: number, maxBytes: number): Promise<PartsRead> {
    // A reader at the tip finds all in memory: then nothing is awaited, and the promise is all that is made.
    const segment = from < latest ? this.#segmentOf(shard, from) : undefined;
    if (segment === undefined) return Promise.resolve(nothingUpTo(latest));
    const position = this.#places.take(segment, shard, from);
    if (position < 0) return this.#readOn(shard, from, latest, maxBytes);
    const reading = this.#begin(segment, shard, from, position, maxBytes);
    const isDone = reading.gather() === "done" && reading.parts.length > 0;
    return isDone
      ? Promise.resolve(this.#end(reading))
      : this.#readOn(shard, from, latest, maxBytes, reading);
  }

  /** @param begun a read from there that needs the disk */
  async #readOn(
    shard: number,
    from: number,
    latest: number,
    maxBytes: number,
    begun?: PartsReading,
  ): Promise<PartsRead> {
    let at = from;
    while (at < latest) {
      const segment = this.#segmentOf(shard, at);
      if (segment === undefined) break;
      const goesOn = begun?.segment === segment && begun.from === at;
      const found = await this.#readSegment(segment, shard, at, maxBytes, goesOn ? begun : undefined);
      if (found.parts.length > 0) return found;
      found.release();
      // Nothing sound was left of it: on with what comes behind.
      at = Math.max(found.next, at + 1);
    }
    return nothingUpTo(latest);
  }

  /** The first offset that arrived at `arrivalMs` or later; `latest` when none did. */
  async offsetAtTime(shard: number, arrivalMs: number, latest: number): Promise<number> {
    const segment = this.#segments.find((one) => (one.shards.get(shard)?.newestMs ?? -1) >= arrivalMs);
    if (segment === undefined) return latest;
    await this.#index(segment);
    let at = segment.offsetBefore(shard, arrivalMs);
    while (at < latest) {
      const { parts, next, release } = await this.read(shard, at, latest, MAX_CHUNK_BYTES);
      const hit = parts.find((part) => part.arrivalMs >= arrivalMs);
      release();
      if (hit !== undefined) return hit.first;
      if (parts.length === 0) break;
      at = next;
    }
    return latest;
  }

  /** The newest segment that may hold `offset`, else the first behind it. */
  #segmentOf(shard: number, offset: number): Segment | undefined {
    let behind: Segment | undefined;
    for (let i = this.#segments.length - 1; i >= 0; i--) {
      const index = this.#segments[i]!.shards.get(shard);
      if (index === undefined) continue;
      if (index.first <= offset) return offset < index.next ? this.#segments[i] : behind;
      behind = this.#segments[i];
    }
    return behind;
  }

  async #readSegment(
    segment: Segment,
    shard: number,
    from: number,
    maxBytes: number,
    begun: PartsReading | undefined,
  ): Promise<PartsRead> {
    let reading = begun;
    try {
      if (reading === undefined) {
        let position = this.#places.take(segment, shard, from);
        if (position < 0) {
          await this.#index(segment);
          position = segment.positionOf(shard, from);
        }
        reading = this.#begin(segment, shard, from, position, maxBytes);
      }
      for (let state = reading.gather(); state !== "done"; state = reading.gather()) {
        if (state === "read") await reading.walk.fill();
        else {
          const extent = await reading.walk.skipDamage();
          // Retention took it since, and its file may be written over for another log.
          if (!this.#segments.includes(segment)) break;
          this.#note(segment, extent);
        }
      }
      return this.#end(reading);
    } catch (error) {
      // Retention took it since; what is left begins behind it.
      if ((error as NodeJS.ErrnoException).code === "ENOENT" && !this.#segments.includes(segment)) {
        return nothingUpTo(reading?.end ?? segment.shards.get(shard)!.next);
      }
      throw error;
    } finally {
      await reading?.file.close();
    }
  }

  #begin(segment: Segment, shard: number, from: number, position: number, maxBytes: number): PartsReading {
    const recent = this.#recent === undefined ? undefined : { chunks: this.#recent, segment };
    return new PartsReading(segment, shard, from, position, maxBytes, recent);
  }

  #end({ segment, shard, end, parts, walk }: PartsReading): PartsRead {
    const last = parts.at(-1);
    const next = last === undefined ? end : last.first + last.count;
    if (last !== undefined)
      this.#places.put(segment, shard, next, Math.max(walk.position, SEGMENT_HEAD_BYTES));
    if (segment === this.#segments.at(-1) && segment.end - walk.position < FOLLOWED_BYTES) {
      this.#tipReadMs = this.#monotonicMs();
    }
    return { parts, next, release: () => walk.release() };
  }

  /** Has the segment's index points at hand; those of the segments that were asked least recently go. */
  async #index(segment: Segment): Promise<void> {
    if (segment.hasPoints) return;
    await segment.loadPoints();
    this.#indexed.push(segment);
    if (this.#indexed.length > INDEXED_SEGMENTS) this.#indexed.shift()!.dropPoints();
  }

  /** Damage is told once, however often it is read over. */
  #note(segment: Segment, extent: Extent): void {
    const known = segment.damage.some(({ from, to }) => from <= extent.from && extent.to <= to);
    if (known) return;
    segment.damage.push(extent);
    this.#onDamage(segment, extent);
  }
}

/** One read of a segment: a walk, and what was found on it so far. */
class PartsReading {
  readonly segment: Segment;
  readonly shard: number;
  readonly from: number;
  /** What is appended during the read is left to the next one. */
  readonly end: number;
  readonly file: LazyFile;
  readonly walk: EntryWalk;
  readonly parts: LogPart[] = [];
  readonly #maxBytes: number;
  #bytes = 0;
  #next: number;

  constructor(
    segment: Segment,
    shard: number,
    from: number,
    position: number,
    maxBytes: number,
    recent: RecentOf | undefined,
  ) {
    this.segment = segment;
    this.shard = shard;
    this.from = from;
    this.#next = from;
    this.#maxBytes = maxBytes;
    this.end = segment.shards.get(shard)!.next;
    this.file = new LazyFile(segment.path);
    const chunkBytes = Math.min(MAX_CHUNK_BYTES, Math.max(MIN_CHUNK_BYTES, maxBytes));
    this.walk = new EntryWalk(this.file, position, segment.end, segment.generation, chunkBytes, recent);
  }

  /** Goes on as far as it can without waiting. @returns what the walk has to do first: `fill`, or `skipDamage` */
  gather(): "done" | "read" | "damaged" {
    const { walk, parts, shard, end } = this;
    while (this.#next < end && this.#bytes < this.#maxBytes) {
      const position = walk.position;
      const entry = walk.next();
      if (entry === "end") break;
      if (entry === "read") {
        if (walk.fillFromMemory()) continue;
        return "read";
      }
      if (entry === "damaged") return "damaged";
      if (entry.kind !== ENTRY_KIND.records) continue;
      const part = entry.partOf(shard);
      if (part === undefined || part.first + part.count <= this.#next || part.first >= end) continue;
      if (parts.length > 0 && this.#bytes + part.batch.length > this.#maxBytes) {
        walk.position = position;
        return "done";
      }
      this.#bytes += part.batch.length;
      this.#next = part.first + part.count;
      parts.push(new BatchPart(part.first, part.count, entry.arrivalMs, part.batch));
      walk.keep();
    }
    return "done";
  }
}

/** Decoded for those who ask for runs; who walks the batch has no use for them. */
class BatchPart implements LogPart {
  readonly first: number;
  readonly count: number;
  readonly arrivalMs: number;
  readonly batch: Uint8Array;
  #runs: LogPart["runs"] | undefined;

  constructor(first: number, count: number, arrivalMs: number, batch: Uint8Array) {
    this.first = first;
    this.count = count;
    this.arrivalMs = arrivalMs;
    this.batch = batch;
  }

  get runs(): LogPart["runs"] {
    this.#runs ??= decodeBatch(this.batch, "trusted");
    return this.#runs;
  }
}

/** A file that is opened when something has to be read from it: at the tip, hardly ever. */
class LazyFile implements ReadableFile {
  readonly #path: string;
  #file: FileHandle | undefined;
  #reads: PastBadSectors | undefined;

  constructor(path: string) {
    this.#path = path;
  }

  async read(
    into: Buffer,
    offset: number,
    bytes: number,
    position: number,
  ): Promise<{ readonly bytesRead: number }> {
    this.#file ??= await open(this.#path, "r");
    this.#reads ??= new PastBadSectors(this.#path, this.#file);
    return this.#reads.read(into, offset, bytes, position);
  }

  async close(): Promise<void> {
    await this.#file?.close();
  }
}
