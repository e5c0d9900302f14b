/**
 * Records of one batch, from the log's form to that of an answer, by WebAssembly: no call between two
 * records. It takes what is usual and stops at anything else: data too long for its window, a key
 * that JSON escapes, bytes that are no batch. What it leaves is for the plain way of record-writer.ts.
 * Bounds are checked here, too: whatever a batch says, nothing but the window that holds it is read.
 *
 *   head | data | before the key | key | name | sequence number | end      one record after another
 *
 * Sequence numbers follow one another, so JavaScript works out only the first. From there on 2^80 is
 * added to its last 32 digits, held a byte each with the last one first: a carry runs through nines as
 * it does through ones where binary numbers are added, so that one sum of two words tells all carries.
 */
import { RECORD_HEAD_BYTES } from "../../../../protocol/record-batch.ts";
import { I32, V128, type WasmFunction } from "../../../../runtime/wasm-assembly.ts";
import * as op from "../../../../runtime/wasm-instructions.ts";
import { SEQUENCE_NUMBER_DIGITS } from "../../../streams/streams.ts";
import { base64Of } from "../wire/byte-arena.ts";
import { escapes, openRun } from "./batch-simd.ts";

/** What `write` takes and leaves, a word each, from `stateAt` on; in it, each is the local of that number. */
const STATE = [
  // Runs that are still to come, where the next has its head in the table, and where the table ends.
  "runs",
  "table",
  "tableEnd",
  // Where the next record has its head; where its run ends, and where all end.
  "body",
  "runEnd",
  "bodyEnd",
  // Records of the run in hand that are still to come, and its key.
  "left",
  "key",
  "keyEnd",
  // Records to pass over, and those to write behind them.
  "skip",
  "take",
  // Where the next one goes. None is begun behind the limit.
  "out",
  "outLimit",
  "headBytes",
] as const;
type StateWord = (typeof STATE)[number];

/** Which word of the state each is. */
export const stateWord = Object.fromEntries(STATE.map((name, i) => [name, i])) as Record<StateWord, number>;
export const STATE_BYTES = 4 * STATE.length;

/** It is done, or leaves the rest to others: `take` tells how many records. */
export const STOPPED = 0;
/** To be called again with an empty window, and the digits of the next record. */
export const AGAIN = 1;

/** Longer ones do not fit. */
export const MAX_HEAD_BYTES = 64;
/** Data and keys are copied in steps of so many bytes. */
const STEP_BYTES = 32;
/** Up to so many bytes are read behind a batch, and written behind a record. */
export const ROOM_BEHIND_BYTES = 64;

/** Where the pieces stand; behind each may be read on, to the next sixteen bytes. */
export interface RecordPieces {
  readonly stateAt: number;
  /** From a record's beginning to its data. */
  readonly headAt: number;
  /** The sequence number of the next record. */
  readonly digitsAt: number;
  readonly beforeKeyAt: number;
  readonly beforeKeyBytes: number;
  /** Between the key and the sequence number. */
  readonly nameAt: number;
  readonly nameBytes: number;
}

type Code = op.Code;
type Form = "json" | "cbor";
const { add, get, increase, number, readVector, set, subtract, when, writeVector } = op;

/** `"},` */
const JSON_END = 0x2c_7d_22;
const REVERSED = op.vector(Array.from({ length: 16 }, (_, i) => 15 - i));
const ZEROS = op.repeated(0x30);
/** The digits of what one offset more adds, the last one first. */
const STEP = [...String(2n ** 80n).padStart(32, "0")].reverse().map(Number);

// Locals of `write` behind those of the state. DATA and BYTES change within a record.
const DATA = STATE.length;
const [BYTES, NINES, CARRIES] = [DATA + 1, DATA + 2, DATA + 3] as const;
// Then vectors: one for anything, the digits that change, as numbers, and those that do not, as text.
const V = DATA + 4;
const [LOW, HIGH, FIRST, BEHIND_FIRST] = [V + 1, V + 2, V + 3, V + 4] as const;
const LOCALS = [...new Array<number>(V).fill(I32), ...new Array<number>(BEHIND_FIRST + 1 - V).fill(V128)];
const [TABLE, BODY, RUN_END] = [stateWord.table, stateWord.body, stateWord.runEnd];
const [LEFT, KEY, KEY_END] = [stateWord.left, stateWord.key, stateWord.keyEnd];
const [SKIP, TAKE, OUT] = [stateWord.skip, stateWord.take, stateWord.out];

/** Adds 2^80 to LOW and HIGH. Where it would go on into the digits above, CARRIES and NINES tell. */
function nextNumber(): Code {
  const bitsOf = (low: Code, high: Code): Code =>
    op.or(op.highBits(low), op.shiftLeft(op.highBits(high), number(16)));
  const over = (digits: number): Code => op.bytesMoreSigned(get(digits), op.repeated(9));
  const nine = (digits: number): Code => op.bytesEqual(get(digits), op.repeated(9));
  const bit = op.repeated(1, 2, 4, 8, 16, 32, 64, 128);
  const carry = (digits: number, firstByte: number): Code => {
    const bytes = op.vector(Array.from({ length: 16 }, (_, i) => firstByte + (i >> 3)));
    // A byte of ones is -1.
    const carried = op.bytesEqual(op.bitsAnd(op.pick(get(V), bytes), bit), bit);
    return [
      ...set(digits, op.bytesSubtract(get(digits), carried)),
      ...set(digits, op.bytesSubtract(get(digits), op.bitsAnd(over(digits), op.repeated(10)))),
    ];
  };
  return [
    ...set(LOW, op.bytesAdd(get(LOW), op.vector(STEP.slice(0, 16)))),
    ...set(HIGH, op.bytesAdd(get(HIGH), op.vector(STEP.slice(16)))),
    ...set(NINES, bitsOf(nine(LOW), nine(HIGH))),
    ...set(
      CARRIES,
      op.xor(add(op.shiftLeft(bitsOf(over(LOW), over(HIGH)), number(1)), get(NINES)), get(NINES)),
    ),
    ...set(V, op.fillWords(get(CARRIES))),
    ...carry(LOW, 0),
    ...carry(HIGH, 2),
  ];
}

/** As `cborHead`, of a length that is below 65,536. */
function putCborHead(OUT: number, major: number, length: number): Code {
  const put = (bytes: number, write: Code): Code => [...write, ...increase(OUT, bytes)];
  const swapped = op.or(
    op.shiftLeft(op.and(get(length), number(0xff)), number(16)),
    op.and(get(length), number(0xff00)),
  );
  return op.either(
    op.less(get(length), number(24)),
    [put(1, op.writeByte(get(OUT), op.or(get(length), number(major))))],
    [
      op.either(
        op.less(get(length), number(0x100)),
        [put(2, op.writeHalf(get(OUT), op.or(op.shiftLeft(get(length), number(8)), number(major | 24))))],
        [put(3, op.writeWord(get(OUT), op.or(swapped, number(major | 25))))],
      ),
    ],
  );
}

/** Pieces of a fixed length, with whatever stands behind them. */
const putPiece = (at: number, bytes: number): Code =>
  Array.from({ length: Math.ceil(bytes / 16) }, (_, i) =>
    writeVector(get(OUT), readVector(number(0), at + 16 * i), 16 * i),
  ).flat();

/** Copies memory[from, end); `from` changes. */
const copy = (from: number, end: number): Code => [
  ...op.loop(
    ...Array.from({ length: STEP_BYTES / 16 }, (_, i) =>
      writeVector(get(OUT), readVector(get(from), 16 * i), 16 * i),
    ),
    increase(from, STEP_BYTES),
    increase(OUT, STEP_BYTES),
    op.branchIf(0, op.less(get(from), get(end))),
  ),
  // It went further by as much as `from` is behind the end.
  ...set(OUT, subtract(get(OUT), subtract(get(from), get(end)))),
];

function nextRun(form: Form, stop: Code): Code {
  const run = { AT: TABLE, TABLE_END: stateWord.tableEnd, KEY, KEY_END, COUNT: LEFT, BYTES, V };
  const refuseEscapes = op.loop(
    when(escapes(TABLE, KEY_END, V, BYTES), stop),
    increase(TABLE, 16),
    op.branchIf(0, op.less(get(TABLE), get(KEY_END))),
  );
  return [
    when(op.differ(get(BODY), get(RUN_END)), stop),
    when(op.isZero(get(stateWord.runs)), stop),
    set(stateWord.runs, subtract(get(stateWord.runs), number(1))),
    openRun(run, subtract(get(stateWord.bodyEnd), get(RUN_END)), stop),
    increase(RUN_END, get(BYTES)),
    set(TABLE, get(KEY)),
    form === "json" ? refuseEscapes : [],
    set(TABLE, get(KEY_END)),
  ].flat();
}

/** Its data are then BYTES long, from DATA up to BODY. */
function nextRecord(maxDataBytes: number, stop: Code): Code {
  const swapped = op.or(
    op.and(op.rotateLeft(get(BYTES), number(8)), number(0x00ff_00ff)),
    op.and(op.rotateLeft(get(BYTES), number(24)), number(0xff00_ff00 | 0)),
  );
  return [
    set(LEFT, subtract(get(LEFT), number(1))),
    set(DATA, add(get(BODY), number(RECORD_HEAD_BYTES))),
    when(op.more(get(DATA), get(RUN_END)), stop),
    set(BYTES, op.readWord(get(BODY))),
    set(BYTES, swapped),
    when(op.more(get(BYTES), subtract(get(RUN_END), get(DATA))), stop),
    when(op.more(get(BYTES), number(maxDataBytes)), stop),
    set(BODY, add(get(DATA), get(BYTES))),
  ].flat();
}

function putRecord(form: Form, pieces: RecordPieces): Code {
  const isJson = form === "json";
  const ascii = (digits: number): Code => op.pick(op.bytesAdd(get(digits), ZEROS), REVERSED);
  return [
    putPiece(pieces.headAt, MAX_HEAD_BYTES),
    increase(OUT, get(stateWord.headBytes)),
    ...(isJson
      ? [base64Of({ FROM: DATA, END: BODY, TO: OUT, REST: BYTES, V })]
      : [putCborHead(OUT, 0x40, BYTES), copy(DATA, BODY)]),
    putPiece(pieces.beforeKeyAt, pieces.beforeKeyBytes),
    increase(OUT, pieces.beforeKeyBytes),
    ...(isJson ? [] : [set(BYTES, subtract(get(KEY_END), get(KEY))), putCborHead(OUT, 0x60, BYTES)]),
    set(DATA, get(KEY)),
    copy(DATA, KEY_END),
    putPiece(pieces.nameAt, pieces.nameBytes),
    increase(OUT, pieces.nameBytes),
    writeVector(get(OUT), get(FIRST)),
    writeVector(get(OUT), get(BEHIND_FIRST), 8),
    writeVector(get(OUT), ascii(HIGH), 24),
    writeVector(get(OUT), ascii(LOW), 40),
    increase(OUT, SEQUENCE_NUMBER_DIGITS),
    ...(isJson ? [op.writeWord(get(OUT), number(JSON_END)), increase(OUT, 3)] : []),
  ].flat();
}

/** write(): as the state says. @returns STOPPED or AGAIN */
export function writeFunction(form: Form, pieces: RecordPieces, maxDataBytes: number): WasmFunction {
  const place = (i: number): number => pieces.stateAt + 4 * i;
  const load = STATE.flatMap((_, i) => set(i, op.readWord(number(0), place(i))));
  const keep = STATE.flatMap((_, i) => op.writeWord(number(0), get(i), place(i)));
  const stop = [...keep, ...op.giveBack(number(STOPPED))];
  const again = [...keep, ...op.giveBack(number(AGAIN))];
  const digits = (at: number): Code => readVector(number(0), pieces.digitsAt + at);
  const values = (at: number): Code => op.pick(op.bytesSubtract(digits(at), ZEROS), REVERSED);
  const code = [
    ...[load, set(FIRST, digits(0)), set(BEHIND_FIRST, digits(8))],
    ...[set(HIGH, values(24)), set(LOW, values(40))],
    op.loop(
      when(op.isZero(get(TAKE)), stop),
      when(op.more(get(OUT), get(stateWord.outLimit)), again),
      when(op.isZero(get(LEFT)), nextRun(form, stop)),
      nextRecord(maxDataBytes, stop),
      when(get(SKIP), set(SKIP, subtract(get(SKIP), number(1))), op.branch(1)),
      putRecord(form, pieces),
      set(TAKE, subtract(get(TAKE), number(1))),
      nextNumber(),
      when(op.lessSigned(op.and(get(CARRIES), get(NINES)), number(0)), again),
      op.branch(0),
    ),
    number(STOPPED),
  ].flat();
  return { parameters: 0, returns: true, locals: LOCALS, code };
}
