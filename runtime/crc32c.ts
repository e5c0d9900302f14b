/**
 * CRC-32C (Castagnoli), the checksum of frames and log entries. RFC 3720 appendix B.4 has test vectors.
 *
 * Long inputs are folded sixteen bytes a step by a small WebAssembly module, which is assembled
 * here at loading: several times as fast as JavaScript, the copy into its memory included.
 * crc32c-plain.ts is the same in JavaScript.
 */
import { makeTables, plainCrc32c } from "./crc32c-plain.ts";

/** For less than this the call and the copy cost more than they save. */
const WORTHWHILE_BYTES = 1_024;
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

/** The part of WebAssembly's JavaScript interface that is used; the compiler's own types of it come with a browser's only. */
interface WebAssemblyApi {
  readonly Module: new (bytes: Uint8Array) => object;
  readonly Instance: new (
    module: object,
  ) => {
    readonly exports: { readonly memory: { readonly buffer: ArrayBuffer }; readonly fold: Folder["fold"] };
  };
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

function makeFolder(): Folder | undefined {
  const { WebAssembly: api } = globalThis as unknown as { readonly WebAssembly?: WebAssemblyApi };
  if (api === undefined) return undefined;
  const { exports } = new api.Instance(new api.Module(assemble()));
  const memory = new Uint8Array(exports.memory.buffer);
  const tables = new Uint32Array(memory.buffer, 0, (TABLE_COUNT * TABLE_BYTES) / 4);
  for (const [i, table] of makeTables(TABLE_COUNT).entries()) tables.set(table, i * 256);
  return { memory, fold: exports.fold };
}

/** The module's bytes; section and operation codes are those of the WebAssembly core specification, §5. */
function assemble(): Uint8Array {
  const i32 = 0x7f;
  const pages = (DATA_AT + DATA_BYTES) / PAGE_BYTES;
  const name = (text: string): number[] => [text.length, ...Buffer.from(text)];
  const section = (id: number, body: number[]): number[] => [id, ...unsigned(body.length), ...body];
  const code = foldCode();
  return Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, [1, 0x60, 3, i32, i32, i32, 1, i32]),
    ...section(3, [1, 0]),
    ...section(5, [1, 0, pages]),
    ...section(7, [2, ...name("memory"), 2, 0, ...name("fold"), 0, 0]),
    ...section(10, [1, ...unsigned(code.length), ...code]),
  ]);
}

/** fold(at, end, crc): while at < end, four words are looked up byte by byte and the results joined. */
function foldCode(): number[] {
  const [AT, END, CRC, WORD] = [0, 1, 2, 3];
  const get = (local: number): number[] => [0x20, local];
  const set = (local: number): number[] => [0x21, local];
  const constant = (value: number): number[] => [0x41, ...signed(value)];
  const load = (offset: number): number[] => [0x28, 2, ...unsigned(offset)];
  const [AND, XOR, SHIFT_LEFT, SHIFT_RIGHT, ADD, LESS] = [0x71, 0x73, 0x74, 0x76, 0x6a, 0x49];
  const steps: number[] = [];
  for (let word = 0; word < 4; word++) {
    steps.push(...get(AT), ...load(word * 4));
    if (word === 0) steps.push(...get(CRC), XOR);
    steps.push(...set(WORD));
    for (let byte = 0; byte < 4; byte++) {
      // The byte times four, for a table of words.
      if (byte === 0) steps.push(...get(WORD), ...constant(0xff), AND, ...constant(2), SHIFT_LEFT);
      else steps.push(...get(WORD), ...constant(byte * 8 - 2), SHIFT_RIGHT, ...constant(0x3fc), AND);
      steps.push(...load((15 - word * 4 - byte) * TABLE_BYTES));
      if (word + byte > 0) steps.push(XOR);
    }
  }
  return [
    ...[1, 1, 0x7f],
    ...[0x02, 0x40, 0x03, 0x40],
    ...[...get(AT), ...get(END), LESS, 0x45, 0x0d, 1],
    ...[...steps, ...set(CRC)],
    ...[...get(AT), ...constant(16), ADD, ...set(AT), 0x0c, 0],
    ...[0x0b, 0x0b, ...get(CRC), 0x0b],
  ];
}

function unsigned(value: number): number[] {
  const bytes: number[] = [];
  for (let rest = value; ; ) {
    const low = rest & 0x7f;
    rest >>>= 7;
    bytes.push(rest === 0 ? low : low | 0x80);
    if (rest === 0) return bytes;
  }
}

/** For values from 0 on: a set sixth bit would be read as a minus. */
function signed(value: number): number[] {
  const bytes = unsigned(value);
  const last = bytes[bytes.length - 1]!;
  if ((last & 0x40) !== 0) bytes.splice(-1, 1, last | 0x80, 0);
  return bytes;
}
