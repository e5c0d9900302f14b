/**
 * Base64 (RFC 4648 §4) sixteen characters a step, by a small WebAssembly module that is assembled
 * here at loading. It also finds where a text ends: at the first character that is none of base64.
 * As strict as `decodeBase64` of base64-bytes.ts, which is its plain way and takes its place where
 * there is no SIMD.
 *
 * The nibbles of a character select two sets of bits that have one in common exactly when it is not
 * of the alphabet; its upper nibble alone selects what turns it into its six bits (but for `/`).
 */
import { I32, startWasm, V128, type WasmFunction } from "../../../../runtime/wasm-assembly.ts";
import * as op from "../../../../runtime/wasm-instructions.ts";
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

// Locals: two parameters, then our own.
const [AT, TO, VALID, REST, TEXT, UPPER, WRONG] = [0, 1, 2, 3, 4, 5, 6];
const { add, bitsAnd, equals, get, giveBack, halvesRight, increase, number, pick, repeated, set, when } = op;

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
function decodeCode(): op.Code {
  // TEXT = the next sixteen, UPPER = their upper nibbles, WRONG = not 0 where one is none of base64
  const classify = [
    set(TEXT, op.readVector(get(AT))),
    set(UPPER, bitsAnd(halvesRight(get(TEXT), 4), repeated(15))),
    set(
      WRONG,
      bitsAnd(
        pick(op.vector(LOWER_SETS), bitsAnd(get(TEXT), repeated(15))),
        pick(op.vector(UPPER_SETS), get(UPPER)),
      ),
    ),
  ];
  const isSlash = op.bytesEqual(get(TEXT), repeated(0x2f));
  const sixBits = op.bytesAdd(pick(op.vector(TO_SIX_BITS), op.bytesAdd(isSlash, get(UPPER))), get(TEXT));
  // Two of six become one of twelve in each half word, two of those 24 bits in each word.
  const pack = (sixes: op.Code): op.Code => [
    ...set(TEXT, sixes),
    ...set(
      TEXT,
      pick(
        op.pairsMultiply(
          op.bitsOr(bitsAnd(op.halvesLeft(get(TEXT), 6), repeated(0xc0, 0x0f)), halvesRight(get(TEXT), 8)),
          repeated(0, 16, 1, 0),
        ),
        op.vector(BYTE_ORDER),
      ),
    ),
    ...op.writeVector(get(TO), get(TEXT), OUT_AT),
  ];
  const lanes = op.vector(Array.from({ length: 16 }, (_, i) => i));
  const refuse = giveBack(number(-1));
  const refuseUnlessPad = (offset: number): op.Code =>
    when(op.differ(op.readByte(get(AT), offset), number(PAD)), refuse);
  const behind = add(get(TO), op.multiply(op.shiftRight(get(VALID), number(2)), number(3)));
  return [
    op.block(
      op.loop(
        ...classify,
        op.branchIf(1, op.anyBit(get(WRONG))),
        pack(sixBits),
        increase(AT, 16),
        increase(TO, 12),
        op.branch(0),
      ),
    ),
    // VALID = how many come before the first that is none; the bits of the others are taken for 0.
    set(VALID, op.countZeros(op.highBits(op.bytesDiffer(get(WRONG), repeated(0))))),
    pack(bitsAnd(sixBits, op.bytesLess(lanes, op.fillBytes(get(VALID))))),
    increase(AT, get(VALID)),
    set(REST, op.and(get(VALID), number(3))),
    when(equals(get(REST), number(0)), giveBack(get(AT))),
    when(equals(get(REST), number(1)), refuse),
    // What two or three characters leave over stands in the byte behind theirs, and must be 0.
    when(op.readByte(add(behind, get(REST)), OUT_AT - 1), refuse),
    refuseUnlessPad(0),
    when(equals(get(REST), number(3)), giveBack(add(get(AT), number(1)))),
    refuseUnlessPad(1),
    add(get(AT), number(2)),
  ].flat();
}

const DECODE: WasmFunction = {
  parameters: 2,
  returns: true,
  locals: [I32, I32, V128, V128, V128],
  code: decodeCode(),
};
