/**
 * Base64 (RFC 4648 §4) sixteen characters a step, by a small WebAssembly module that is assembled
 * here at loading. It also finds where a text ends: at the first character that is none of base64.
 * As strict as `decodeBase64` of base64-bytes.ts, which is its plain way and takes its place where
 * there is no SIMD.
 *
 * The nibbles of a character select two sets of bits that have one in common exactly when it is not
 * of the alphabet; its upper nibble alone selects what turns it into its six bits (but for `/`).
 */
import { I32, signed, startWasm, unsigned, V128, type WasmFunction } from "../../../runtime/wasm-assembly.ts";
import { decodeBase64 } from "./base64-bytes.ts";

/** Texts that stand in one window are decoded where they are; others pass through it in pieces. */
export const WINDOW_BYTES = 1_048_576;
const PAGE_BYTES = 65_536;
/** Sixteen bytes are read, and written, where fewer may be left. */
const SLACK_BYTES = 16;
const OUT_AT = WINDOW_BYTES + PAGE_BYTES;
const OUT_BYTES = (WINDOW_BYTES / 4) * 3 + PAGE_BYTES;
const PAD = 0x3d;

export interface Base64Window {
  /** Room for `WINDOW_BYTES` of text; what is behind them is the decoder's own. */
  readonly text: Buffer;
  /** What was decoded. */
  readonly bytes: Buffer;
  /**
   * Decodes the base64 that begins at `text[at]` and ends before the first character that is none,
   * to `bytes[to…]`. There must be one such character behind it.
   * @returns where it ends in `text`, its padding included; -1 when it is no base64
   */
  readonly decode: (at: number, to: number) => number;
}

/** How many bytes `text[at, end)` stands for, when it is sound. */
export function decodedBytes(text: Uint8Array, at: number, end: number): number {
  if (end === at) return 0;
  const pads = text[end - 1] !== PAD ? 0 : text[end - 2] !== PAD ? 1 : 2;
  return ((end - at) >> 2) * 3 - pads;
}

/** @param how "plain" for its oracle */
export function makeBase64Window(how: "fastest" | "plain" = "fastest"): Base64Window {
  const wasm = how === "plain" ? undefined : startWasm(OUT_AT + OUT_BYTES, { decode: DECODE });
  if (wasm === undefined) return plainWindow();
  return {
    text: Buffer.from(wasm.memory, 0, WINDOW_BYTES + SLACK_BYTES),
    bytes: Buffer.from(wasm.memory, OUT_AT, OUT_BYTES),
    decode: wasm.functions.decode,
  };
}

function plainWindow(): Base64Window {
  const text = Buffer.alloc(WINDOW_BYTES + SLACK_BYTES);
  const bytes = Buffer.alloc(OUT_BYTES);
  const decode = (at: number, to: number): number => {
    let end = at;
    while (/[A-Za-z0-9+/]/.test(String.fromCharCode(text[end]!))) end++;
    while (end - at > 1 && (end - at) % 4 !== 0 && text[end] === PAD) end++;
    return decodeBase64(text, at, end, bytes, to) < 0 ? -1 : end;
  };
  return { text, bytes, decode };
}

// Operation codes of the WebAssembly core specification, §5.4.
const [BLOCK, LOOP, IF, END, BRANCH, BRANCH_IF, RETURN] = [0x02, 0x03, 0x04, 0x0b, 0x0c, 0x0d, 0x0f];
const NOTHING = 0x40;
const [ADD, MULTIPLY, AND, SHIFT_RIGHT, EQUALS, DIFFERS, TRAILING_ZEROS] = [
  0x6a, 0x6c, 0x71, 0x76, 0x46, 0x47, 0x68,
];
const simd = (code: number): number[] => [0xfd, ...unsigned(code)];
const LOAD = [...simd(0x00), 0, 0];
const SWIZZLE = simd(0x0e);
const SPLAT_BYTES = simd(0x0f);
const [BYTES_EQUAL, BYTES_DIFFER, BYTES_LESS] = [simd(0x23), simd(0x24), simd(0x26)];
const [ALL_AND, ALL_OR, ANY] = [simd(0x4e), simd(0x50), simd(0x53)];
const [BITMASK, BYTES_ADD] = [simd(0x64), simd(0x6e)];
const [HALVES_LEFT, HALVES_RIGHT] = [simd(0x8b), simd(0x8d)];
const MULTIPLY_PAIRS = simd(0xba);

// Locals: two parameters, then our own.
const [AT, TO, VALID, REST, TEXT, UPPER, WRONG] = [0, 1, 2, 3, 4, 5, 6];
const get = (local: number): number[] => [0x20, local];
const set = (local: number): number[] => [0x21, local];
const number = (value: number): number[] => [0x41, ...signed(value)];
const sixteen = (bytes: readonly number[]): number[] => [...simd(0x0c), ...bytes.map((byte) => byte & 0xff)];
const all = (byte: number): number[] => sixteen(new Array<number>(16).fill(byte));
const pairs = (low: number, high: number): number[] =>
  sixteen(Array.from({ length: 16 }, (_, i) => ((i & 1) === 0 ? low : high)));
const byteAt = (offset: number): number[] => [0x2d, 0, ...unsigned(offset)];

const LOWER_SETS = [
  0x15, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x13, 0x1a, 0x1b, 0x1b, 0x1b, 0x1a,
];
const UPPER_SETS = [
  0x10, 0x10, 0x01, 0x02, 0x04, 0x08, 0x04, 0x08, 0x10, 0x10, 0x10, 0x10, 0x10, 0x10, 0x10, 0x10,
];
/** By upper nibble: what to add. `/`, whose nibble is that of `+`, takes the place of nibble 1. */
const TO_SIX_BITS = [0, 16, 19, 4, -65, -65, -71, -71, 0, 0, 0, 0, 0, 0, 0, 0];
/** Of each word the three bytes that it holds, the first weighing most; then nothing. */
const BYTE_ORDER = [2, 1, 0, 6, 5, 4, 10, 9, 8, 14, 13, 12, 255, 255, 255, 255];

/** decode(at, to), for a module of its own. */
function decodeCode(): number[] {
  // TEXT = the next sixteen, UPPER = their upper nibbles, WRONG = not 0 where one is none of base64
  const classify = [
    ...[...get(AT), ...LOAD, ...set(TEXT)],
    ...[...get(TEXT), ...number(4), ...HALVES_RIGHT, ...all(15), ...ALL_AND, ...set(UPPER)],
    ...[...sixteen(LOWER_SETS), ...get(TEXT), ...all(15), ...ALL_AND, ...SWIZZLE],
    ...[...sixteen(UPPER_SETS), ...get(UPPER), ...SWIZZLE],
    ...[...ALL_AND, ...set(WRONG)],
  ];
  const sixBits = [
    ...[...sixteen(TO_SIX_BITS), ...get(TEXT), ...all(0x2f), ...BYTES_EQUAL, ...get(UPPER), ...BYTES_ADD],
    ...[...SWIZZLE, ...get(TEXT), ...BYTES_ADD],
  ];
  // Two of six become one of twelve in each half word, two of those 24 bits in each word.
  const pack = [
    ...[...set(TEXT), ...get(TEXT), ...number(6), ...HALVES_LEFT, ...pairs(0xc0, 0x0f), ...ALL_AND],
    ...[...get(TEXT), ...number(8), ...HALVES_RIGHT, ...ALL_OR],
    ...[...sixteen([0, 16, 1, 0, 0, 16, 1, 0, 0, 16, 1, 0, 0, 16, 1, 0]), ...MULTIPLY_PAIRS],
    ...[...sixteen(BYTE_ORDER), ...SWIZZLE, ...set(TEXT)],
    ...[...get(TO), ...get(TEXT), ...simd(0x0b), 0, ...unsigned(OUT_AT)],
  ];
  const lanes = Array.from({ length: 16 }, (_, i) => i);
  const refuseUnlessPad = (offset: number): number[] => [
    ...[...get(AT), ...byteAt(offset), ...number(PAD), DIFFERS],
    ...[IF, NOTHING, ...number(-1), RETURN, END],
  ];
  return [
    ...[BLOCK, NOTHING, LOOP, NOTHING],
    ...[...classify, ...get(WRONG), ...ANY, BRANCH_IF, 1],
    ...[...sixBits, ...pack],
    ...[...get(AT), ...number(16), ADD, ...set(AT), ...get(TO), ...number(12), ADD, ...set(TO)],
    ...[BRANCH, 0, END, END],
    // VALID = how many come before the first that is none; the bits of the others are taken for 0.
    ...[...get(WRONG), ...all(0), ...BYTES_DIFFER, ...BITMASK, TRAILING_ZEROS, ...set(VALID)],
    ...[...sixBits, ...sixteen(lanes), ...get(VALID), ...SPLAT_BYTES, ...BYTES_LESS, ...ALL_AND, ...pack],
    ...[...get(AT), ...get(VALID), ADD, ...set(AT), ...get(VALID), ...number(3), AND, ...set(REST)],
    ...[...get(REST), ...number(0), EQUALS, IF, NOTHING, ...get(AT), RETURN, END],
    ...[...get(REST), ...number(1), EQUALS, IF, NOTHING, ...number(-1), RETURN, END],
    // What two or three characters leave over stands in the byte behind theirs, and must be 0.
    ...[...get(TO), ...get(VALID), ...number(2), SHIFT_RIGHT, ...number(3), MULTIPLY, ADD, ...get(REST), ADD],
    ...[...byteAt(OUT_AT - 1), IF, NOTHING, ...number(-1), RETURN, END],
    ...refuseUnlessPad(0),
    ...[...get(REST), ...number(3), EQUALS, IF, NOTHING, ...get(AT), ...number(1), ADD, RETURN, END],
    ...refuseUnlessPad(1),
    ...[...get(AT), ...number(2), ADD],
  ];
}

const DECODE: WasmFunction = {
  parameters: 2,
  returns: true,
  locals: [I32, I32, V128, V128, V128],
  code: decodeCode(),
};
