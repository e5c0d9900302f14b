/**
 * Reads the body of a PutRecords as almost every client writes it, straight into columns: no object,
 * string or Buffer for each record. Whatever is unusual, and whatever is wrong, is left to
 * the plain way (JSON.parse and checkShape), which so is the only one that finds faults.
 *
 *   {"Records":[{"Data":"…","PartitionKey":"…","ExplicitHashKey":"…"},…],"StreamName":"…","StreamARN":"…"}
 *
 * Members may come in any order and with white space (RFC 8259 §2). Not taken: escapes, text beyond
 * ASCII, null, members twice or unknown, and anything beyond a limit.
 *
 * A client writes all its records alike. So the first is read member by member; of the next ones what
 * stands around the values is compared with the first's, and only what differs is read like it.
 */
import { MAX_HASH } from "../../../streams/streams.ts";
import { Base64Reader } from "../wire/base64-reader.ts";
import { ColumnsDraft, knownKeys } from "./columns-draft.ts";
import { MAX_KEY_CHARACTERS, MAX_RECORDS, type PutRequest } from "./put-columns.ts";

const MAX_NAME_CHARACTERS = 2_048;
const MAX_HASH_DIGITS = 39;

const SPACE = 0x20;
const QUOTE = 0x22;
const COMMA = 0x2c;
const COLON = 0x3a;
const OPEN_LIST = 0x5b;
const CLOSE_LIST = 0x5d;
const OPEN = 0x7b;
const CLOSE = 0x7d;
const BACKSLASH = 0x5c;

/** Undefined for what the plain way must look at. The columns hold until the next call. */
export function scanPutRecords(body: Buffer): PutRequest | undefined {
  return new Scanner(body).request();
}

/** Where the values of a record that was read member by member stand, without their quotes. */
interface Sample {
  from: number;
  dataFrom: number;
  dataTo: number;
  keyFrom: number;
  keyTo: number;
  to: number;
}

class Scanner {
  readonly #body: Buffer;
  readonly #view: DataView;
  readonly #blobs: Base64Reader;
  readonly #draft = new ColumnsDraft();
  #at = 0;
  readonly #sample: Sample = { from: 0, dataFrom: 0, dataTo: 0, keyFrom: 0, keyTo: 0, to: 0 };
  /** The key that was read last: its slot among the known ones, and its length, which the next often has, too. */
  #slot = 0;
  #keyBytes = 0;

  constructor(body: Buffer) {
    this.#body = body;
    this.#view = new DataView(body.buffer, body.byteOffset, body.length);
    this.#blobs = new Base64Reader(body);
  }

  request(): PutRequest | undefined {
    let streamName: string | undefined;
    let streamArn: string | undefined;
    let more = this.#take(OPEN);
    if (!more) return undefined;
    while (more) {
      if (this.#member("Records")) {
        if (this.#draft.count > 0 || !this.#records()) return undefined;
      } else if (this.#member("StreamName")) {
        if (streamName !== undefined) return undefined;
        streamName = this.#text(MAX_NAME_CHARACTERS);
        if (streamName === undefined) return undefined;
      } else if (this.#member("StreamARN")) {
        if (streamArn !== undefined) return undefined;
        streamArn = this.#text(MAX_NAME_CHARACTERS);
        if (streamArn === undefined) return undefined;
      } else return undefined;
      more = this.#take(COMMA);
    }
    if (!this.#take(CLOSE) || this.#draft.count === 0) return undefined;
    this.#skipSpace();
    if (this.#at !== this.#body.length) return undefined;
    return { columns: this.#draft.columns(this.#blobs.data), streamName, streamArn };
  }

  #records(): boolean {
    if (!this.#take(OPEN_LIST)) return false;
    do {
      if (this.#draft.count === MAX_RECORDS || !this.#record()) return false;
      if (!this.#draft.hasHashes) this.#alike();
    } while (this.#take(COMMA));
    return this.#take(CLOSE_LIST);
  }

  /** Takes the records that are written as the last one was, as far as they go. */
  #alike(): void {
    const { from, dataFrom, dataTo, keyFrom, keyTo, to } = this.#sample;
    const view = this.#view;
    const size = this.#body.length;
    const draft = this.#draft;
    const isDataFirst = dataFrom < keyFrom;
    const headBytes = (isDataFirst ? dataFrom : keyFrom) - from;
    const middleFrom = isDataFirst ? dataTo : keyTo;
    const middleBytes = (isDataFirst ? keyFrom : dataFrom) - middleFrom;
    const tailFrom = isDataFirst ? keyTo : dataTo;
    const tailBytes = to - tailFrom;
    while (draft.count < MAX_RECORDS) {
      const { dataEnd } = this.#blobs;
      let at = this.#nextRecord();
      if (areSame(view, from, at, headBytes, size)) {
        at = this.#value(isDataFirst, at + headBytes);
        if (at >= 0 && areSame(view, middleFrom, at, middleBytes, size)) {
          at = this.#value(!isDataFirst, at + middleBytes);
          if (at >= 0 && areSame(view, tailFrom, at, tailBytes, size)) {
            draft.add(this.#slot, this.#blobs.dataEnd);
            this.#at = at + tailBytes;
            continue;
          }
        }
      }
      this.#blobs.dataEnd = dataEnd;
      return;
    }
  }

  /** Where the next record begins, if there is one; Python puts a space behind the comma. */
  #nextRecord(): number {
    const body = this.#body;
    const at = this.#at;
    if (body[at] !== COMMA) return body.length;
    return body[at + 1] === SPACE ? at + 2 : at + 1;
  }

  /** The end of what begins at `at`, behind its quote: of data, or of a key, which `#slot` then tells. */
  #value(isData: boolean, at: number): number {
    return isData ? this.#blobs.read(at) : this.#keyAt(at);
  }

  #keyAt(at: number): number {
    const body = this.#body;
    const likely = at + this.#keyBytes;
    if (body[likely] === QUOTE) {
      // What is known has no quote in it, so that this one is its end.
      const slot = knownKeys.find(this.#view, at, likely, body.length);
      if (slot >= 0) {
        this.#slot = slot;
        return likely;
      }
    }
    let end = at;
    while (isPlain(body[end])) end++;
    if (body[end] !== QUOTE || end === at || end - at > MAX_KEY_CHARACTERS) return -1;
    const slot = knownKeys.find(this.#view, at, end, body.length);
    this.#slot =
      slot >= 0 ? slot : knownKeys.learn(this.#view, at, end, body.length, body.toString("latin1", at, end));
    this.#keyBytes = end - at;
    return end;
  }

  #record(): boolean {
    const sample = this.#sample;
    if (!this.#take(OPEN)) return false;
    sample.from = this.#at - 1;
    sample.dataTo = 0;
    sample.keyTo = 0;
    let hash: bigint | undefined;
    do {
      if (this.#member("Data")) {
        if (sample.dataTo > 0 || !this.#take(QUOTE)) return false;
        sample.dataFrom = this.#at;
        sample.dataTo = this.#blobs.read(this.#at);
        if (!this.#closeString(sample.dataTo)) return false;
      } else if (this.#member("PartitionKey")) {
        if (sample.keyTo > 0 || !this.#take(QUOTE)) return false;
        sample.keyFrom = this.#at;
        sample.keyTo = this.#keyAt(this.#at);
        if (!this.#closeString(sample.keyTo)) return false;
      } else if (this.#member("ExplicitHashKey")) {
        if (hash !== undefined) return false;
        hash = this.#hash();
        if (hash === undefined) return false;
      } else return false;
    } while (this.#take(COMMA));
    if (sample.dataTo === 0 || sample.keyTo === 0 || !this.#take(CLOSE)) return false;
    sample.to = this.#at;
    this.#draft.add(this.#slot, this.#blobs.dataEnd, hash);
    return true;
  }

  #skipSpace(): void {
    const body = this.#body;
    for (;;) {
      const byte = body[this.#at];
      if (byte !== SPACE && byte !== 0x0a && byte !== 0x0d && byte !== 0x09) return;
      this.#at++;
    }
  }

  #take(byte: number): boolean {
    if (this.#body[this.#at] !== byte) {
      this.#skipSpace();
      if (this.#body[this.#at] !== byte) return false;
    }
    this.#at++;
    return true;
  }

  /** Goes over `"name" :` when it is what comes next; otherwise stays. */
  #member(name: string): boolean {
    const body = this.#body;
    if (body[this.#at] !== QUOTE) this.#skipSpace();
    const at = this.#at;
    if (body[at] !== QUOTE || body[at + name.length + 1] !== QUOTE) return false;
    for (let i = 0; i < name.length; i++) if (body[at + 1 + i] !== name.charCodeAt(i)) return false;
    this.#at = at + name.length + 2;
    if (this.#take(COLON)) return true;
    this.#at = at;
    return false;
  }

  #closeString(end: number): boolean {
    if (end < 0 || this.#body[end] !== QUOTE) return false;
    this.#at = end + 1;
    return true;
  }

  /** Not empty, and of printable ASCII without an escape. */
  #text(maxCharacters: number): string | undefined {
    if (!this.#take(QUOTE)) return undefined;
    const from = this.#at;
    let end = from;
    while (isPlain(this.#body[end])) end++;
    if (end === from || end - from > maxCharacters || !this.#closeString(end)) return undefined;
    return this.#body.toString("latin1", from, end);
  }

  #hash(): bigint | undefined {
    const text = this.#text(MAX_HASH_DIGITS);
    if (text === undefined || !/^(?:0|[1-9]\d*)$/.test(text)) return undefined;
    const hash = BigInt(text);
    return hash <= MAX_HASH ? hash : undefined;
  }
}

/** Printable ASCII that stands for itself in a string. */
function isPlain(byte: number | undefined): boolean {
  return byte !== undefined && byte >= SPACE && byte <= 0x7e && byte !== QUOTE && byte !== BACKSLASH;
}

/** Whether the same bytes stand at `a` and at `b`, where they may run over the end of all. */
function areSame(view: DataView, a: number, b: number, bytes: number, end: number): boolean {
  if (b + bytes > end) return false;
  let i = 0;
  for (; i + 4 <= bytes; i += 4) if (view.getInt32(a + i) !== view.getInt32(b + i)) return false;
  for (; i < bytes; i++) if (view.getUint8(a + i) !== view.getUint8(b + i)) return false;
  return true;
}
