/**
 * CBOR (RFC 8949) as AWS uses it: maps with text keys, arrays, text, bytes, numbers, and times under
 * tag 1, which AWS counts in milliseconds where §3.4.2 counts seconds. Every other tag is refused, and
 * so are depths and counts that no request of Kinesis has, before anything is allocated for them.
 */
import { HeadwaterError } from "../../../../runtime/errors.ts";

/** The deepest request has a structure in a list in a structure. */
const MAX_DEPTH = 16;
/** Values in one body. A PutRecords of 500 has under 4,000. */
const MAX_VALUES = 200_000;
const TIME_TAG = 1;
const BREAK = Symbol("break");

/** The bytes are not CBOR, or CBOR that no request of AWS has. */
export class CborError extends HeadwaterError {
  constructor(reason: string, cause?: unknown) {
    super("CBOR_MALFORMED", { message: reason, cause });
  }
}

/** A time in an answer. */
export class Timestamp {
  readonly ms: number;

  constructor(ms: number) {
    this.ms = ms;
  }

  /** What JSON.stringify takes for it. */
  toJSON(): number {
    return this.ms / 1000;
  }
}

/**
 * Maps become objects without a prototype's members, bytes Buffers (views of `bytes`), times seconds
 * with a fraction: as a body of AWS JSON has them.
 * @throws CborError
 */
export function decodeCbor(bytes: Buffer): unknown {
  const reader = new Reader(bytes);
  const value = reader.value(0);
  if (value === BREAK) throw new CborError("a break outside of anything");
  reader.end();
  return value;
}

class Reader {
  readonly #bytes: Buffer;
  #at = 0;
  #values = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  end(): void {
    if (this.#at !== this.#bytes.length) throw new CborError("bytes behind its end");
  }

  value(depth: number): unknown {
    if (depth > MAX_DEPTH) throw new CborError("nested too deeply");
    if (++this.#values > MAX_VALUES) throw new CborError("too many values");
    this.#need(1);
    const first = this.#bytes[this.#at++]!;
    const major = first >> 5;
    const info = first & 31;
    if (major === 7) return this.#simple(info);
    // RFC 8949 §3.2: of strings, arrays and maps the length may come at the end, as a break.
    const length = info === 31 && major >= 2 && major <= 5 ? undefined : this.#argument(info);
    switch (major) {
      case 0:
        return length;
      case 1:
        return -1 - length!;
      case 2:
        return length === undefined ? this.#chunks(2) : this.#take(length);
      case 3:
        return length === undefined ? text(this.#chunks(3)) : text(this.#take(length));
      case 4:
        return this.#array(length, depth);
      case 5:
        return this.#map(length, depth);
      default:
        return this.#tagged(length!, depth);
    }
  }

  #need(bytes: number): void {
    if (this.#at + bytes > this.#bytes.length) throw new CborError("cut off");
  }

  /** Lengths and integers; above 2^53 a little is lost, as no member of Kinesis goes that far. */
  #argument(info: number): number {
    if (info < 24) return info;
    if (info > 27) throw new CborError("a reserved length");
    const size = 1 << (info - 24);
    this.#need(size);
    const at = this.#at;
    this.#at += size;
    if (size === 8) return this.#bytes.readUInt32BE(at) * 0x1_0000_0000 + this.#bytes.readUInt32BE(at + 4);
    return this.#bytes.readUIntBE(at, size);
  }

  #take(length: number): Buffer {
    this.#need(length);
    const taken = this.#bytes.subarray(this.#at, this.#at + length);
    this.#at += length;
    return taken;
  }

  #chunks(major: number): Buffer {
    const chunks: Buffer[] = [];
    for (;;) {
      if (++this.#values > MAX_VALUES) throw new CborError("too many values");
      this.#need(1);
      const first = this.#bytes[this.#at++]!;
      if (first === 0xff) return Buffer.concat(chunks);
      if (first >> 5 !== major || (first & 31) === 31) throw new CborError("a string of other than strings");
      chunks.push(this.#take(this.#argument(first & 31)));
    }
  }

  #array(length: number | undefined, depth: number): unknown[] {
    // Each item takes a byte at least: what is announced must be able to come.
    if (length !== undefined) this.#need(length);
    const items: unknown[] = [];
    for (let i = 0; length === undefined || i < length; i++) {
      const item = this.value(depth + 1);
      if (item === BREAK) {
        if (length !== undefined) throw new CborError("a break in a counted array");
        break;
      }
      items.push(item);
    }
    return items;
  }

  #map(length: number | undefined, depth: number): object {
    if (length !== undefined) this.#need(length * 2);
    const members: Record<string, unknown> = Object.create(null);
    for (let i = 0; length === undefined || i < length; i++) {
      const name = this.value(depth + 1);
      if (name === BREAK) {
        if (length !== undefined) throw new CborError("a break in a counted map");
        break;
      }
      if (typeof name !== "string") throw new CborError("a map with a key that is no text");
      const value = this.value(depth + 1);
      if (value === BREAK) throw new CborError("a key without a value");
      members[name] = value;
    }
    return members;
  }

  #tagged(tag: number, depth: number): unknown {
    if (tag !== TIME_TAG) throw new CborError(`tag ${tag}`);
    const value = this.value(depth + 1);
    if (typeof value !== "number") throw new CborError("a time that is no number");
    return value / 1000;
  }

  #simple(info: number): unknown {
    switch (info) {
      case 20:
        return false;
      case 21:
        return true;
      case 22:
      case 23:
        return null;
      case 25:
        return halfFloat(this.#take(2).readUInt16BE());
      case 26:
        return this.#take(4).readFloatBE();
      case 27:
        return this.#take(8).readDoubleBE();
      case 31:
        return BREAK;
      default:
        throw new CborError("an unknown simple value");
    }
  }
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** RFC 8949 §3.1: a text string that is not UTF-8 is invalid. */
function text(bytes: Buffer): string {
  // Most are names of members: short and ASCII, and read faster one by one.
  if (bytes.length <= 32) {
    let short = "";
    let ascii = true;
    for (let i = 0; i < bytes.length; i++) {
      const code = bytes[i]!;
      if (code > 0x7f) {
        ascii = false;
        break;
      }
      short += String.fromCharCode(code);
    }
    if (ascii) return short;
  }
  try {
    return utf8.decode(bytes);
  } catch (error) {
    throw new CborError("a text that is not UTF-8", error);
  }
}

/** RFC 8949 appendix D. */
function halfFloat(half: number): number {
  const exponent = (half >> 10) & 0x1f;
  const mantissa = half & 0x3ff;
  const sign = half & 0x8000 ? -1 : 1;
  if (exponent === 0) return sign * mantissa * 2 ** -24;
  if (exponent === 31) return mantissa === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return sign * (mantissa + 1024) * 2 ** (exponent - 25);
}

/** Takes what an answer is made of: plain objects, arrays, text, numbers, booleans, null, Buffers and `Timestamp`s. */
export function encodeCbor(value: unknown): Buffer {
  const pieces: Buffer[] = [];
  put(value, pieces);
  return Buffer.concat(pieces);
}

function put(value: unknown, pieces: Buffer[]): void {
  if (value === null || value === undefined) pieces.push(Buffer.of(0xf6));
  else if (typeof value === "boolean") pieces.push(Buffer.of(value ? 0xf5 : 0xf4));
  else if (typeof value === "number") pieces.push(numberOf(value));
  else if (typeof value === "string") {
    const bytes = Buffer.from(value, "utf8");
    pieces.push(cborHead(3, bytes.length), bytes);
  } else if (value instanceof Timestamp) pieces.push(cborHead(6, TIME_TAG), numberOf(Math.round(value.ms)));
  else if (Buffer.isBuffer(value)) pieces.push(cborHead(2, value.length), value);
  else if (Array.isArray(value)) {
    pieces.push(cborHead(4, value.length));
    for (const item of value) put(item, pieces);
  } else {
    // As JSON.stringify does, members that are undefined are left out.
    const members = Object.entries(value as object).filter(([, member]) => member !== undefined);
    pieces.push(cborHead(5, members.length));
    for (const [name, member] of members) {
      put(name, pieces);
      put(member, pieces);
    }
  }
}

function numberOf(value: number): Buffer {
  if (Number.isSafeInteger(value)) return value >= 0 ? cborHead(0, value) : cborHead(1, -1 - value);
  const bytes = Buffer.allocUnsafe(9);
  bytes[0] = 0xfb;
  bytes.writeDoubleBE(value, 1);
  return bytes;
}

/** The first bytes of an item of the given major type. */
export function cborHead(major: number, argument: number): Buffer {
  const first = major << 5;
  if (argument < 24) return Buffer.of(first | argument);
  if (argument < 0x100) return Buffer.of(first | 24, argument);
  const size = argument < 0x1_0000 ? 2 : argument < 0x1_0000_0000 ? 4 : 8;
  const bytes = Buffer.alloc(1 + size);
  bytes[0] = first | (size === 2 ? 25 : size === 4 ? 26 : 27);
  if (size === 8) {
    bytes.writeUInt32BE(Math.floor(argument / 0x1_0000_0000), 1);
    bytes.writeUInt32BE(argument % 0x1_0000_0000, 5);
  } else bytes.writeUIntBE(argument, 1, size);
  return bytes;
}
