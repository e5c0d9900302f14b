/**
 * The entry of a stream's log: what one append left, whole, with one part per shard it touches.
 *
 *   0 u32 magic "HWLE" | u32 crc32c of all that follows
 *   8 u8 version | u8 kind | u8 producer kind | u8 0 | u32 entryBytes
 *  16 u64 generation | u64 number | u64 arrivalMs | u64 recordsBefore
 *  48 u32 groupOffset | u16 partCount | u16 producerBytes
 *  56 producer | parts: u32 shard, u64 first, u32 records, u32 batchBytes each | body
 *
 * All integers are big-endian. The generation names the segment, so that bytes of a file's earlier
 * life are never taken for entries. `groupOffset` is how far behind its group's start an entry
 * stands: one write and one fdatasync made the group, so damage that only entries of the same group
 * follow was never acknowledged. `recordsBefore` counts the stream's records, so that a reader
 * that had to skip knows how many it missed. A producer: entry-producer.ts.
 */

import { asBuffer, readUInt53, writeUInt53 } from "../../../protocol/record-batch.ts";
import { putU16, putU32, u16, u32 } from "../../../runtime/big-endian.ts";
import { crc32c } from "../../../runtime/crc32c.ts";
import { joinCrc32c } from "../../../runtime/crc32c-join.ts";
import { type Producer, producerAt, producerCode, producerSize, writeProducer } from "./entry-producer.ts";

export { IDENTITY_BYTES, type Producer } from "./entry-producer.ts";

export const ENTRY_VERSION = 1;
export const ENTRY_HEAD_BYTES = 56;
export const PART_BYTES = 20;
/** No append comes near; a length beyond it is damage. */
export const MAX_ENTRY_BYTES = 64 * 1_048_576;
const MAGIC = 0x48574c45;
export const MAGIC_BYTES = Buffer.from("HWLE", "latin1");
const CRC_FROM = 8;

/** `records` came in; `state` is the producer state at a segment's head; `forget` ends an epoch, or a client's session. */
export const ENTRY_KIND = { records: 1, state: 2, forget: 3 } as const;
export type EntryKind = (typeof ENTRY_KIND)[keyof typeof ENTRY_KIND];

export interface PartHead {
  readonly shard: number;
  readonly first: number;
  readonly count: number;
}

export interface Part extends PartHead {
  readonly batch: Uint8Array;
  /** The CRC-32C of the batch where it is known already: then its bytes are not read for it again. */
  readonly checksum?: number | undefined;
}

/** A part whose place is not known yet. */
export interface RoutedPart {
  readonly shard: number;
  readonly count: number;
  readonly batch: Uint8Array;
  /** As of `Part`. */
  readonly checksum?: number | undefined;
}

export interface EntryHead {
  readonly kind: EntryKind;
  readonly generation: number;
  readonly number: number;
  readonly arrivalMs: number;
  readonly recordsBefore: number;
  readonly groupOffset: number;
}

/** Bytes that `writeEntry` will take. */
export function entrySize(
  producer: Producer | undefined,
  parts: readonly { batch: Uint8Array }[],
  extraBytes = 0,
): number {
  let size = ENTRY_HEAD_BYTES + producerSize(producer) + parts.length * PART_BYTES + extraBytes;
  for (const part of parts) size += part.batch.length;
  return size;
}

/**
 * Writes an entry at `at` and returns its end.
 * @param extra the body of an entry without parts
 */
export function writeEntry(
  arena: Buffer,
  at: number,
  head: EntryHead,
  producer: Producer | undefined,
  parts: readonly Part[],
  extra?: Uint8Array,
): number {
  const producerBytes = producerSize(producer);
  putU32(arena, MAGIC, at);
  arena[at + 8] = ENTRY_VERSION;
  arena[at + 9] = head.kind;
  arena[at + 10] = producerCode(producer);
  arena[at + 11] = 0;
  writeUInt53(arena, head.generation, at + 16);
  writeUInt53(arena, head.number, at + 24);
  writeUInt53(arena, head.arrivalMs, at + 32);
  writeUInt53(arena, head.recordsBefore, at + 40);
  putU32(arena, head.groupOffset, at + 48);
  putU16(arena, parts.length, at + 52);
  putU16(arena, producerBytes, at + 54);
  let end = at + ENTRY_HEAD_BYTES;
  if (producer !== undefined) writeProducer(arena, end, producer);
  end += producerBytes;
  for (const part of parts) {
    putU32(arena, part.shard, end);
    writeUInt53(arena, part.first, end + 4);
    putU32(arena, part.count, end + 12);
    putU32(arena, part.batch.length, end + 16);
    end += PART_BYTES;
  }
  const bodyAt = end;
  for (const part of parts) {
    arena.set(part.batch, end);
    end += part.batch.length;
  }
  if (extra !== undefined) {
    arena.set(extra, end);
    end += extra.length;
  }
  putU32(arena, end - at, at + 12);
  putU32(arena, checksumOf(arena, at + CRC_FROM, bodyAt, end, parts), at + 4);
  return end;
}

function checksumOf(
  arena: Buffer,
  from: number,
  bodyAt: number,
  end: number,
  parts: readonly Part[],
): number {
  // Of one append, all are known or none.
  if (parts[0]?.checksum === undefined) return crc32c(arena, from, end);
  let checksum = crc32c(arena, from, bodyAt);
  let at = bodyAt;
  for (const part of parts) {
    const partEnd = at + part.batch.length;
    checksum =
      part.checksum === undefined
        ? crc32c(arena, at, partEnd, checksum)
        : joinCrc32c(checksum, part.checksum, partEnd - at);
    at = partEnd;
  }
  return checksum;
}

/** An entry that was found sound, over the bytes that were read. */
export class Entry {
  readonly bytes: Buffer;

  constructor(bytes: Buffer) {
    this.bytes = bytes;
  }

  get kind(): EntryKind {
    return this.bytes[9] as EntryKind;
  }
  get number(): number {
    return readUInt53(this.bytes, 24);
  }
  get arrivalMs(): number {
    return readUInt53(this.bytes, 32);
  }
  get recordsBefore(): number {
    return readUInt53(this.bytes, 40);
  }
  get groupOffset(): number {
    return u32(this.bytes, 48);
  }

  producer(): Producer | undefined {
    const at = ENTRY_HEAD_BYTES;
    return producerAt(this.bytes, this.bytes[10]!, at, at + u16(this.bytes, 54));
  }

  parts(): Part[] {
    const { table, body } = this.#places();
    const parts: Part[] = [];
    for (let at = table, from = body; at < body; at += PART_BYTES) {
      const part = this.#part(at, from);
      parts.push(part);
      from += part.batch.length;
    }
    return parts;
  }

  /** That of one shard, where it has any: an append may touch thousands. */
  partOf(shard: number): Part | undefined {
    const { table, body } = this.#places();
    for (let at = table, from = body; at < body; at += PART_BYTES) {
      if (u32(this.bytes, at) === shard) return this.#part(at, from);
      from += u32(this.bytes, at + 16);
    }
    return undefined;
  }

  /** Where the table of its parts begins, and behind it their batches. */
  #places(): { readonly table: number; readonly body: number } {
    const table = ENTRY_HEAD_BYTES + u16(this.bytes, 54);
    return { table, body: table + u16(this.bytes, 52) * PART_BYTES };
  }

  #part(at: number, from: number): Part {
    const { bytes } = this;
    return {
      shard: u32(bytes, at),
      first: readUInt53(bytes, at + 4),
      count: u32(bytes, at + 12),
      batch: bytes.subarray(from, from + u32(bytes, at + 16)),
    };
  }

  /** The body of an entry without parts. */
  extra(): Buffer {
    return this.bytes.subarray(ENTRY_HEAD_BYTES + u16(this.bytes, 54));
  }
}

/** What stands at a place: an entry, "damaged", or how many bytes must be there to tell. */
export type Found = Entry | "damaged" | number;

/**
 * @param bytes may end anywhere
 * @param generation undefined accepts any
 * @param isVerified these very bytes in memory passed their checksum before
 */
export function entryAt(
  bytes: Buffer,
  at: number,
  generation: number | undefined,
  isVerified = false,
): Found {
  const have = bytes.length - at;
  if (have < ENTRY_HEAD_BYTES) return ENTRY_HEAD_BYTES;
  if (u32(bytes, at) !== MAGIC || bytes[at + 8] !== ENTRY_VERSION) return "damaged";
  const size = u32(bytes, at + 12);
  if (size < ENTRY_HEAD_BYTES || size > MAX_ENTRY_BYTES) return "damaged";
  // The generation is looked at first: it is cheap, and keeps random bytes from asking for megabytes.
  if (generation !== undefined && generationAt(bytes, at) !== generation) return "damaged";
  if (have < size) return size;
  if (!isVerified && crc32c(bytes, at + CRC_FROM, at + size) !== u32(bytes, at + 4)) return "damaged";
  return new Entry(asBuffer(bytes.subarray(at, at + size)));
}

/** The generation that an entry at `at` claims; NaN for what can be none. */
export function generationAt(bytes: Buffer, at: number): number {
  const high = u32(bytes, at + 16);
  return high > 0x1f_ffff ? Number.NaN : high * 0x1_0000_0000 + u32(bytes, at + 20);
}
