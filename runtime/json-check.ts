/**
 * Whether bytes are one JSON value (RFC 8259), without making it. `JSON.parse` takes seconds for ten MiB of
 * `[` or of `{},`, in which nobody else is served; this takes some nanoseconds a byte, of whatever kind.
 */

export interface JsonBounds {
  /** So many arrays and objects may stand in one another. */
  readonly maxDepth?: number;
  /** Arrays, objects and their members: what `JSON.parse` takes long for. Plain items of arrays are none. */
  readonly maxParts?: number;
}

/** Shorter texts are parsed in a few milliseconds, whatever stands in them. */
export const SHORT_JSON_BYTES = 16_384;

const QUOTE = 0x22;
const COMMA = 0x2c;
const MINUS = 0x2d;
const ZERO = 0x30;
const NINE = 0x39;
const COLON = 0x3a;
const BACKSLASH = 0x5c;
const ARRAY = [0x5b, 0x5d] as const;
const OBJECT = [0x7b, 0x7d] as const;
const WORDS = ["true", "false", "null"].map((word) => Buffer.from(word));
const ESCAPES = new Set(Buffer.from('"\\/bfnrt'));

/**
 * Undefined when it is JSON within the bounds, else the reason.
 * @param bytes must be UTF-8: that is not looked at
 */
export function whyNotJson(bytes: Uint8Array, bounds: JsonBounds = {}): string | undefined {
  const { maxDepth = Number.POSITIVE_INFINITY, maxParts = Number.POSITIVE_INFINITY } = bounds;
  /** What closes each array and object that is open. */
  let closers = new Uint8Array(64);
  let depth = 0;
  let parts = 0;
  let at = 0;
  for (;;) {
    at = afterSpace(bytes, at);
    const open = bytes[at] === OBJECT[0] ? OBJECT : bytes[at] === ARRAY[0] ? ARRAY : undefined;
    if (open === undefined) {
      const end = scalarEnd(bytes, at);
      if (end < 0) return unexpected(bytes, at);
      at = end;
    } else {
      if (++parts > maxParts) return tooMany(maxParts);
      if (depth >= maxDepth) return `nested deeper than ${maxDepth}`;
      if (depth === closers.length) closers = doubled(closers);
      closers[depth++] = open[1];
      at = afterSpace(bytes, at + 1);
      if (bytes[at] !== open[1]) {
        if (open === ARRAY) continue;
        if (++parts > maxParts) return tooMany(maxParts);
        const value = memberValue(bytes, at);
        if (value < 0) return unexpected(bytes, at);
        at = value;
        continue;
      }
    }
    // Behind a value, or before the end of an empty array or object.
    at = afterSpace(bytes, at);
    while (depth > 0 && bytes[at] === closers[depth - 1]) {
      depth--;
      at = afterSpace(bytes, at + 1);
    }
    if (depth === 0) return at === bytes.length ? undefined : unexpected(bytes, at);
    if (bytes[at] !== COMMA) return unexpected(bytes, at);
    at++;
    if (closers[depth - 1] === ARRAY[1]) continue;
    if (++parts > maxParts) return tooMany(maxParts);
    const value = memberValue(bytes, at);
    if (value < 0) return unexpected(bytes, at);
    at = value;
  }
}

function unexpected(bytes: Uint8Array, at: number): string {
  return at >= bytes.length ? "it ends too soon" : `wrong at byte ${at}`;
}

const tooMany = (maxParts: number): string => `more than ${maxParts} arrays, objects and members`;

function doubled(bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  const longer = new Uint8Array(bytes.length * 2);
  longer.set(bytes);
  return longer;
}

function afterSpace(bytes: Uint8Array, at: number): number {
  let end = at;
  for (let byte = bytes[end]; byte === 0x20 || (byte! >= 0x09 && byte! <= 0x0d); byte = bytes[++end]) {
    // Vertical tab and form feed are no space in JSON.
    if (byte === 0x0b || byte === 0x0c) break;
  }
  return end;
}

/** Where the value of a member begins, whose name is at `at`; -1 when there is no name or no colon. */
function memberValue(bytes: Uint8Array, at: number): number {
  const name = afterSpace(bytes, at);
  if (bytes[name] !== QUOTE) return -1;
  const end = stringEnd(bytes, name);
  if (end < 0) return -1;
  const colon = afterSpace(bytes, end);
  return bytes[colon] === COLON ? colon + 1 : -1;
}

function scalarEnd(bytes: Uint8Array, at: number): number {
  const first = bytes[at];
  if (first === QUOTE) return stringEnd(bytes, at);
  if (first === MINUS || isDigit(first)) return numberEnd(bytes, at);
  for (const word of WORDS) {
    if (word[0] === first) return word.every((byte, i) => bytes[at + i] === byte) ? at + word.length : -1;
  }
  return -1;
}

function stringEnd(bytes: Uint8Array, at: number): number {
  let end = at + 1;
  for (; end < bytes.length; end++) {
    const byte = bytes[end]!;
    if (byte === QUOTE) return end + 1;
    if (byte < 0x20) return -1;
    if (byte !== BACKSLASH) continue;
    const escaped = bytes[++end];
    if (escaped === 0x75) {
      for (let i = 0; i < 4; i++) if (!isHex(bytes[++end])) return -1;
    } else if (escaped === undefined || !ESCAPES.has(escaped)) return -1;
  }
  return -1;
}

function numberEnd(bytes: Uint8Array, at: number): number {
  let end = bytes[at] === MINUS ? at + 1 : at;
  if (bytes[end] === ZERO) end++;
  else end = digitsEnd(bytes, end);
  if (end > 0 && bytes[end] === 0x2e) end = digitsEnd(bytes, end + 1);
  if (end > 0 && (bytes[end] === 0x65 || bytes[end] === 0x45)) {
    end++;
    if (bytes[end] === 0x2b || bytes[end] === MINUS) end++;
    end = digitsEnd(bytes, end);
  }
  return end;
}

/** -1 when there is not even one. */
function digitsEnd(bytes: Uint8Array, at: number): number {
  let end = at;
  while (isDigit(bytes[end])) end++;
  return end === at ? -1 : end;
}

const isDigit = (byte: number | undefined): boolean => byte !== undefined && byte >= ZERO && byte <= NINE;

function isHex(byte: number | undefined): boolean {
  if (byte === undefined) return false;
  const lower = byte | 0x20;
  return isDigit(byte) || (lower >= 0x61 && lower <= 0x66);
}
