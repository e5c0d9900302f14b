/**
 * As put-scanner.ts, for bodies in CBOR (RFC 8949) as SDKs write them: maps and arrays counted or up
 * to a break, texts and bytes counted, in the shortest form. Payloads are taken as they are. What
 * differs, and what is wrong, is left to the plain way (decodeCbor and checkShape).
 */
import { MAX_HASH } from "../../../streams/streams.ts";
import { ColumnsDraft, knownKeys } from "./columns-draft.ts";
import { MAX_KEY_CHARACTERS, MAX_RECORDS, type PutRequest } from "./put-columns.ts";

const MAX_NAME_CHARACTERS = 2_048;
const MAX_HASH_DIGITS = 39;
/** Bodies of up to this are put together in memory that is used again. */
const KEPT_BYTES = 1_048_576;

const [BYTES, TEXT, ARRAY, MAP] = [2, 3, 4, 5];
const INDEFINITE = 31;
const BREAK = 0xff;
/** The count of what ends with a break. */
const UNTIL_BREAK = -1;

const named = (name: string): Buffer => Buffer.from([(TEXT << 5) | name.length, ...Buffer.from(name)]);
const RECORDS = named("Records");
const STREAM_NAME = named("StreamName");
const STREAM_ARN = named("StreamARN");
const DATA = named("Data");
const PARTITION_KEY = named("PartitionKey");
const EXPLICIT_HASH_KEY = named("ExplicitHashKey");

const kept = Buffer.allocUnsafeSlow(KEPT_BYTES);

/** Undefined for what the plain way must look at. The columns hold until the next call. */
export function scanCborPutRecords(body: Buffer): PutRequest | undefined {
  return new Scanner(body).request();
}

class Scanner {
  readonly #body: Buffer;
  readonly #view: DataView;
  readonly #draft = new ColumnsDraft();
  /** The body once more; payloads are moved together at its beginning. */
  readonly #data: Buffer;
  #dataEnd = 0;
  #at = 0;
  /** What `#head` read: a length, or a count. */
  #length = 0;

  constructor(body: Buffer) {
    this.#body = body;
    this.#view = new DataView(body.buffer, body.byteOffset, body.length);
    this.#data = body.length <= KEPT_BYTES ? kept : Buffer.allocUnsafe(body.length);
    body.copy(this.#data);
  }

  request(): PutRequest | undefined {
    let streamName: string | undefined;
    let streamArn: string | undefined;
    if (!this.#head(MAP)) return undefined;
    let left = this.#length;
    while (this.#more(left--)) {
      if (this.#is(RECORDS)) {
        if (this.#draft.count > 0 || !this.#records()) return undefined;
      } else if (this.#is(STREAM_NAME)) {
        if (streamName !== undefined) return undefined;
        streamName = this.#text(MAX_NAME_CHARACTERS);
        if (streamName === undefined) return undefined;
      } else if (this.#is(STREAM_ARN)) {
        if (streamArn !== undefined) return undefined;
        streamArn = this.#text(MAX_NAME_CHARACTERS);
        if (streamArn === undefined) return undefined;
      } else return undefined;
    }
    if (this.#at !== this.#body.length || this.#draft.count === 0) return undefined;
    return { columns: this.#draft.columns(this.#data), streamName, streamArn };
  }

  #records(): boolean {
    if (!this.#head(ARRAY)) return false;
    let left = this.#length;
    while (this.#more(left--)) if (this.#draft.count === MAX_RECORDS || !this.#record()) return false;
    return true;
  }

  #record(): boolean {
    if (!this.#head(MAP)) return false;
    let left = this.#length;
    let hasData = false;
    let slot = -1;
    let hash: bigint | undefined;
    while (this.#more(left--)) {
      if (this.#is(DATA)) {
        if (hasData || !this.#payload()) return false;
        hasData = true;
      } else if (this.#is(PARTITION_KEY)) {
        if (slot >= 0) return false;
        slot = this.#key();
        if (slot < 0) return false;
      } else if (this.#is(EXPLICIT_HASH_KEY)) {
        if (hash !== undefined) return false;
        hash = this.#hash();
        if (hash === undefined) return false;
      } else return false;
    }
    if (!hasData || slot < 0) return false;
    this.#draft.add(slot, this.#dataEnd, hash);
    return true;
  }

  /** Whether another item comes; goes over the break behind the last. */
  #more(left: number): boolean {
    if (left >= 0) return left > 0;
    if (this.#body[this.#at] !== BREAK) return true;
    this.#at++;
    return false;
  }

  /** Goes over a name when it is what comes next. */
  #is(name: Buffer): boolean {
    const body = this.#body;
    const at = this.#at;
    const { length } = name;
    for (let i = 0; i < length; i++) if (body[at + i] !== name[i]) return false;
    this.#at = at + length;
    return true;
  }

  /** RFC 8949 §3: goes over the head of an item of this type, and leaves what it counts in `#length`. */
  #head(type: number): boolean {
    const body = this.#body;
    const at = this.#at;
    const first = body[at];
    if (first === undefined || first >> 5 !== type) return false;
    const info = first & 31;
    if (info < 24) {
      this.#length = info;
      this.#at = at + 1;
    } else if (info === 24 && at + 2 <= body.length) {
      this.#length = body[at + 1]!;
      this.#at = at + 2;
    } else if (info === 25 && at + 3 <= body.length) {
      this.#length = this.#view.getUint16(at + 1);
      this.#at = at + 3;
    } else if (info === 26 && at + 5 <= body.length) {
      this.#length = this.#view.getUint32(at + 1);
      this.#at = at + 5;
    } else if (info === INDEFINITE && (type === ARRAY || type === MAP)) {
      this.#length = UNTIL_BREAK;
      this.#at = at + 1;
    } else return false;
    return true;
  }

  #payload(): boolean {
    if (!this.#head(BYTES)) return false;
    const from = this.#at;
    const end = from + this.#length;
    if (end > this.#body.length) return false;
    // What was read is behind what is written, as every payload has a head.
    this.#data.copyWithin(this.#dataEnd, from, end);
    this.#dataEnd += this.#length;
    this.#at = end;
    return true;
  }

  /** The slot of a key among the known ones; -1 for what the plain way must look at. */
  #key(): number {
    if (!this.#head(TEXT)) return -1;
    const from = this.#at;
    const end = from + this.#length;
    const size = this.#body.length;
    if (end === from || end - from > MAX_KEY_CHARACTERS || end > size) return -1;
    this.#at = end;
    const slot = knownKeys.find(this.#view, from, end, size);
    if (slot >= 0) return slot;
    if (!isPrintable(this.#body, from, end)) return -1;
    return knownKeys.learn(this.#view, from, end, size, this.#body.toString("latin1", from, end));
  }

  /** Not empty, and of printable ASCII. */
  #text(maxCharacters: number): string | undefined {
    if (!this.#head(TEXT)) return undefined;
    const from = this.#at;
    const end = from + this.#length;
    if (end === from || end - from > maxCharacters || end > this.#body.length) return undefined;
    if (!isPrintable(this.#body, from, end)) return undefined;
    this.#at = end;
    return this.#body.toString("latin1", from, end);
  }

  #hash(): bigint | undefined {
    const text = this.#text(MAX_HASH_DIGITS);
    if (text === undefined || !/^(?:0|[1-9]\d*)$/.test(text)) return undefined;
    const hash = BigInt(text);
    return hash <= MAX_HASH ? hash : undefined;
  }
}

function isPrintable(bytes: Buffer, from: number, end: number): boolean {
  for (let i = from; i < end; i++) if (bytes[i]! < 0x20 || bytes[i]! > 0x7e) return false;
  return true;
}
