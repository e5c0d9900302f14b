/**
 * A piece of memory in which bytes are moved, and written as base64 (RFC 4648 §4), sixteen at a step
 * by a small WebAssembly module. For short pieces: a call of Buffer costs more than it moves. Where
 * there is no SIMD, Buffer does it; the results are the same.
 */
import { signed, startWasm, unsigned, V128, type WasmFunction } from "../../../runtime/wasm-assembly.ts";

/** Up to so many bytes are read, and written, beyond what was asked for: leave them room. */
export const SLACK_BYTES = 16;
const ALPHABET = Buffer.from("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/");
const PAD = 0x3d;

type Stroke = (from: number, end: number, to: number) => void;

export interface ByteArena {
  readonly memory: Buffer;
  /** Of the same bytes. */
  readonly view: DataView;
  /** Copies `memory[from, end)` to `to`, of which it may not be a part. */
  readonly move: Stroke;
  /** Writes `memory[from, end)` as base64 at `to`. @returns where the text ends */
  readonly base64: (from: number, end: number, to: number) => number;
}

/** @param how "plain" for its oracle */
export function makeByteArena(bytes: number, how: "fastest" | "plain" = "fastest"): ByteArena {
  const wasm = how === "plain" ? undefined : startWasm(bytes, { move: MOVE, whole: BASE64 });
  if (wasm === undefined) return plainArena(bytes);
  const memory = Buffer.from(wasm.memory);
  const view = new DataView(wasm.memory);
  const { move, whole }: Record<"move" | "whole", Stroke> = wasm.functions;
  const base64 = (from: number, end: number, to: number): number => {
    const length = end - from;
    const rest = length % 3;
    if (length > rest) whole(from, end - rest, to);
    const at = to + ((length - rest) / 3) * 4;
    if (rest === 0) return at;
    const first = memory[end - rest]!;
    const second = rest === 2 ? memory[end - 1]! : 0;
    memory[at] = ALPHABET[first >> 2]!;
    memory[at + 1] = ALPHABET[((first & 3) << 4) | (second >> 4)]!;
    memory[at + 2] = rest === 2 ? ALPHABET[(second & 15) << 2]! : PAD;
    memory[at + 3] = PAD;
    return at + 4;
  };
  return { memory, view, move, base64 };
}

function plainArena(bytes: number): ByteArena {
  const memory = Buffer.alloc(bytes);
  return {
    memory,
    view: new DataView(memory.buffer, memory.byteOffset, memory.length),
    move: (from, end, to) => void memory.copy(memory, to, from, end),
    base64: (from, end, to) => to + memory.write(memory.toString("base64", from, end), to, "latin1"),
  };
}

const simd = (code: number): number[] => [0xfd, ...unsigned(code)];
const [LOAD, STORE] = [
  [...simd(0x00), 0, 0],
  [...simd(0x0b), 0, 0],
];
const [SHUFFLE, SWIZZLE] = [simd(0x0d), simd(0x0e)];
const [AND, OR, WORDS_LEFT, WORDS_RIGHT] = [simd(0x4e), simd(0x50), simd(0xab), simd(0xad)];
const [BYTES_ADD, BYTES_SUBTRACT_TO_ZERO, BYTES_LESS] = [simd(0x6e), simd(0x73), simd(0x25)];
const [LOOP, END, BRANCH_IF, NOTHING] = [0x03, 0x0b, 0x0d, 0x40];
const [ADD, LESS] = [0x6a, 0x49];

// Locals: three parameters, then our own.
const [FROM, TILL, TO, X] = [0, 1, 2, 3];
const get = (local: number): number[] => [0x20, local];
const set = (local: number): number[] => [0x21, local];
const number = (value: number): number[] => [0x41, ...signed(value)];
const sixteen = (bytes: readonly number[]): number[] => [...simd(0x0c), ...bytes.map((byte) => byte & 0xff)];
const all = (byte: number): number[] => sixteen(new Array<number>(16).fill(byte));
/** The same six bits of each word. */
const sixBits = (nth: number): number[] =>
  sixteen(Array.from({ length: 16 }, (_, i) => (i % 4 === nth ? 63 : 0)));

/** do { `step`; from += `read`; to += 16 } while (from < till) */
function strokes(step: readonly number[], read: number): WasmFunction {
  const code = [
    ...[LOOP, NOTHING, ...step],
    ...[...get(TO), ...number(16), ADD, ...set(TO)],
    ...[...get(FROM), ...number(read), ADD, ...set(FROM)],
    ...[...get(FROM), ...get(TILL), LESS, BRANCH_IF, 0, END],
  ];
  return { parameters: 3, returns: false, locals: [V128], code };
}

const MOVE = strokes([...get(TO), ...get(FROM), ...LOAD, ...STORE], 16);

/** Of each word the three bytes that it holds, the first weighing most; then nothing. */
const THREES = [2, 1, 0, 16, 5, 4, 3, 16, 8, 7, 6, 16, 11, 10, 9, 16];
/** What to add to six bits: to those of a…z, of each digit, of + and /, and of A…Z. */
const TO_CHARACTER = [97 - 26, ...new Array<number>(10).fill(48 - 52), 43 - 62, 47 - 63, 65, 0, 0];

const BASE64 = strokes(
  [
    // X = four words of 24 bits, then of four times six bits, each in a byte of its own
    ...[...get(FROM), ...LOAD, ...all(0), ...SHUFFLE, ...THREES, ...set(X)],
    ...[...get(X), ...number(18), ...WORDS_RIGHT, ...sixBits(0), ...AND],
    ...[...get(X), ...number(4), ...WORDS_RIGHT, ...sixBits(1), ...AND, ...OR],
    ...[...get(X), ...number(10), ...WORDS_LEFT, ...sixBits(2), ...AND, ...OR],
    ...[...get(X), ...number(24), ...WORDS_LEFT, ...sixBits(3), ...AND, ...OR, ...set(X)],
    // 0 to 25 select 13 of TO_CHARACTER, 26 to 51 select 0, the others 1 to 12
    ...[...get(TO), ...sixteen(TO_CHARACTER), ...get(X), ...all(51), ...BYTES_SUBTRACT_TO_ZERO],
    ...[...get(X), ...all(26), ...BYTES_LESS, ...all(13), ...AND, ...OR, ...SWIZZLE],
    ...[...get(X), ...BYTES_ADD, ...STORE],
  ],
  12,
);
