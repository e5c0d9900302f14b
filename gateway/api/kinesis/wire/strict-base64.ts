/**
 * Base64 of one piece of text, decoded by Node, which is quick and forgives much; what it forgave is
 * seen by the length. `toBlob` in shape.ts is the plain way, and the one that tells what is wrong.
 */

const PAD = 0x3d;
const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
/** Of each character, its six bits. */
const bitsOf = new Uint8Array(128);
for (let i = 0; i < ALPHABET.length; i++) bitsOf[ALPHABET.charCodeAt(i)] = i;

/** RFC 4648 §4: padded, and nothing in the bits that the padding leaves over; undefined for anything else. */
export function strictBase64(text: string): Buffer | undefined {
  const { length } = text;
  if (length % 4 !== 0) return undefined;
  if (length === 0) return Buffer.alloc(0);
  let pads = 0;
  if (text.charCodeAt(length - 1) === PAD) pads = text.charCodeAt(length - 2) === PAD ? 2 : 1;
  const bytes = Buffer.from(text, "base64");
  // Node passes over what is no base64 and ends at the first pad: then bytes are missing.
  if (bytes.length !== (length / 4) * 3 - pads) return undefined;
  // It takes the alphabet of URLs as well, and only the low byte of wide characters.
  if (text.includes("-") || text.includes("_") || Buffer.byteLength(text) !== length) return undefined;
  const left = pads === 0 ? 0 : bitsOf[text.charCodeAt(length - pads - 1)]! & (pads === 1 ? 0x03 : 0x0f);
  return left === 0 ? bytes : undefined;
}
