/**
 * The loops of CRC-32C as WebAssembly: long inputs are first made short by sums of vectors, what is left is
 * looked up sixteen bytes a step.
 *
 * Sums: a CRC is the remainder of the bytes as a polynomial, so whatever is a multiple of the CRC's own
 * polynomial may be added. There are some with few terms, such as
 *
 *   x^79 + x^75 + x^71 + x^58 + x^18 + x^12 + x + 1
 *
 * and with each exponent times 128 it still is one (squaring a sum over GF(2) squares its terms). Added at a
 * block of sixteen bytes it clears that block and changes seven later ones, 4 to 79 blocks on; what is left
 * at the end is 79 blocks long. Way: "Chorba: A novel CRC32 implementation" (Russell, 2024). A block is
 * summed up from those before it when its turn comes, instead of being changed by each of them.
 */
import { makeTables } from "./crc32c-plain.ts";
import { I32, startWasm } from "./wasm-assembly.ts";
import * as op from "./wasm-instructions.ts";

const BLOCK_BYTES = 16;

interface Multiple {
  /** How far behind a block, in bytes, those stand that it is summed up from, the nearest first. */
  readonly distances: readonly number[];
  /** The farthest of them. */
  readonly reach: number;
}

/** @param terms exponents, the lowest first */
function multipleOf(...terms: readonly number[]): Multiple {
  const degree = terms.at(-1)!;
  const distances = terms.slice(0, -1).map((term) => (degree - term) * BLOCK_BYTES);
  return { distances: distances.reverse(), reach: degree * BLOCK_BYTES };
}

/** Of all with eight terms, and of all with twelve, that of the lowest degree, by search: few terms are fast, a low degree leaves little. */
const EIGHT_TERMS = multipleOf(0, 1, 12, 18, 58, 71, 75, 79);
const TWELVE_TERMS = multipleOf(0, 1, 7, 13, 20, 27, 30, 33, 35, 36, 38, 40);

const TABLE_COUNT = 16;
const TABLE_BYTES = 1_024;
/** Behind the tables, in a page of its own. */
const DATA_AT = 65_536;
const DATA_BYTES = 4 * 65_536;

export interface Crc32cFolder {
  /** Where the input is put, from 0 on. Its bytes are spoilt. */
  readonly data: Uint8Array;
  /**
   * Of the bytes of `data` from `start` up to `end`, whose number is a multiple of 16. Neither value is inverted.
   */
  readonly fold: (start: number, end: number, crc: number) => number;
}

/** @returns undefined where there is no WebAssembly, or none with vectors */
export function startCrc32cFolder(): Crc32cFolder | undefined {
  const [AT, END, CRC, ...LOCALS] = [0, 1, 2, 3, 4, 5, 6, 7] as const;
  const [STOP, ...WORDS] = LOCALS;
  const code = [
    ...shorten(EIGHT_TERMS, 2 * TWELVE_TERMS.reach, AT, END, CRC, STOP),
    ...shorten(TWELVE_TERMS, TWELVE_TERMS.reach, AT, END, CRC, STOP),
    ...lookUpAll(AT, END, CRC, WORDS),
    ...op.get(CRC),
  ];
  const fold = { parameters: 3, returns: true, locals: LOCALS.map(() => I32), code };
  const module = startWasm(DATA_AT + DATA_BYTES, { fold });
  if (module === undefined) return undefined;
  const tables = new Uint32Array(module.memory, 0, (TABLE_COUNT * TABLE_BYTES) / 4);
  for (const [i, table] of makeTables(TABLE_COUNT).entries()) tables.set(table, i * 256);
  return {
    data: new Uint8Array(module.memory, DATA_AT),
    fold: (start, end, crc) => module.functions.fold(DATA_AT + start, DATA_AT + end, crc),
  };
}

/**
 * Unless they are too few, sums up the blocks from `at` on, so that the `left` bytes before `end`, where `at` stands
 * then, have the remainder of all. The first blocks have fewer before them, and the last are summed up from
 * cleared ones alone.
 * @param left the multiple's reach at least
 */
function shorten(
  { distances, reach }: Multiple,
  left: number,
  at: number,
  end: number,
  crc: number,
  stop: number,
): op.Code {
  const { add, get, number, set, subtract } = op;
  // An instruction's offset has no sign: `at` stays `reach` bytes behind the block that is summed up.
  const block = (distance: number): op.Code => op.readVector(get(at), reach - distance);
  const sumUp = (from: readonly number[]): op.Code => {
    const sum = from.reduce((sum, distance) => op.bitsDiffer(sum, block(distance)), block(0));
    const step = [...op.writeVector(get(at), sum, reach), ...op.increase(at, BLOCK_BYTES)];
    return op.block(op.loop(op.branchIf(1, op.isZero(op.less(get(at), get(stop)))), step, op.branch(0)));
  };
  const untilEach = (which: (place: number) => readonly number[]): op.Code =>
    distances.flatMap((distance, place) => [
      ...set(stop, add(get(at), number(distance - (distances[place - 1] ?? 0)))),
      ...sumUp(which(place)),
    ]);
  return op.when(
    op.more(subtract(get(end), get(at)), number(left + reach - 1)),
    op.writeWord(get(at), op.xor(op.readWord(get(at)), get(crc))),
    set(crc, number(0)),
    op.increase(at, -reach),
    untilEach((place) => distances.slice(0, place)),
    set(stop, subtract(get(end), number(left + reach))),
    sumUp(distances),
    untilEach((place) => distances.slice(place)),
  );
}

/**
 * While at < end, the sixteen bytes of four words are looked up, each in the table of its place, and the results
 * joined ("slicing", Kounavis and Berry, 2005).
 *
 * Only the first word depends on the step before. It comes last, and what is joined is joined in pairs:
 * one behind the other, the processor waits for each of sixteen results, which takes twice as long.
 */
function lookUpAll(at: number, end: number, crc: number, words: readonly number[]): op.Code {
  const { get, number, set, xor } = op;
  const lookUp = (word: number, byte: number): op.Code => {
    const value = get(words[word]!);
    // The byte times four, for a table of words.
    const place =
      byte === 0
        ? op.shiftLeft(op.and(value, number(0xff)), number(2))
        : op.and(op.shiftRight(value, number(byte * 8 - 2)), number(0x3fc));
    return op.readWord(place, (TABLE_COUNT - 1 - word * 4 - byte) * TABLE_BYTES);
  };
  const join = (values: readonly op.Code[]): op.Code => {
    if (values.length === 1) return values[0]!;
    const half = values.length >> 1;
    return xor(join(values.slice(0, half)), join(values.slice(half)));
  };
  const bytesOf = (word: number): op.Code[] => [0, 1, 2, 3].map((byte) => lookUp(word, byte));
  const step = [
    ...[1, 2, 3].flatMap((word) => [...set(words[word]!, op.readWord(get(at), word * 4))]),
    ...set(words[0]!, xor(op.readWord(get(at)), get(crc))),
    ...set(crc, xor(join([1, 2, 3].flatMap(bytesOf)), join(bytesOf(0)))),
    ...op.increase(at, BLOCK_BYTES),
  ];
  return op.block(op.loop(op.branchIf(1, op.isZero(op.less(get(at), get(end)))), step, op.branch(0)));
}
