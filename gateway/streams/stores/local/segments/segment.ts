/**
 * A segment: one file of a stream's log, and what is known of it (segment-index.ts).
 *
 *   0 u32 magic "HWSG" | u32 crc32c of bytes 8 to 63
 *   8 u32 version | u32 recycledBytes | u64 generation | u64 base (number of its first entry) | u64 createdMs
 *  40 16 bytes stream id | 8 bytes 0
 *  64 entries (log-entry.ts); the first is the stream's state
 *
 * `recycledBytes` is how long the file was when the segment began, 0 for a fresh one: what stands
 * behind the last entry of a file that is still so long may be of its earlier life.
 *
 * A segment that is no longer written gets a sidecar, so that it need not be read to be opened, and
 * keeps no index points in memory: they are read from there when somebody looks for a place.
 */
import { type FileHandle, open, readFile, unlink } from "node:fs/promises";
import { dirname, join } from "node:path";
import { readUInt53, writeUInt53 } from "../../../../../protocol/record-batch.ts";
import { crc32c } from "../../../../../runtime/crc32c.ts";
import { syncFolder, writeDurably } from "../../../../../runtime/durable.ts";
import type { PartHead } from "../../log-entry.ts";
import { PastBadSectors } from "./bad-sectors.ts";
import type { RecycledSegments } from "./recycled-segments.ts";
import {
  decodePoints,
  decodeSummary,
  type Extent,
  encodeSidecar,
  noteInSummary,
  SegmentPoints,
  type ShardSummary,
  SUMMARY_READ_BYTES,
  type Summary,
  summaryBytesOf,
} from "./segment-index.ts";

export const SEGMENT_HEAD_BYTES = 64;
const SEGMENT_VERSION = 1;
const MAGIC = 0x48575347;
const FILE_NAME = /^(\d{16})\.log$/;

export interface SegmentHead {
  readonly generation: number;
  readonly base: number;
  readonly createdMs: number;
  /** 32 hex digits. */
  readonly streamId: string;
  readonly recycledBytes: number;
}

export class Segment {
  readonly path: string;
  readonly base: number;
  readonly generation: number;
  /** How long its file was before it began; 0 for a fresh one. */
  recycledBytes = 0;
  /** By the wall clock, as its head says; 0 where that is damaged. */
  createdMs = 0;
  /** Where what is known to be on disk ends. */
  end = SEGMENT_HEAD_BYTES;
  newestMs = 0;
  records = 0;
  /** Number of the entry behind its last; known once it is closed or was scanned. */
  nextNumber = 0;
  /** The block in which it ends cannot be read, and so not be written again with what comes. */
  hasBadEnd = false;
  /** Its file is another segment's, so nothing of it is read, and neither it nor the sidecar is written: whoever puts the right one back has all. */
  isAnothers = false;
  readonly shards = new Map<number, ShardSummary>();
  readonly damage: Extent[] = [];
  /** Undefined for a segment that has a sidecar, until somebody asked for a place in it. */
  #points: SegmentPoints | undefined = new SegmentPoints();

  constructor(folder: string, base: number, generation: number) {
    this.path = join(folder, segmentName(base));
    this.base = base;
    this.generation = generation;
  }

  /** Nothing more comes into it. */
  get takesNoMore(): boolean {
    return this.hasBadEnd || this.isAnothers;
  }

  get isRecycled(): boolean {
    return this.recycledBytes > 0;
  }

  /** Notes an entry that is on disk. */
  note(position: number, arrivalMs: number, parts: readonly (PartHead & { bytes: number })[]): void {
    if (arrivalMs > this.newestMs) this.newestMs = arrivalMs;
    for (const part of parts) {
      this.records += part.count;
      noteInSummary(this.shards, part, arrivalMs);
      this.#points?.note(part.shard, part.first, position, arrivalMs, this.shards.size);
    }
  }

  /** So much stood in it when it was closed, whatever is left of that: its next sidecar tells it as well. */
  reachAsClosed({ records }: Summary): void {
    this.records = Math.max(this.records, records);
  }

  /** Whether `positionOf` and `offsetBefore` know more than the segment's beginning. */
  get hasPoints(): boolean {
    return this.#points !== undefined;
  }

  /** Reads the index points from the sidecar. Without one, places are looked for from the beginning on. */
  async loadPoints(): Promise<void> {
    const bytes = await readFile(this.sidecarPath).catch(() => undefined);
    const points = bytes === undefined ? undefined : decodePoints(bytes);
    const fits = points !== undefined && decodeSummary(bytes!)?.generation === this.generation;
    this.#points = fits ? points : new SegmentPoints();
  }

  /** The sidecar has them. */
  dropPoints(): void {
    this.#points = undefined;
  }

  /** A place at or before the entry that holds `offset`. */
  positionOf(shard: number, offset: number): number {
    return this.#points?.positionOf(shard, offset) ?? SEGMENT_HEAD_BYTES;
  }

  /** An offset at or before the first record that arrived at `arrivalMs` or later. */
  offsetBefore(shard: number, arrivalMs: number): number {
    return this.#points?.offsetBefore(shard, arrivalMs) ?? this.shards.get(shard)!.first;
  }

  get sidecarPath(): string {
    return sidecarPathOf(this.path);
  }

  /**
   * A crash leaves the old sidecar or none; both are noticed by `end` and made again.
   * @param ends of the last segment, where each shard of the log ends, by shard. Of those that it holds nothing of, and
   *   of lost records, its state entry alone would tell.
   */
  async writeSidecar(ends: readonly number[] = []): Promise<void> {
    if (this.isAnothers) return;
    const shards = new Map(this.shards);
    ends.forEach((next, shard) => {
      const known = shards.get(shard) ?? { first: next, next, records: 0, bytes: 0, newestMs: 0 };
      if (next > 0) shards.set(shard, { ...known, next: Math.max(known.next, next) });
    });
    const { base, generation, end, newestMs, records, nextNumber, damage } = this;
    const summary = { base, generation, end, newestMs, records, nextNumber, damage, shards };
    await writeDurably(this.sidecarPath, encodeSidecar(summary, this.#points ?? new SegmentPoints()));
  }

  /** Knows what the sidecar says, but for index points; false when there is none that fits the file. */
  async readSidecar(fileBytes: number): Promise<boolean> {
    const saved = await this.#loadSidecar(fileBytes);
    if (saved === undefined || this.isAnothers) return false;
    this.end = saved.end;
    this.newestMs = saved.newestMs;
    this.records = saved.records;
    this.nextNumber = saved.nextNumber;
    this.damage.push(...saved.damage);
    for (const [shard, summary] of saved.shards) {
      if (summary.first < summary.next) this.shards.set(shard, summary);
    }
    this.#points = undefined;
    return true;
  }

  async #loadSidecar(fileBytes: number): Promise<Summary | undefined> {
    const saved = await this.sidecar();
    return saved?.end === fileBytes ? saved : undefined;
  }

  /** What was written of this very segment when it was closed last; more may stand in it since. */
  async sidecar(): Promise<Summary | undefined> {
    const saved = await readSidecarOf(this.path, this.base);
    return saved?.generation === this.generation ? saved : undefined;
  }

  /**
   * The sidecar goes first, also from the disk: without its log it would tell of records that are lost.
   * @param spares may have use for the file
   */
  async remove(spares?: RecycledSegments): Promise<void> {
    await unlink(this.sidecarPath).catch(ignoreMissing);
    await syncFolder(dirname(this.path));
    if (await spares?.give(this.path).catch(() => false)) return;
    await unlink(this.path).catch(ignoreMissing);
  }
}

export function segmentName(base: number): string {
  return `${String(base).padStart(16, "0")}.log`;
}

/** The base that a file's name tells; undefined for other files. */
export function baseOf(fileName: string): number | undefined {
  const match = FILE_NAME.exec(fileName);
  return match === null ? undefined : Number(match[1]);
}

export function encodeSegmentHead(head: SegmentHead): Buffer {
  const bytes = Buffer.alloc(SEGMENT_HEAD_BYTES);
  bytes.writeUInt32BE(MAGIC, 0);
  bytes.writeUInt32BE(SEGMENT_VERSION, 8);
  bytes.writeUInt32BE(head.recycledBytes, 12);
  writeUInt53(bytes, head.generation, 16);
  writeUInt53(bytes, head.base, 24);
  writeUInt53(bytes, head.createdMs, 32);
  bytes.write(head.streamId, 40, 16, "hex");
  bytes.writeUInt32BE(crc32c(bytes, 8), 4);
  return bytes;
}

/** undefined when the bytes are no sound head. */
export function decodeSegmentHead(bytes: Buffer): SegmentHead | undefined {
  if (bytes.length < SEGMENT_HEAD_BYTES || bytes.readUInt32BE(0) !== MAGIC) return undefined;
  if (crc32c(bytes, 8, SEGMENT_HEAD_BYTES) !== bytes.readUInt32BE(4)) return undefined;
  if (bytes.readUInt32BE(8) !== SEGMENT_VERSION) return undefined;
  return {
    generation: readUInt53(bytes, 16),
    base: readUInt53(bytes, 24),
    createdMs: readUInt53(bytes, 32),
    streamId: bytes.toString("hex", 40, 56),
    recycledBytes: bytes.readUInt32BE(12),
  };
}

export function sidecarPathOf(path: string): string {
  return path.replace(/\.log$/, ".idx");
}

/** The summary beside a segment's file; undefined when there is none, or it is damaged or another's. */
export async function readSidecarOf(path: string, base: number): Promise<Summary | undefined> {
  const saved = await readSummary(sidecarPathOf(path)).catch(() => undefined);
  return saved?.base === base ? saved : undefined;
}

/** What may stand behind the last entry of a file that is so long, and was not cut when it was closed. */
export function restOf(recycledBytes: number, fileBytes: number): "zeros" | "old bytes" {
  return recycledBytes > 0 && fileBytes >= recycledBytes ? "old bytes" : "zeros";
}

export async function readSegmentHead(path: string): Promise<SegmentHead | undefined> {
  let handle: FileHandle | undefined;
  try {
    handle = await open(path, "r");
    const bytes = Buffer.alloc(SEGMENT_HEAD_BYTES);
    const { bytesRead } = await new PastBadSectors(path, handle).read(bytes, 0, SEGMENT_HEAD_BYTES, 0);
    return decodeSegmentHead(bytes.subarray(0, bytesRead));
  } finally {
    await handle?.close();
  }
}

async function readSummary(path: string): Promise<Summary | undefined> {
  const file = await open(path, "r");
  try {
    let bytes = Buffer.alloc(SUMMARY_READ_BYTES);
    const { bytesRead } = await file.read(bytes, 0, bytes.length, 0);
    const size = summaryBytesOf(bytes.subarray(0, bytesRead));
    if (size === undefined || size > (await file.stat()).size) return undefined;
    if (size > bytesRead) {
      bytes = Buffer.alloc(size);
      await file.read(bytes, 0, size, 0);
    }
    return decodeSummary(bytes);
  } finally {
    await file.close();
  }
}

function ignoreMissing(error: NodeJS.ErrnoException): void {
  if (error.code !== "ENOENT") throw error;
}
