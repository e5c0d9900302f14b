/**
 * Records that the Kinesis Producer Library has packed into one, taken apart again:
 *
 *   F3 89 9A C2 | AggregatedRecord (protobuf) | MD5 of the protobuf, 16 bytes
 *
 *   AggregatedRecord  1 partition_key_table: repeated string
 *                     2 explicit_hash_key_table: repeated string
 *                     3 records: repeated Record
 *   Record            1 partition_key_index: uint64   2 explicit_hash_key_index: uint64
 *                     3 data: bytes                   4 tags: repeated Tag
 *   Tag               1 key: string                   2 value: string
 *
 * The log and the API keep an aggregate as it came; only our own stages look inside. What does not
 * follow the format to the last byte is no aggregate but an ordinary record, as for AWS's consumers.
 */
import { isUtf8 } from "node:buffer";
import { createHash } from "node:crypto";
import { forEachRecord, type Run } from "../../protocol/record-batch.ts";

const MAGIC = 0xf3899ac2;
const MAGIC_BYTES = 4;
const DIGEST_BYTES = 16;
/**
 * Of a message, those within its records and tags included: as many as fit into 1 MiB, as each takes two bytes, and the library
 * packs no more. They are read at once, and the event loop is everybody's.
 */
const MAX_FIELDS = 524_288;
const MAX_KEY_CHARACTERS = 256;
/** Protobuf, Encoding: wire types. */
const VARINT = 0;
const FIXED_64 = 1;
const LENGTH_DELIMITED = 2;
const FIXED_32 = 5;

/** A record as its producer made it. `data` is a view of the aggregate's bytes. */
export interface UserRecord {
  readonly partitionKey: string;
  readonly data: Buffer;
}

/** Cheap: true for what may be an aggregate, by its first bytes. */
export function looksAggregated(payload: Buffer): boolean {
  return payload.length >= MAGIC_BYTES + DIGEST_BYTES && payload.readUInt32BE(0) === MAGIC;
}

/** In the order in which they were packed, at least one; undefined when `payload` is no aggregate. */
export function userRecords(payload: Buffer): UserRecord[] | undefined {
  if (!looksAggregated(payload)) return undefined;
  const message = payload.subarray(MAGIC_BYTES, payload.length - DIGEST_BYTES);
  // The format prescribes MD5; it guards against chance, not against people.
  const digest = createHash("md5").update(message).digest();
  if (!digest.equals(payload.subarray(payload.length - DIGEST_BYTES))) return undefined;
  try {
    return readAggregate(new Reader(message));
  } catch (error) {
    if (error instanceof Malformed) return undefined;
    throw error;
  }
}

/**
 * As `forEachRecord` of protocol/record-batch.ts, but the records in an aggregate come one by one,
 * each with its own partition key.
 * @param visit `index` counts the records of the run; `sub` those within an aggregate, and is
 *   undefined for a record that is none
 */
export function forEachUserRecord(
  run: Run,
  visit: (payload: Buffer, timeUs: number, index: number, partitionKey: string, sub?: number) => void,
): void {
  forEachRecord(run, (payload, timeUs, index) => {
    const inner = looksAggregated(payload) ? userRecords(payload) : undefined;
    if (inner === undefined) return visit(payload, timeUs, index, run.key);
    for (let sub = 0; sub < inner.length; sub++) {
      const { data, partitionKey } = inner[sub]!;
      visit(data, timeUs, index, partitionKey, sub);
    }
  });
}

/** Thrown by the readers and caught above: the one way out of nested reads. */
class Malformed extends Error {}

interface PackedRecord {
  readonly keyIndex: number;
  readonly hashIndex: number | undefined;
  readonly data: Buffer;
}

function readAggregate(reader: Reader): UserRecord[] {
  const keys: string[] = [];
  let hashes = 0;
  const packed: PackedRecord[] = [];
  while (!reader.atEnd) {
    const { field, wireType } = reader.tag();
    if (field === 1) keys.push(partitionKey(reader.bytes(wireType)));
    else if (field === 2) {
      checkHash(reader.bytes(wireType));
      hashes++;
    } else if (field === 3) {
      packed.push(readRecord(reader.within(wireType)));
    } else reader.skip(wireType);
  }
  if (packed.length === 0) throw new Malformed();
  // The tables may stand behind the records, so the indexes are looked up last.
  return packed.map(({ keyIndex, hashIndex, data }) => {
    const key = keys[keyIndex];
    if (key === undefined || (hashIndex !== undefined && hashIndex >= hashes)) throw new Malformed();
    return { partitionKey: key, data };
  });
}

function readRecord(reader: Reader): PackedRecord {
  let keyIndex: number | undefined;
  let hashIndex: number | undefined;
  let data: Buffer | undefined;
  while (!reader.atEnd) {
    const { field, wireType } = reader.tag();
    if (field === 1) keyIndex = reader.index(wireType);
    else if (field === 2) hashIndex = reader.index(wireType);
    else if (field === 3) data = reader.bytes(wireType);
    else if (field === 4) checkTag(reader.within(wireType));
    else reader.skip(wireType);
  }
  if (keyIndex === undefined || data === undefined) throw new Malformed();
  return { keyIndex, hashIndex, data };
}

/** Tags are not handed on, but a broken one breaks the message. */
function checkTag(reader: Reader): void {
  let hasKey = false;
  while (!reader.atEnd) {
    const { field, wireType } = reader.tag();
    if (field === 1 || field === 2) reader.bytes(wireType);
    else reader.skip(wireType);
    hasKey ||= field === 1;
  }
  if (!hasKey) throw new Malformed();
}

function partitionKey(bytes: Buffer): string {
  if (!isUtf8(bytes)) throw new Malformed();
  const key = bytes.toString("utf8");
  if (key.length === 0 || key.length > MAX_KEY_CHARACTERS) throw new Malformed();
  return key;
}

function checkHash(bytes: Buffer): void {
  const text = bytes.length <= 39 ? bytes.toString("latin1") : "";
  if (!/^\d{1,39}$/.test(text) || BigInt(text) >= 1n << 128n) throw new Malformed();
}

/** Protobuf's wire format, as far as the message needs it. */
class Reader {
  readonly #bytes: Buffer;
  /** How many more may be read, here and within. */
  readonly #fields: { left: number };
  #at = 0;

  constructor(bytes: Buffer, fields = { left: MAX_FIELDS }) {
    this.#bytes = bytes;
    this.#fields = fields;
  }

  get atEnd(): boolean {
    return this.#at === this.#bytes.length;
  }

  tag(): { field: number; wireType: number } {
    if (this.#fields.left-- === 0) throw new Malformed();
    const tag = this.#varint();
    const field = Math.floor(tag / 8);
    // Protobuf, Encoding: field numbers have 29 bits and begin at 1.
    if (field < 1 || field >= 2 ** 29) throw new Malformed();
    return { field, wireType: tag % 8 };
  }

  index(wireType: number): number {
    if (wireType !== VARINT) throw new Malformed();
    return this.#varint();
  }

  /** A message within this one. */
  within(wireType: number): Reader {
    return new Reader(this.bytes(wireType), this.#fields);
  }

  bytes(wireType: number): Buffer {
    if (wireType !== LENGTH_DELIMITED) throw new Malformed();
    const length = this.#varint();
    return this.#take(length);
  }

  /** A field of a newer version. Groups (wire types 3 and 4) were never part of the format. */
  skip(wireType: number): void {
    if (wireType === VARINT) this.#varint();
    else if (wireType === FIXED_64) this.#take(8);
    else if (wireType === LENGTH_DELIMITED) this.bytes(wireType);
    else if (wireType === FIXED_32) this.#take(4);
    else throw new Malformed();
  }

  #take(length: number): Buffer {
    if (length > this.#bytes.length - this.#at) throw new Malformed();
    this.#at += length;
    return this.#bytes.subarray(this.#at - length, this.#at);
  }

  /** At most ten bytes; a value above 2^53 fits nothing that the format can mean. */
  #varint(): number {
    let value = 0;
    for (let i = 0; i < 10; i++) {
      const byte = this.#bytes[this.#at++];
      if (byte === undefined) throw new Malformed();
      value += (byte & 0x7f) * 2 ** (7 * i);
      if (byte < 0x80) {
        if (!Number.isSafeInteger(value)) throw new Malformed();
        return value;
      }
    }
    throw new Malformed();
  }
}
