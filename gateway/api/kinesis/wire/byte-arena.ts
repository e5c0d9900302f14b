/**
 * A piece of memory in which bytes are moved, and written as base64 (RFC 4648 §4), sixteen at a step
 * by a small WebAssembly module. For short pieces: a call of Buffer costs more than it moves. Where
 * there is no SIMD, Buffer does it; the results are the same.
 */
import {
  I32,
  startSharedWasm,
  startWasm,
  V128,
  type WasmFunction,
} from "../../../../runtime/wasm-assembly.ts";
import * as op from "../../../../runtime/wasm-instructions.ts";

/** Up to so many bytes are read, and written, beyond what was asked for: leave them room. */
export const SLACK_BYTES = 16;
const TWO_PADS = 0x3d3d;

export interface ByteArena<More extends string = never> {
  readonly memory: Buffer;
  /** Of the same bytes. */
  readonly view: DataView;
  /** Copies `memory[from, end)` to `to`, of which it may not be a part. */
  readonly move: (from: number, end: number, to: number) => void;
  /** Writes `memory[from, end)` as base64 at `to`. @returns where the text ends */
  readonly base64: (from: number, end: number, to: number) => number;
  /** Functions of others on the same memory; undefined where there is no SIMD. */
  readonly more: Readonly<Record<More, (...numbers: number[]) => number>> | undefined;
}

/** @param how "shared" where another thread is to see the memory; "plain" for its oracle */
export function makeByteArena<More extends string = never>(
  bytes: number,
  how: "fastest" | "shared" | "plain" = "fastest",
  more = {} as Readonly<Record<More, WasmFunction>>,
): ByteArena<More> {
  const start = how === "shared" ? startSharedWasm : startWasm;
  const wasm =
    how === "plain"
      ? undefined
      : start<More | "move" | "base64">(bytes, { ...more, move: MOVE, base64: BASE64 });
  if (wasm === undefined) return { ...plainArena(bytes), more: undefined };
  const { move, base64 } = wasm.functions;
  const memory = Buffer.from(wasm.memory);
  return { memory, view: new DataView(wasm.memory), move, base64, more: wasm.functions };
}

function plainArena(bytes: number): Omit<ByteArena, "more"> {
  const memory = Buffer.alloc(bytes);
  return {
    memory,
    view: new DataView(memory.buffer, memory.byteOffset, memory.length),
    move: (from, end, to) => void memory.copy(memory, to, from, end),
    base64: (from, end, to) => to + memory.write(memory.toString("base64", from, end), to, "latin1"),
  };
}

const { add, get, increase, number, readVector, set, subtract, when, writeVector } = op;

/** move(from, end, to) */
const MOVE: WasmFunction = {
  parameters: 3,
  returns: false,
  locals: [],
  code: op.loop(
    writeVector(get(2), readVector(get(0))),
    increase(0, 16),
    increase(2, 16),
    op.branchIf(0, op.less(get(0), get(1))),
  ),
};

/** Of each word two halves, the two bytes of which begin with six bits that become one character. */
const HALVES = [1, 0, 2, 1, 4, 3, 5, 4, 7, 6, 8, 7, 10, 9, 11, 10];
/** What to add to six bits: to those of a…z, of each digit, of + and /, and of A…Z. */
const TO_CHARACTER = [97 - 26, ...new Array<number>(10).fill(48 - 52), 43 - 62, 47 - 63, 65, 0, 0];

/** Twelve bytes of V, as sixteen characters in V. */
function textOf(V: number): op.Code {
  return [
    // aaaaaabb bbbbcccc and bbbbcccc ccdddddd: the second is shifted to have its twelve bits in front, too.
    ...set(V, op.halvesMultiply(op.pick(get(V), op.vector(HALVES)), op.repeated(1, 0, 16, 0))),
    ...set(
      V,
      op.bitsOr(op.halvesRight(get(V), 10), op.bitsAnd(op.halvesLeft(get(V), 4), op.repeated(0, 63))),
    ),
    // 0 to 25 select 13 of TO_CHARACTER, 26 to 51 select 0, the others 1 to 12.
    ...set(
      V,
      op.bytesAdd(
        op.pick(
          op.vector(TO_CHARACTER),
          op.bitsOr(
            op.bytesSubtractToZero(get(V), op.repeated(51)),
            op.bitsAnd(op.bytesLessSigned(get(V), op.repeated(26)), op.repeated(13)),
          ),
        ),
        get(V),
      ),
    ),
  ];
}

/**
 * Writes memory[FROM, END) as base64 at TO, which is left behind it. FROM, REST and V (a vector) change.
 * Behind the text, up to sixteen bytes are written.
 */
export function base64Of(local: {
  readonly FROM: number;
  readonly END: number;
  readonly TO: number;
  readonly REST: number;
  readonly V: number;
}): op.Code {
  const { FROM, END, TO, REST, V } = local;
  const twelveLeft = op.isZero(op.less(get(REST), number(12)));
  const lanes = op.vector(Array.from({ length: 16 }, (_, i) => i));
  const quads = FROM;
  return [
    set(REST, subtract(get(END), get(FROM))),
    when(
      twelveLeft,
      op.loop(
        set(V, readVector(get(FROM))),
        textOf(V),
        writeVector(get(TO), get(V)),
        increase(FROM, 12),
        increase(TO, 16),
        set(REST, subtract(get(REST), number(12))),
        op.branchIf(0, twelveLeft),
      ),
    ),
    // The rest, 0 to 11 bytes, as if zeros came behind; then what stands only for zeros is a pad.
    set(V, op.bitsAnd(readVector(get(FROM)), op.bytesLessSigned(lanes, op.fillBytes(get(REST))))),
    textOf(V),
    writeVector(get(TO), get(V)),
    // (rest + 2) / 3, for so small a number
    set(quads, op.shiftRight(op.multiply(add(get(REST), number(2)), number(11)), number(5))),
    increase(TO, op.shiftLeft(get(quads), number(2))),
    op.writeHalf(subtract(add(get(TO), get(REST)), op.multiply(get(quads), number(3))), number(TWO_PADS)),
  ].flat();
}

/** base64(from, end, to) */
const BASE64: WasmFunction = {
  parameters: 3,
  returns: true,
  locals: [I32, V128],
  code: [...base64Of({ FROM: 0, END: 1, TO: 2, REST: 3, V: 4 }), ...get(2)],
};
