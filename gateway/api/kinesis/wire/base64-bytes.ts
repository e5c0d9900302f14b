/**
 * Base64 (RFC 4648 §4) straight from the bytes of a body, strictly: padded, no other character, and
 * nothing in the bits that the padding leaves over. `toBlob` of shape.ts is the plain way; it also
 * tells what is wrong.
 */
const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const PAD = 0x3d;
/** Above six bits, so that one look at all values of a text tells whether any was wrong. */
const WRONG = 0x80;

const values = new Uint8Array(256).fill(WRONG);
for (let i = 0; i < ALPHABET.length; i++) values[ALPHABET.charCodeAt(i)] = i;

/**
 * Decodes `from[at, end)` to `to[toAt…]`, which must have room for three bytes of each four.
 * @returns where the decoded bytes end, or -1 when it is no base64
 */
export function decodeBase64(
  from: Uint8Array,
  at: number,
  end: number,
  to: Uint8Array,
  toAt: number,
): number {
  const length = end - at;
  if (length === 0) return toAt;
  if ((length & 3) !== 0) return -1;
  const lastGroup = end - 4;
  let seen = 0;
  let out = toAt;
  let i = at;
  for (; i < lastGroup; i += 4) {
    const a = values[from[i]!]!;
    const b = values[from[i + 1]!]!;
    const c = values[from[i + 2]!]!;
    const d = values[from[i + 3]!]!;
    seen |= a | b | c | d;
    const three = (a << 18) | (b << 12) | (c << 6) | d;
    to[out] = three >> 16;
    to[out + 1] = three >> 8;
    to[out + 2] = three;
    out += 3;
  }
  const pads = from[end - 1] !== PAD ? 0 : from[end - 2] !== PAD ? 1 : 2;
  const a = values[from[i]!]!;
  const b = values[from[i + 1]!]!;
  const c = pads === 2 ? 0 : values[from[i + 2]!]!;
  const d = pads > 0 ? 0 : values[from[i + 3]!]!;
  seen |= a | b | c | d;
  if (seen >= WRONG) return -1;
  if (pads === 1 && (c & 3) !== 0) return -1;
  if (pads === 2 && (b & 15) !== 0) return -1;
  const three = (a << 18) | (b << 12) | (c << 6) | d;
  to[out++] = three >> 16;
  if (pads < 2) to[out++] = three >> 8;
  if (pads < 1) to[out++] = three;
  return out;
}
