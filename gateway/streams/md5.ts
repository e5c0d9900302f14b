/**
 * MD5 of partition keys (RFC 1321), unrolled: a short key takes a third of the time that a call of
 * OpenSSL takes. It decides shards, as in Kinesis; it protects nothing.
 */
import crypto from "node:crypto";

/** What fits one block beside the padding, RFC 1321 §3.1 and §3.2. */
const MAX_SHORT_BYTES = 55;
const block = new Int32Array(16);

/** 32 hex digits. `crypto.hash` is four times as fast as `createHash`, but came with Node 20.12. */
export function md5(data: string | Uint8Array): string {
  if (typeof crypto.hash === "function") return crypto.hash("md5", data, "hex");
  return crypto.createHash("md5").update(data).digest("hex");
}

/** Puts the MD5 of the text's UTF-8 into `words`, as four 32-bit numbers of which the first weighs most. */
export function md5Words(text: string, words: Uint32Array): void {
  if (text.length <= MAX_SHORT_BYTES && fillBlock(text)) {
    hashBlock(words);
    return;
  }
  const hex = md5(text);
  for (let i = 0; i < 4; i++) words[i] = Number.parseInt(hex.slice(i * 8, i * 8 + 8), 16);
}

/** False when the text is not ASCII. */
function fillBlock(text: string): boolean {
  block.fill(0);
  const { length } = text;
  for (let i = 0; i < length; i++) {
    const code = text.charCodeAt(i);
    if (code > 0x7f) return false;
    block[i >> 2]! |= code << ((i & 3) << 3);
  }
  block[length >> 2]! |= 0x80 << ((length & 3) << 3);
  block[14] = length << 3;
  return true;
}

function f(a: number, b: number, c: number, d: number, m: number, s: number, k: number): number {
  const sum = (a + ((b & c) | (~b & d)) + m + k) | 0;
  return (((sum << s) | (sum >>> (32 - s))) + b) | 0;
}
function g(a: number, b: number, c: number, d: number, m: number, s: number, k: number): number {
  const sum = (a + ((b & d) | (c & ~d)) + m + k) | 0;
  return (((sum << s) | (sum >>> (32 - s))) + b) | 0;
}
function h(a: number, b: number, c: number, d: number, m: number, s: number, k: number): number {
  const sum = (a + (b ^ c ^ d) + m + k) | 0;
  return (((sum << s) | (sum >>> (32 - s))) + b) | 0;
}
function i(a: number, b: number, c: number, d: number, m: number, s: number, k: number): number {
  const sum = (a + (c ^ (b | ~d)) + m + k) | 0;
  return (((sum << s) | (sum >>> (32 - s))) + b) | 0;
}

/** RFC 1321 §3.4, its 64 steps one by one. */
function hashBlock(words: Uint32Array): void {
  const m0 = block[0]!;
  const m1 = block[1]!;
  const m2 = block[2]!;
  const m3 = block[3]!;
  const m4 = block[4]!;
  const m5 = block[5]!;
  const m6 = block[6]!;
  const m7 = block[7]!;
  const m8 = block[8]!;
  const m9 = block[9]!;
  const m10 = block[10]!;
  const m11 = block[11]!;
  const m12 = block[12]!;
  const m13 = block[13]!;
  const m14 = block[14]!;
  const m15 = block[15]!;
  let a = 0x67452301;
  let b = -271733879;
  let c = -1732584194;
  let d = 271733878;
  a = f(a, b, c, d, m0, 7, -680876936);
  d = f(d, a, b, c, m1, 12, -389564586);
  c = f(c, d, a, b, m2, 17, 606105819);
  b = f(b, c, d, a, m3, 22, -1044525330);
  a = f(a, b, c, d, m4, 7, -176418897);
  d = f(d, a, b, c, m5, 12, 1200080426);
  c = f(c, d, a, b, m6, 17, -1473231341);
  b = f(b, c, d, a, m7, 22, -45705983);
  a = f(a, b, c, d, m8, 7, 1770035416);
  d = f(d, a, b, c, m9, 12, -1958414417);
  c = f(c, d, a, b, m10, 17, -42063);
  b = f(b, c, d, a, m11, 22, -1990404162);
  a = f(a, b, c, d, m12, 7, 1804603682);
  d = f(d, a, b, c, m13, 12, -40341101);
  c = f(c, d, a, b, m14, 17, -1502002290);
  b = f(b, c, d, a, m15, 22, 1236535329);
  a = g(a, b, c, d, m1, 5, -165796510);
  d = g(d, a, b, c, m6, 9, -1069501632);
  c = g(c, d, a, b, m11, 14, 643717713);
  b = g(b, c, d, a, m0, 20, -373897302);
  a = g(a, b, c, d, m5, 5, -701558691);
  d = g(d, a, b, c, m10, 9, 38016083);
  c = g(c, d, a, b, m15, 14, -660478335);
  b = g(b, c, d, a, m4, 20, -405537848);
  a = g(a, b, c, d, m9, 5, 568446438);
  d = g(d, a, b, c, m14, 9, -1019803690);
  c = g(c, d, a, b, m3, 14, -187363961);
  b = g(b, c, d, a, m8, 20, 1163531501);
  a = g(a, b, c, d, m13, 5, -1444681467);
  d = g(d, a, b, c, m2, 9, -51403784);
  c = g(c, d, a, b, m7, 14, 1735328473);
  b = g(b, c, d, a, m12, 20, -1926607734);
  a = h(a, b, c, d, m5, 4, -378558);
  d = h(d, a, b, c, m8, 11, -2022574463);
  c = h(c, d, a, b, m11, 16, 1839030562);
  b = h(b, c, d, a, m14, 23, -35309556);
  a = h(a, b, c, d, m1, 4, -1530992060);
  d = h(d, a, b, c, m4, 11, 1272893353);
  c = h(c, d, a, b, m7, 16, -155497632);
  b = h(b, c, d, a, m10, 23, -1094730640);
  a = h(a, b, c, d, m13, 4, 681279174);
  d = h(d, a, b, c, m0, 11, -358537222);
  c = h(c, d, a, b, m3, 16, -722521979);
  b = h(b, c, d, a, m6, 23, 76029189);
  a = h(a, b, c, d, m9, 4, -640364487);
  d = h(d, a, b, c, m12, 11, -421815835);
  c = h(c, d, a, b, m15, 16, 530742520);
  b = h(b, c, d, a, m2, 23, -995338651);
  a = i(a, b, c, d, m0, 6, -198630844);
  d = i(d, a, b, c, m7, 10, 1126891415);
  c = i(c, d, a, b, m14, 15, -1416354905);
  b = i(b, c, d, a, m5, 21, -57434055);
  a = i(a, b, c, d, m12, 6, 1700485571);
  d = i(d, a, b, c, m3, 10, -1894986606);
  c = i(c, d, a, b, m10, 15, -1051523);
  b = i(b, c, d, a, m1, 21, -2054922799);
  a = i(a, b, c, d, m8, 6, 1873313359);
  d = i(d, a, b, c, m15, 10, -30611744);
  c = i(c, d, a, b, m6, 15, -1560198380);
  b = i(b, c, d, a, m13, 21, 1309151649);
  a = i(a, b, c, d, m4, 6, -145523070);
  d = i(d, a, b, c, m11, 10, -1120210379);
  c = i(c, d, a, b, m2, 15, 718787259);
  b = i(b, c, d, a, m9, 21, -343485551);
  // The digest is little-endian, a hash key is not.
  words[0] = swapped((a + 0x67452301) | 0);
  words[1] = swapped((b - 271733879) | 0);
  words[2] = swapped((c - 1732584194) | 0);
  words[3] = swapped((d + 271733878) | 0);
}

function swapped(word: number): number {
  return ((word >>> 24) | ((word >>> 8) & 0xff00) | ((word << 8) & 0xff0000) | (word << 24)) >>> 0;
}
