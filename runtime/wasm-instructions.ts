/**
 * Instructions of the WebAssembly core specification (§5.4, binary format) as functions of their
 * operands' code, for who writes a function of more than a few lines for wasm-assembly.ts.
 *
 *   add(get(AT), number(4))      when(less(get(AT), get(END)), set(AT, …))
 *
 * Numbers are i32 and not signed, memory is addressed by `at` and a fixed offset, and vectors are 16 bytes.
 */
import { signed, unsigned } from "./wasm-assembly.ts";

export type Code = readonly number[];

const binary =
  (...code: Code) =>
  (a: Code, b: Code): Code => [...a, ...b, ...code];
const unary =
  (...code: Code) =>
  (a: Code): Code => [...a, ...code];

// §5.4.3, §5.4.7: locals and numbers
export const get = (local: number): Code => [0x20, local];
export const set = (local: number, value: Code): Code => [...value, 0x21, local];
export const number = (value: number): Code => [0x41, ...signed(value)];
export const increase = (local: number, by: number | Code): Code =>
  set(local, add(get(local), typeof by === "number" ? number(by) : by));
export const isZero = unary(0x45);
export const equals = binary(0x46);
export const differ = binary(0x47);
export const lessSigned = binary(0x48);
export const less = binary(0x49);
export const more = binary(0x4b);
/** Zeros below the lowest one. */
export const countZeros = unary(0x68);
export const countOnes = unary(0x69);
export const add = binary(0x6a);
export const subtract = binary(0x6b);
export const multiply = binary(0x6c);
export const divide = binary(0x6e);
export const and = binary(0x71);
export const or = binary(0x72);
export const xor = binary(0x73);
export const shiftLeft = binary(0x74);
export const shiftRight = binary(0x76);
export const rotateLeft = binary(0x77);
/** `yes` when the condition is not 0, else `no`; both are worked out. */
export const select = (yes: Code, no: Code, condition: Code): Code => [...yes, ...no, ...condition, 0x1b];
export const addDoubles = binary(0xa0);
export const multiplyDoubles = binary(0xa2);
export const toDouble = unary(0xb8);

// §5.4.1: control. A branch of depth 0 leaves the innermost block or `when`, or begins its loop anew.
export const block = (...body: readonly Code[]): Code => [0x02, 0x40, ...body.flat(), 0x0b];
export const loop = (...body: readonly Code[]): Code => [0x03, 0x40, ...body.flat(), 0x0b];
export const when = (condition: Code, ...body: readonly Code[]): Code => [
  ...[...condition, 0x04, 0x40],
  ...[...body.flat(), 0x0b],
];
export const either = (condition: Code, yes: readonly Code[], no: readonly Code[]): Code => [
  ...[...condition, 0x04, 0x40],
  ...[...yes.flat(), 0x05, ...no.flat(), 0x0b],
];
export const branch = (depth: number): Code => [0x0c, depth];
export const branchIf = (depth: number, condition: Code): Code => [...condition, 0x0d, depth];
export const giveBack = (value: Code): Code => [...value, 0x0f];

// §5.4.6: memory
const UNALIGNED = 0;
const place = (offset: number): Code => [UNALIGNED, ...unsigned(offset)];
const read =
  (...code: Code) =>
  (at: Code, offset = 0): Code => [...at, ...code, ...place(offset)];
const write =
  (...code: Code) =>
  (at: Code, value: Code, offset = 0): Code => [...at, ...value, ...code, ...place(offset)];
export const readByte = read(0x2d);
export const readWord = read(0x28);
export const writeWord = write(0x36);
export const writeDouble = write(0x39);
export const writeByte = write(0x3a);
export const writeHalf = write(0x3b);
export const readVector = read(0xfd, 0x00);
export const writeVector = write(0xfd, 0x0b);

// §5.4.8: vectors, as sixteen bytes unless their name says another width
const simd = (code: number): Code => [0xfd, ...unsigned(code)];
const withNumber =
  (code: number) =>
  (vector: Code, bits: number): Code => [...vector, ...number(bits), ...simd(code)];
export const vector = (bytes: readonly number[]): Code => [
  ...simd(0x0c),
  ...bytes.map((byte) => byte & 0xff),
];
/** Sixteen bytes that repeat these. */
export const repeated = (...bytes: readonly number[]): Code =>
  vector(Array.from({ length: 16 }, (_, i) => bytes[i % bytes.length]!));
/** Byte i is `a[indices[i]]`, or 0 where there is none. */
export const pick = binary(...simd(0x0e));
export const fillBytes = unary(...simd(0x0f));
export const fillWords = unary(...simd(0x11));
export const wordOf = (vector: Code, lane: number): Code => [...vector, ...simd(0x1b), lane];
export const bytesEqual = binary(...simd(0x23));
export const bytesDiffer = binary(...simd(0x24));
export const bytesLessSigned = binary(...simd(0x25));
export const bytesLess = binary(...simd(0x26));
export const bytesMoreSigned = binary(...simd(0x27));
export const bitsAnd = binary(...simd(0x4e));
export const bitsOr = binary(...simd(0x50));
export const bitsDiffer = binary(...simd(0x51));
/** 1 when a bit is set anywhere. */
export const anyBit = unary(...simd(0x53));
/** One bit of each byte, the first in the lowest: its highest. */
export const highBits = unary(...simd(0x64));
export const bytesAdd = binary(...simd(0x6e));
export const bytesSubtract = binary(...simd(0x71));
export const bytesSubtractToZero = binary(...simd(0x73));
export const halvesLeft = withNumber(0x8b);
export const halvesRight = withNumber(0x8d);
export const halvesMultiply = binary(...simd(0x95));
/** Each word: the sum of the products of its two halves. */
export const pairsMultiply = binary(...simd(0xba));
