/**
 * What is known of a segment without reading it: a summary of each shard in memory, and index points
 * of which a segment that is no longer written keeps none. Both lie in its sidecar, `.idx`:
 *
 *   0 u32 magic "HWIX" | u32 crc32c of bytes 8 up to the points | u32 version | u32 bytes up to the points
 *  16 f64 base, generation, end, newestMs, records, nextNumber | u32 damaged extents | u32 shards
 *  72 damage: f64 from, to each | shards: f64 index, first, next, records, bytes, newestMs, points each
 *     points of one shard after the other: f64 offsets…, positions…, arrivals…, u32 crc32c of these
 *
 * A sidecar is a copy of what the segment says: missing, damaged or of another version, it is made again.
 */
import { crc32c } from "../../../../../runtime/crc32c.ts";
import type { PartHead } from "../../log-entry.ts";

const MAGIC = 0x48574958;
const VERSION = 2;
const HEAD_BYTES = 72;
const EXTENT_BYTES = 16;
const SHARD_BYTES = 56;
/** One index point of a shard per so many bytes of the segment; more where many shards would make many points. */
const POINT_BYTES = 64 * 1024;
const SHARDS_OF_FULL_DENSITY = 4;
/** Read first of a sidecar: the summary of a few shards, whole. */
export const SUMMARY_READ_BYTES = 4_096;

/** Bytes that are no entries, from `from` up to, not including, `to`. */
export interface Extent {
  readonly from: number;
  readonly to: number;
}

/** What a segment holds of one shard. */
export interface ShardSummary {
  readonly first: number;
  next: number;
  records: number;
  bytes: number;
  newestMs: number;
}

/** Offset, position in the file and arrival of some entries of a shard, rising in all three. */
export interface Points {
  readonly offsets: number[];
  readonly positions: number[];
  readonly arrivals: number[];
}

export interface Summary {
  readonly base: number;
  readonly generation: number;
  readonly end: number;
  readonly newestMs: number;
  readonly records: number;
  readonly nextNumber: number;
  readonly damage: readonly Extent[];
  readonly shards: ReadonlyMap<number, ShardSummary>;
}

/** The index points of all shards of one segment, while entries are noted or a reader looks for a place. */
export class SegmentPoints {
  readonly #shards = new Map<number, Points>();

  /** @param shards how many the segment has entries of so far */
  note(shard: number, offset: number, position: number, arrivalMs: number, shards: number): void {
    const points = this.#of(shard);
    const last = points.positions.at(-1);
    const spacing = POINT_BYTES * Math.max(1, shards / SHARDS_OF_FULL_DENSITY);
    if (last !== undefined && position - last < spacing) return;
    points.offsets.push(offset);
    points.positions.push(position);
    points.arrivals.push(arrivalMs);
  }

  /** The position of an entry at or before the one that holds `offset`; undefined when none is known. */
  positionOf(shard: number, offset: number): number | undefined {
    const points = this.#shards.get(shard);
    return points?.positions[lastAtMost(points.offsets, offset)];
  }

  /** An offset at or before the first record that arrived at `arrivalMs` or later; undefined when none is known. */
  offsetBefore(shard: number, arrivalMs: number): number | undefined {
    const points = this.#shards.get(shard);
    return points?.offsets[lastAtMost(points.arrivals, arrivalMs - 1)];
  }

  pointsOf(shard: number): Points | undefined {
    return this.#shards.get(shard);
  }

  add(shard: number, points: Points): void {
    this.#shards.set(shard, points);
  }

  #of(shard: number): Points {
    let points = this.#shards.get(shard);
    if (points === undefined) {
      points = { offsets: [], positions: [], arrivals: [] };
      this.#shards.set(shard, points);
    }
    return points;
  }
}

/** Notes one part of an entry in the summary of its shard. */
export function noteInSummary(
  shards: Map<number, ShardSummary>,
  part: PartHead & { readonly bytes: number },
  arrivalMs: number,
): void {
  let shard = shards.get(part.shard);
  if (shard === undefined) {
    shard = { first: part.first, next: part.first, records: 0, bytes: 0, newestMs: 0 };
    shards.set(part.shard, shard);
  }
  shard.next = part.first + part.count;
  shard.records += part.count;
  shard.bytes += part.bytes;
  shard.newestMs = arrivalMs;
}

export function encodeSidecar(summary: Summary, points: SegmentPoints): Buffer {
  const { damage, shards } = summary;
  const counts = Array.from(shards.keys(), (shard) => points.pointsOf(shard)?.offsets.length ?? 0);
  const summaryBytes = HEAD_BYTES + damage.length * EXTENT_BYTES + shards.size * SHARD_BYTES;
  const pointBytes = counts.reduce((sum, count) => sum + count * 24, 0);
  const bytes = Buffer.alloc(summaryBytes + pointBytes + 4);
  let at = 16;
  const put = (...values: readonly number[]): void => {
    for (const value of values) at = bytes.writeDoubleBE(value, at);
  };
  bytes.writeUInt32BE(MAGIC, 0);
  bytes.writeUInt32BE(VERSION, 8);
  bytes.writeUInt32BE(summaryBytes, 12);
  put(summary.base, summary.generation, summary.end, summary.newestMs, summary.records, summary.nextNumber);
  at = bytes.writeUInt32BE(damage.length, at);
  at = bytes.writeUInt32BE(shards.size, at);
  for (const { from, to } of damage) put(from, to);
  let nth = 0;
  for (const [index, { first, next, records, bytes: held, newestMs }] of shards) {
    put(index, first, next, records, held, newestMs, counts[nth++]!);
  }
  for (const shard of shards.keys()) {
    const found = points.pointsOf(shard);
    if (found === undefined) continue;
    for (const values of [found.offsets, found.positions, found.arrivals])
      for (const value of values) put(value);
  }
  bytes.writeUInt32BE(crc32c(bytes, 8, summaryBytes), 4);
  bytes.writeUInt32BE(crc32c(bytes, summaryBytes, at), at);
  return bytes;
}

/** How many bytes from the start hold the summary; undefined for what is no sidecar. */
export function summaryBytesOf(bytes: Buffer): number | undefined {
  if (bytes.length < HEAD_BYTES || bytes.readUInt32BE(0) !== MAGIC || bytes.readUInt32BE(8) !== VERSION) {
    return undefined;
  }
  const size = bytes.readUInt32BE(12);
  const expected = HEAD_BYTES + bytes.readUInt32BE(64) * EXTENT_BYTES + bytes.readUInt32BE(68) * SHARD_BYTES;
  return size === expected ? size : undefined;
}

/** @param bytes the summary, whole; undefined when it is damaged */
export function decodeSummary(bytes: Buffer): Summary | undefined {
  const size = summaryBytesOf(bytes);
  if (size === undefined || bytes.length < size) return undefined;
  if (crc32c(bytes, 8, size) !== bytes.readUInt32BE(4)) return undefined;
  const number = (at: number): number => bytes.readDoubleBE(at);
  const damage: Extent[] = [];
  const shards = new Map<number, ShardSummary>();
  let at = HEAD_BYTES;
  for (let left = bytes.readUInt32BE(64); left > 0; left--, at += EXTENT_BYTES) {
    damage.push({ from: number(at), to: number(at + 8) });
  }
  for (; at < size; at += SHARD_BYTES) {
    shards.set(number(at), {
      first: number(at + 8),
      next: number(at + 16),
      records: number(at + 24),
      bytes: number(at + 32),
      newestMs: number(at + 40),
    });
  }
  return {
    base: number(16),
    generation: number(24),
    end: number(32),
    newestMs: number(40),
    records: number(48),
    nextNumber: number(56),
    damage,
    shards,
  };
}

/** @param bytes a whole sidecar; undefined when it or its points are damaged */
export function decodePoints(bytes: Buffer): SegmentPoints | undefined {
  const summary = decodeSummary(bytes);
  if (summary === undefined) return undefined;
  const summaryBytes = summaryBytesOf(bytes)!;
  const end = bytes.length - 4;
  if (end < summaryBytes || crc32c(bytes, summaryBytes, end) !== bytes.readUInt32BE(end)) return undefined;
  const points = new SegmentPoints();
  let at = summaryBytes;
  let countAt = HEAD_BYTES + summary.damage.length * EXTENT_BYTES + 48;
  for (const shard of summary.shards.keys()) {
    const count = bytes.readDoubleBE(countAt);
    countAt += SHARD_BYTES;
    const take = (): number[] => {
      const values = Array.from({ length: count }, (_, i) => bytes.readDoubleBE(at + i * 8));
      at += count * 8;
      return values;
    };
    if (at + count * 24 > end) return undefined;
    points.add(shard, { offsets: take(), positions: take(), arrivals: take() });
  }
  return points;
}

/** The place of the last value that is at most `limit`; -1 when all are larger. */
function lastAtMost(values: readonly number[], limit: number): number {
  let low = 0;
  let high = values.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (values[middle]! <= limit) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}
