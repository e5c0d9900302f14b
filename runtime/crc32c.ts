/**
 * CRC-32C (Castagnoli), the checksum of frames and log entries. RFC 3720 appendix B.4 has test vectors.
 *
 * Long inputs are folded sixteen bytes a step by a small WebAssembly module: several times as fast as
 * JavaScript, the copy into its memory included. crc32c-plain.ts is the same in JavaScript.
 */
import { makeTables, plainCrc32c } from "./crc32c-plain.ts";
import { I32, signed, startWasm, unsigned, type WasmFunction } from "./wasm-assembly.ts";

/** For less than this the call and the copy cost more than they save. */
const WORTHWHILE_BYTES = 256;
const PAGE_BYTES = 65_536;
const TABLE_COUNT = 16;
const TABLE_BYTES = 1_024;
/** Behind the tables, in a page of its own on. */
const DATA_AT = PAGE_BYTES;
const DATA_BYTES = 4 * PAGE_BYTES;

interface Folder {
  readonly memory: Uint8Array;
  /** Of the bytes from `at` up to `end`, whose number is a multiple of 16; neither value is inverted. */
  readonly fold: (at: number, end: number, crc: number) => number;
}

const folder = makeFolder();

/**
 * @param bytes read from `start` up to, not including, `end`
 * @param seed the result for the bytes before these, 0 for none
 */
export function crc32c(bytes: Uint8Array, start = 0, end = bytes.length, seed = 0): number {
  if (folder === undefined || end - start < WORTHWHILE_BYTES) return plainCrc32c(bytes, start, end, seed);
  let crc = ~seed;
  let at = start;
  while (end - at >= 16) {
    const size = Math.min(DATA_BYTES, (end - at) & ~15);
    folder.memory.set(bytes.subarray(at, at + size), DATA_AT);
    crc = folder.fold(DATA_AT, DATA_AT + size, crc);
    at += size;
  }
  return plainCrc32c(bytes, at, end, ~crc >>> 0);
}

/**
 * Of each of several parts that stand one behind the other: `crc32c` of each, without a copy for each.
 * @param start where the first begins @param ends where each ends
 */
export function crc32cOfEach(bytes: Uint8Array, start: number, ends: readonly number[]): number[] {
  const all = (ends.at(-1) ?? start) - start;
  let from = start;
  if (folder === undefined || all < WORTHWHILE_BYTES || all > DATA_BYTES) {
    return ends.map((end) => {
      const checksum = crc32c(bytes, from, end);
      from = end;
      return checksum;
    });
  }
  const { memory, fold } = folder;
  memory.set(bytes.subarray(start, start + all), DATA_AT);
  return ends.map((end) => {
    const whole = from + ((end - from) & ~15);
    const crc = fold(DATA_AT + from - start, DATA_AT + whole - start, ~0);
    from = end;
    return plainCrc32c(bytes, whole, end, ~crc >>> 0);
  });
}

function makeFolder(): Folder | undefined {
  const module = startWasm(DATA_AT + DATA_BYTES, { fold: foldFunction() });
  if (module === undefined) return undefined;
  const tables = new Uint32Array(module.memory, 0, (TABLE_COUNT * TABLE_BYTES) / 4);
  for (const [i, table] of makeTables(TABLE_COUNT).entries()) tables.set(table, i * 256);
  return { memory: new Uint8Array(module.memory), fold: module.functions.fold };
}

/**
 * fold(at, end, crc): while at < end, the sixteen bytes of four words are looked up, each in the table of
 * its place, and the results joined.
 *
 * Only the first word depends on the step before. It comes last, and what is joined is joined in pairs:
 * one behind the other, the processor waits for each of sixteen results, which takes twice as long.
 */
function foldFunction(): WasmFunction {
  const [AT, END, CRC, ...WORDS] = [0, 1, 2, 3, 4, 5, 6] as const;
  const get = (local: number): number[] => [0x20, local];
  const set = (local: number): number[] => [0x21, local];
  const constant = (value: number): number[] => [0x41, ...signed(value)];
  const load = (offset: number): number[] => [0x28, 2, ...unsigned(offset)];
  const [AND, XOR, SHIFT_LEFT, SHIFT_RIGHT, ADD, LESS] = [0x71, 0x73, 0x74, 0x76, 0x6a, 0x49];
  const [BLOCK, LOOP, NOTHING, END_OF, BRANCH, BRANCH_IF, IS_ZERO] = [2, 3, 0x40, 0x0b, 0x0c, 0x0d, 0x45];
  const lookUp = (word: number, byte: number): number[] => {
    // The byte times four, for a table of words.
    const place =
      byte === 0
        ? [...get(WORDS[word]!), ...constant(0xff), AND, ...constant(2), SHIFT_LEFT]
        : [...get(WORDS[word]!), ...constant(byte * 8 - 2), SHIFT_RIGHT, ...constant(0x3fc), AND];
    return [...place, ...load((TABLE_COUNT - 1 - word * 4 - byte) * TABLE_BYTES)];
  };
  const join = (values: readonly number[][]): number[] => {
    if (values.length === 1) return values[0]!;
    const half = values.length >> 1;
    return [...join(values.slice(0, half)), ...join(values.slice(half)), XOR];
  };
  const bytesOf = (word: number): number[][] => [0, 1, 2, 3].map((byte) => lookUp(word, byte));
  const code = [
    ...[BLOCK, NOTHING, LOOP, NOTHING],
    ...[...get(AT), ...get(END), LESS, IS_ZERO, BRANCH_IF, 1],
    ...[1, 2, 3].flatMap((word) => [...get(AT), ...load(word * 4), ...set(WORDS[word]!)]),
    ...[...get(AT), ...load(0), ...get(CRC), XOR, ...set(WORDS[0])],
    ...[...join([1, 2, 3].flatMap(bytesOf)), ...join(bytesOf(0)), XOR, ...set(CRC)],
    ...[...get(AT), ...constant(16), ADD, ...set(AT), BRANCH, 0],
    ...[END_OF, END_OF, ...get(CRC)],
  ];
  return { parameters: 3, returns: true, locals: [I32, I32, I32, I32], code };
}
