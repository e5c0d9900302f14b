/**
 * The table of a batch, by WebAssembly: its runs one after another, with every bound that `BatchWalk` checks,
 * and what JSON will escape of their keys. `BatchWalk` and `escapedBytes` are the plain way.
 */
import { MAX_KEY_BYTES, RECORD_HEAD_BYTES, RUN_OVERHEAD_BYTES } from "../../../../protocol/record-batch.ts";
import { F64, I32, V128, type WasmFunction } from "../../../../runtime/wasm-assembly.ts";
import * as op from "../../../../runtime/wasm-instructions.ts";

type Code = op.Code;
const { add, get, increase, number, readVector, set, subtract, when } = op;

const atLeast = (a: Code, b: Code): Code => op.isZero(op.less(a, b));

/** u16 keyBytes | u32 recordCount | u32 bodyBytes, as three words. */
const RUN_HEAD = op.vector([1, 0, 16, 16, 5, 4, 3, 2, 9, 8, 7, 6, 16, 16, 16, 16]);

/** Numbers, and a vector. KEY to BYTES are what is found. */
interface RunLocals {
  /** Where its head is, and where the table ends. */
  readonly AT: number;
  readonly TABLE_END: number;
  readonly KEY: number;
  readonly KEY_END: number;
  readonly COUNT: number;
  readonly BYTES: number;
  readonly V: number;
}

/** Reads the head of a run; what `BatchWalk` throws at, does `refuse`, which has to leave. */
export function openRun(local: RunLocals, bodyLeft: Code, refuse: Code): Code {
  const { AT, TABLE_END, KEY, KEY_END, COUNT, BYTES, V } = local;
  return [
    when(op.less(subtract(get(TABLE_END), get(AT)), number(RUN_OVERHEAD_BYTES)), refuse),
    set(V, op.pick(readVector(get(AT)), RUN_HEAD)),
    set(KEY, add(get(AT), number(RUN_OVERHEAD_BYTES))),
    set(KEY_END, op.wordOf(get(V), 0)),
    when(atLeast(subtract(get(KEY_END), number(1)), number(MAX_KEY_BYTES)), refuse),
    when(op.more(get(KEY_END), subtract(get(TABLE_END), get(KEY))), refuse),
    increase(KEY_END, get(KEY)),
    set(COUNT, op.wordOf(get(V), 1)),
    set(BYTES, op.wordOf(get(V), 2)),
    when(op.more(get(BYTES), bodyLeft), refuse),
    when(atLeast(subtract(get(COUNT), number(1)), op.divide(get(BYTES), number(RECORD_HEAD_BYTES))), refuse),
  ].flat();
}

/** A bit for each of the sixteen bytes at `at` that JSON escapes; of those from `end` on none. `x` and `rest` change. */
export function escapes(at: number, end: number, x: number, rest: number): Code {
  const bits = op.highBits(
    op.bitsOr(
      op.bytesEqual(op.bitsAnd(get(x), op.repeated(0xe0)), op.repeated(0)),
      op.bitsOr(op.bytesEqual(get(x), op.repeated(0x22)), op.bytesEqual(get(x), op.repeated(0x5c))),
    ),
  );
  return [
    ...set(x, readVector(get(at))),
    ...set(rest, subtract(get(end), get(at))),
    ...op.and(
      bits,
      op.select(
        number(0xffff),
        subtract(op.shiftLeft(number(1), get(rest)), number(1)),
        op.more(get(rest), number(15)),
      ),
    ),
  ];
}

/**
 * measure(table, tableEnd, runs, bodyBytes, to): at `to` the bytes of all records' keys as JSON has them,
 * a double. @returns how many records the runs have, -1 when they do not fill the table and the body exactly
 */
export function measureFunction(escapeBytes: number): WasmFunction {
  const [AT, TABLE_END, RUNS, BODY_LEFT, TO, KEY, KEY_END, COUNT, BYTES, RECORDS, ESCAPED, V, SUM] = [
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,
  ] as const;
  const refuse = op.giveBack(number(-1));
  const keyBytes = add(subtract(get(KEY_END), get(AT)), op.multiply(get(ESCAPED), number(escapeBytes)));
  const code = [
    ...op.loop(
      when(
        get(RUNS),
        openRun({ AT, TABLE_END, KEY, KEY_END, COUNT, BYTES, V }, get(BODY_LEFT), refuse),
        set(BODY_LEFT, subtract(get(BODY_LEFT), get(BYTES))),
        increase(RECORDS, get(COUNT)),
        set(AT, get(KEY)),
        set(ESCAPED, number(0)),
        op.loop(
          increase(ESCAPED, op.countOnes(escapes(KEY, KEY_END, V, BYTES))),
          increase(KEY, 16),
          op.branchIf(0, op.less(get(KEY), get(KEY_END))),
        ),
        set(SUM, op.addDoubles(get(SUM), op.multiplyDoubles(op.toDouble(get(COUNT)), op.toDouble(keyBytes)))),
        set(AT, get(KEY_END)),
        set(RUNS, subtract(get(RUNS), number(1))),
        op.branch(1),
      ),
    ),
    ...when(op.differ(get(AT), get(TABLE_END)), refuse),
    ...when(get(BODY_LEFT), refuse),
    ...op.writeDouble(get(TO), get(SUM)),
    ...get(RECORDS),
  ];
  return { parameters: 5, returns: true, locals: [I32, I32, I32, I32, I32, I32, V128, F64], code };
}
