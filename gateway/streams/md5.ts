/**
 * MD5 of partition keys (RFC 1321). It decides shards, as in Kinesis; it protects nothing. A short key
 * takes a fraction of the time that a call of OpenSSL takes, by a small WebAssembly module that is
 * assembled here at loading. `md5` is the plain way.
 */
import crypto from "node:crypto";
import { I32, signed, startWasm, unsigned } from "../../runtime/wasm-assembly.ts";

/** What fits one block beside the padding, RFC 1321 §3.1 and §3.2. */
const MAX_SHORT_BYTES = 55;
const BLOCK_BYTES = 64;
const LENGTH_AT = 56;

/** 32 hex digits. `crypto.hash` is four times as fast as `createHash`, but came with Node 20.12. */
export function md5(data: string | Uint8Array): string {
  if (typeof crypto.hash === "function") return crypto.hash("md5", data, "hex");
  return crypto.createHash("md5").update(data).digest("hex");
}

/** Puts the MD5 of the text's UTF-8 into `words`, as four 32-bit numbers of which the first weighs most. */
export function md5Words(text: string, words: Uint32Array): void {
  if (hasher !== undefined && text.length <= MAX_SHORT_BYTES && fillBlock(hasher.block, text)) {
    const { view, hash } = hasher;
    hash();
    // The digest is little-endian, a hash key is not.
    for (let i = 0; i < 4; i++) words[i] = view.getUint32(BLOCK_BYTES + i * 4);
    return;
  }
  const hex = md5(text);
  for (let i = 0; i < 4; i++) words[i] = Number.parseInt(hex.slice(i * 8, i * 8 + 8), 16);
}

/** Pads it, too. False when the text is not ASCII. */
function fillBlock(block: Uint8Array, text: string): boolean {
  const { length } = text;
  for (let i = 0; i < length; i++) {
    const code = text.charCodeAt(i);
    if (code > 0x7f) return false;
    block[i] = code;
  }
  block[length] = 0x80;
  for (let i = length + 1; i < LENGTH_AT; i++) block[i] = 0;
  // Its bits; the six bytes above them are never written.
  block[LENGTH_AT] = (length << 3) & 0xff;
  block[LENGTH_AT + 1] = length >> 5;
  return true;
}

/** The digest is put behind the block. */
interface Hasher {
  readonly block: Uint8Array;
  readonly view: DataView;
  readonly hash: () => void;
}

const START = [0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476].map((word) => word | 0);
/** RFC 1321 §3.4: by round, how far each of four steps turns, and which word of the block a step adds. */
const TURNS = [
  [7, 12, 17, 22],
  [5, 9, 14, 20],
  [4, 11, 16, 23],
  [6, 10, 15, 21],
];
const WORD_OF = [
  (step: number) => step,
  (step: number) => step * 5 + 1,
  (step: number) => step * 3 + 5,
  (step: number) => step * 7,
];

// Operation codes of the WebAssembly core specification, §5.4.
const [ADD, AND, OR, XOR, TURN_LEFT] = [0x6a, 0x71, 0x72, 0x73, 0x77];
const get = (local: number): number[] => [0x20, local];
const set = (local: number): number[] => [0x21, local];
const number = (value: number): number[] => [0x41, ...signed(value)];
const load = (at: number): number[] => [...number(0), 0x28, 2, ...unsigned(at)];

/** F, G, H and I of RFC 1321 §3.4, the first two in a shorter form of the same value. */
const MIX = [
  (b: number, c: number, d: number) => [...get(c), ...get(d), XOR, ...get(b), AND, ...get(d), XOR],
  (b: number, c: number, d: number) => [...get(b), ...get(c), XOR, ...get(d), AND, ...get(c), XOR],
  (b: number, c: number, d: number) => [...get(b), ...get(c), XOR, ...get(d), XOR],
  (b: number, c: number, d: number) => [...get(d), ...number(-1), XOR, ...get(b), OR, ...get(c), XOR],
];

function hashCode(): number[] {
  const code = START.flatMap((word, local) => [...number(word), ...set(local)]);
  for (let step = 0; step < 64; step++) {
    const round = step >> 4;
    const [a, b, c, d] = [0, 1, 2, 3].map((local) => (local - step) & 3) as [number, number, number, number];
    const constant = Math.floor(Math.abs(Math.sin(step + 1)) * 2 ** 32) | 0;
    code.push(...get(a), ...MIX[round]!(b, c, d), ADD);
    code.push(...load((WORD_OF[round]!(step) & 15) * 4), ADD, ...number(constant), ADD);
    code.push(...number(TURNS[round]![step & 3]!), TURN_LEFT, ...get(b), ADD, ...set(a));
  }
  for (const [local, word] of START.entries()) {
    code.push(
      ...number(0),
      ...get(local),
      ...number(word),
      ADD,
      0x36,
      2,
      ...unsigned(BLOCK_BYTES + local * 4),
    );
  }
  return code;
}

function startHasher(): Hasher | undefined {
  const hash = { parameters: 0, returns: false, locals: [I32, I32, I32, I32], code: hashCode() };
  const wasm = startWasm(BLOCK_BYTES + 16, { hash });
  if (wasm === undefined) return undefined;
  const call: () => unknown = wasm.functions.hash;
  return { block: new Uint8Array(wasm.memory), view: new DataView(wasm.memory), hash: () => void call() };
}

const hasher = startHasher();
