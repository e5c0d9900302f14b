/**
 * Reads the body of a PutRecords as almost every client writes it, straight into columns: no object,
 * string or Buffer for each record but its key. Whatever is unusual, and whatever is wrong, is left to
 * the plain way (JSON.parse and checkShape), which so is the only one that finds faults.
 *
 *   {"Records":[{"Data":"…","PartitionKey":"…","ExplicitHashKey":"…"},…],"StreamName":"…","StreamARN":"…"}
 *
 * Members may come in any order and with white space (RFC 8259 §2). Not taken: escapes, text beyond
 * ASCII, null, members twice or unknown, and anything beyond a limit.
 */
import { MAX_HASH } from "../../streams/streams.ts";
import { decodeBase64 } from "./base64-bytes.ts";
import { MAX_KEY_CHARACTERS, MAX_RECORDS, type PutRequest } from "./put-columns.ts";

const MAX_NAME_CHARACTERS = 2_048;
const MAX_HASH_DIGITS = 39;

const QUOTE = 0x22;
const COMMA = 0x2c;
const COLON = 0x3a;
const OPEN_LIST = 0x5b;
const CLOSE_LIST = 0x5d;
const OPEN = 0x7b;
const CLOSE = 0x7d;
const BACKSLASH = 0x5c;

/** Undefined for what the plain way must look at. */
export function scanPutRecords(body: Buffer): PutRequest | undefined {
  return new Scanner(body).request();
}

class Scanner {
  readonly #body: Buffer;
  #at = 0;
  readonly #data: Buffer;
  #dataEnd = 0;
  readonly #ends: number[] = [];
  readonly #keys: string[] = [];
  #hashes: (bigint | undefined)[] | undefined;
  /** Where the last key stood: keys often repeat, and comparing bytes is cheaper than making a string. */
  #keyFrom = 0;
  #keyTo = 0;

  constructor(body: Buffer) {
    this.#body = body;
    // All data together is at most three quarters of the body.
    this.#data = Buffer.allocUnsafe(Math.ceil((body.length * 3) / 4) + 3);
  }

  request(): PutRequest | undefined {
    let streamName: string | undefined;
    let streamArn: string | undefined;
    let more = this.#take(OPEN);
    if (!more) return undefined;
    while (more) {
      if (this.#member("Records")) {
        if (this.#keys.length > 0 || !this.#records()) return undefined;
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
    if (!this.#take(CLOSE) || this.#keys.length === 0) return undefined;
    this.#skipSpace();
    if (this.#at !== this.#body.length) return undefined;
    const columns = {
      count: this.#keys.length,
      keys: this.#keys,
      hashes: this.#hashes,
      data: this.#data.subarray(0, this.#dataEnd),
      ends: Uint32Array.from(this.#ends),
    };
    return { columns, streamName, streamArn };
  }

  #records(): boolean {
    if (!this.#take(OPEN_LIST)) return false;
    do {
      if (this.#keys.length === MAX_RECORDS || !this.#record()) return false;
    } while (this.#take(COMMA));
    return this.#take(CLOSE_LIST);
  }

  #record(): boolean {
    if (!this.#take(OPEN)) return false;
    let hasData = false;
    let key: string | undefined;
    let hash: bigint | undefined;
    do {
      if (this.#member("Data")) {
        if (hasData || !this.#blob()) return false;
        hasData = true;
      } else if (this.#member("PartitionKey")) {
        if (key !== undefined) return false;
        key = this.#key();
        if (key === undefined) return false;
      } else if (this.#member("ExplicitHashKey")) {
        if (hash !== undefined) return false;
        hash = this.#hash();
        if (hash === undefined) return false;
      } else return false;
    } while (this.#take(COMMA));
    if (!hasData || key === undefined) return false;
    if (hash !== undefined) this.#hashes ??= this.#keys.map(() => undefined);
    this.#hashes?.push(hash);
    this.#keys.push(key);
    return this.#take(CLOSE);
  }

  #skipSpace(): void {
    const body = this.#body;
    for (;;) {
      const byte = body[this.#at];
      if (byte !== 0x20 && byte !== 0x0a && byte !== 0x0d && byte !== 0x09) return;
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

  /** The end of the string that begins here, with `#at` at its first character; -1 when there is none. */
  #openString(): number {
    return this.#take(QUOTE) ? this.#body.indexOf(QUOTE, this.#at) : -1;
  }

  #blob(): boolean {
    const end = this.#openString();
    if (end < 0) return false;
    this.#dataEnd = decodeBase64(this.#body, this.#at, end, this.#data, this.#dataEnd);
    if (this.#dataEnd < 0) return false;
    this.#ends.push(this.#dataEnd);
    this.#at = end + 1;
    return true;
  }

  #key(): string | undefined {
    const from = this.#at;
    const end = this.#openString();
    if (end < 0) return undefined;
    const first = this.#at;
    const length = end - first;
    if (length === this.#keyTo - this.#keyFrom && this.#isLastKey(first, length)) {
      this.#at = end + 1;
      return this.#keys[this.#keys.length - 1];
    }
    this.#at = from;
    const key = this.#text(MAX_KEY_CHARACTERS);
    this.#keyFrom = first;
    this.#keyTo = end;
    return key;
  }

  #isLastKey(at: number, length: number): boolean {
    if (this.#keys.length === 0) return false;
    const body = this.#body;
    const last = this.#keyFrom;
    for (let i = 0; i < length; i++) if (body[at + i] !== body[last + i]) return false;
    return true;
  }

  /** Not empty, and of printable ASCII without an escape. */
  #text(maxCharacters: number): string | undefined {
    const end = this.#openString();
    const from = this.#at;
    if (end <= from || end - from > maxCharacters) return undefined;
    const body = this.#body;
    for (let i = from; i < end; i++) {
      const byte = body[i]!;
      if (byte < 0x20 || byte > 0x7e || byte === BACKSLASH) return undefined;
    }
    this.#at = end + 1;
    return body.toString("latin1", from, end);
  }

  #hash(): bigint | undefined {
    const text = this.#text(MAX_HASH_DIGITS);
    if (text === undefined || !/^(?:0|[1-9]\d*)$/.test(text)) return undefined;
    const hash = BigInt(text);
    return hash <= MAX_HASH ? hash : undefined;
  }
}
