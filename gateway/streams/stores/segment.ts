/**
 * A segment: one file of a stream's log, and the sparse index of what stands in it.
 *
 *   0 u32 magic "HWSG" | u32 crc32c of bytes 8 to 63
 *   8 u32 version | u32 recycledBytes | u64 generation | u64 base (number of its first entry) | u64 createdMs
 *  40 16 bytes stream id | 8 bytes 0
 *  64 entries (log-entry.ts); the first is the stream's state
 *
 * `recycledBytes` is how long the file was when the segment began, 0 for a fresh one: what stands
 * behind the last entry of a file that is still so long may be of its earlier life.
 *
 * A segment that is no longer written gets a sidecar, `.idx`, so that it need not be read to be
 * opened. The sidecar is a copy of what the segment says: missing or damaged, it is made again.
 */
import { type FileHandle, open, readFile, unlink } from "node:fs/promises";
import { join } from "node:path";
import { readUInt53, writeUInt53 } from "../../../protocol/record-batch.ts";
import { crc32c } from "../../../runtime/crc32c.ts";
import { writeDurably } from "../../../runtime/durable.ts";
import type { PartHead } from "./log-entry.ts";
import type { RecycledSegments } from "./recycled-segments.ts";

export const SEGMENT_HEAD_BYTES = 64;
const SEGMENT_VERSION = 1;
const MAGIC = 0x48575347;
/** One index point of a shard per so many bytes of the segment; more where many shards would make many points. */
const POINT_BYTES = 64 * 1024;
const SHARDS_OF_FULL_DENSITY = 4;
const FILE_NAME = /^(\d{16})\.log$/;

export interface SegmentHead {
  readonly generation: number;
  readonly base: number;
  readonly createdMs: number;
  /** 32 hex digits. */
  readonly streamId: string;
  readonly recycledBytes: number;
}

/** What a segment holds of one shard. */
export interface ShardIndex {
  readonly first: number;
  next: number;
  records: number;
  bytes: number;
  newestMs: number;
  /** Offset, position in the file and arrival of some entries, rising in all three. */
  readonly offsets: number[];
  readonly positions: number[];
  readonly arrivals: number[];
}

/** Bytes that are no entries, from `from` up to, not including, `to`. */
export interface Extent {
  readonly from: number;
  readonly to: number;
}

/** What a sidecar says. */
interface Sidecar {
  readonly base: number;
  readonly generation: number;
  readonly end: number;
  readonly newestMs: number;
  readonly records: number;
  readonly nextNumber: number;
  readonly damage: readonly Extent[];
  readonly shards: ReadonlyArray<readonly [number, ShardIndex]>;
}

export class Segment {
  readonly path: string;
  readonly base: number;
  readonly generation: number;
  /** How long its file was before it began; 0 for a fresh one. */
  recycledBytes = 0;
  /** Where what is known to be on disk ends. */
  end = SEGMENT_HEAD_BYTES;
  newestMs = 0;
  records = 0;
  /** Number of the entry behind its last; known once it is closed or was scanned. */
  nextNumber = 0;
  readonly shards = new Map<number, ShardIndex>();
  readonly damage: Extent[] = [];

  constructor(folder: string, base: number, generation: number) {
    this.path = join(folder, segmentName(base));
    this.base = base;
    this.generation = generation;
  }

  get isRecycled(): boolean {
    return this.recycledBytes > 0;
  }

  /** Notes an entry that is on disk. */
  note(position: number, arrivalMs: number, parts: readonly (PartHead & { bytes: number })[]): void {
    if (arrivalMs > this.newestMs) this.newestMs = arrivalMs;
    const spacing = POINT_BYTES * Math.max(1, this.shards.size / SHARDS_OF_FULL_DENSITY);
    for (const part of parts) {
      this.records += part.count;
      let shard = this.shards.get(part.shard);
      if (shard === undefined) {
        shard = {
          first: part.first,
          next: part.first,
          records: 0,
          bytes: 0,
          newestMs: 0,
          offsets: [],
          positions: [],
          arrivals: [],
        };
        this.shards.set(part.shard, shard);
      }
      const last = shard.positions.at(-1);
      if (last === undefined || position - last >= spacing) {
        shard.offsets.push(part.first);
        shard.positions.push(position);
        shard.arrivals.push(arrivalMs);
      }
      shard.next = part.first + part.count;
      shard.records += part.count;
      shard.bytes += part.bytes;
      shard.newestMs = arrivalMs;
    }
  }

  /** A place at or before the entry that holds `offset`. */
  positionOf(shard: number, offset: number): number {
    const index = this.shards.get(shard);
    if (index === undefined) return SEGMENT_HEAD_BYTES;
    return index.positions[lastAtMost(index.offsets, offset)] ?? SEGMENT_HEAD_BYTES;
  }

  /** An offset at or before the first record that arrived at `arrivalMs` or later. */
  offsetBefore(shard: number, arrivalMs: number): number {
    const index = this.shards.get(shard)!;
    return index.offsets[lastAtMost(index.arrivals, arrivalMs - 1)] ?? index.first;
  }

  get sidecarPath(): string {
    return this.path.replace(/\.log$/, ".idx");
  }

  /** A crash leaves the old sidecar or none; both are noticed by `end` and made again. */
  async writeSidecar(): Promise<void> {
    const sidecar: Sidecar = {
      base: this.base,
      generation: this.generation,
      end: this.end,
      newestMs: this.newestMs,
      records: this.records,
      nextNumber: this.nextNumber,
      damage: this.damage,
      shards: [...this.shards],
    };
    const body = JSON.stringify(sidecar);
    await writeDurably(
      this.sidecarPath,
      `${crc32c(Buffer.from(body)).toString(16).padStart(8, "0")}\n${body}`,
    );
  }

  /** Fills the index from the sidecar; false when there is none that fits the file. */
  async readSidecar(fileBytes: number): Promise<boolean> {
    const saved = await this.#loadSidecar(fileBytes);
    if (saved === undefined) return false;
    this.end = saved.end;
    this.newestMs = saved.newestMs;
    this.records = saved.records;
    this.nextNumber = saved.nextNumber;
    this.damage.push(...saved.damage);
    for (const [shard, index] of saved.shards) this.shards.set(shard, index);
    return true;
  }

  async sidecarFits(fileBytes: number): Promise<boolean> {
    return (await this.#loadSidecar(fileBytes)) !== undefined;
  }

  async #loadSidecar(fileBytes: number): Promise<Sidecar | undefined> {
    let text: string;
    try {
      text = await readFile(this.sidecarPath, "utf8");
    } catch {
      return undefined;
    }
    const body = text.slice(9);
    if (crc32c(Buffer.from(body)) !== Number.parseInt(text.slice(0, 8), 16)) return undefined;
    const saved = JSON.parse(body) as Sidecar;
    const fits = saved.base === this.base && saved.generation === this.generation && saved.end === fileBytes;
    return fits ? saved : undefined;
  }

  /**
   * The sidecar goes first: without its log it would be taken for a leftover.
   * @param spares may have use for the file
   */
  async remove(spares?: RecycledSegments): Promise<void> {
    await unlink(this.sidecarPath).catch(ignoreMissing);
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

/** Whether bytes of an earlier life may stand behind the last entry of a file that is so long. */
export function mayHoldOldBytes(recycledBytes: number, fileBytes: number): boolean {
  return recycledBytes > 0 && fileBytes >= recycledBytes;
}

export async function readSegmentHead(path: string): Promise<SegmentHead | undefined> {
  let handle: FileHandle | undefined;
  try {
    handle = await open(path, "r");
    const bytes = Buffer.alloc(SEGMENT_HEAD_BYTES);
    const { bytesRead } = await handle.read(bytes, 0, SEGMENT_HEAD_BYTES, 0);
    return decodeSegmentHead(bytes.subarray(0, bytesRead));
  } finally {
    await handle?.close();
  }
}

/** Index of the last value that is at most `limit`; -1 when all are above. */
function lastAtMost(values: readonly number[], limit: number): number {
  let low = -1;
  let high = values.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (values[middle]! <= limit) low = middle;
    else high = middle - 1;
  }
  return low;
}

function ignoreMissing(error: NodeJS.ErrnoException): void {
  if (error.code !== "ENOENT") throw error;
}
