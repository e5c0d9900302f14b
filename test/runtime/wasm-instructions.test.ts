/** Instructions by their names: each does what it says. */
import assert from "node:assert/strict";
import test from "node:test";
import { F64, startWasm, V128 } from "../../runtime/wasm-assembly.ts";
import * as op from "../../runtime/wasm-instructions.ts";

const { get, number, set } = op;

/** @param code of two numbers in locals 0 and 1, and of a vector in local 2 that begins with the first one's bytes */
function run(code: op.Code, a = 0, b = 0): number {
  const locals = [V128, F64];
  const vector = set(2, op.readVector(number(0)));
  const body = [...op.writeWord(number(0), get(0)), ...vector, ...code];
  const wasm = startWasm(1, { it: { parameters: 2, returns: true, locals, code: body } });
  assert.ok(wasm !== undefined, "valid");
  return wasm.functions.it(a, b);
}

test("numbers are worked out as they are named, without a sign unless it is said", () => {
  const binary: [(a: op.Code, b: op.Code) => op.Code, number, number, number][] = [
    [op.equals, 3, 3, 1],
    [op.differ, 3, 3, 0],
    [op.lessSigned, -1, 1, 1],
    [op.less, -1, 1, 0],
    [op.more, -1, 1, 1],
    [op.add, 7, 3, 10],
    [op.subtract, 3, 7, -4],
    [op.multiply, -3, 7, -21],
    [op.divide, -2, 2, 0x7fff_ffff],
    [op.and, 12, 10, 8],
    [op.or, 12, 10, 14],
    [op.xor, 12, 10, 6],
    [op.shiftLeft, 3, 4, 48],
    [op.shiftRight, -1, 28, 15],
    [op.rotateLeft, 0x1234_5678, 8, 0x3456_7812],
  ];
  for (const [instruction, a, b, expected] of binary) {
    assert.equal(run(instruction(get(0), get(1)), a, b), expected);
  }
  assert.equal(run(op.isZero(get(0)), 0), 1);
  assert.equal(run(op.countOnes(get(0)), 0xff0f), 12);
  assert.equal(run(op.countZeros(get(0)), 0x50), 4);
  assert.equal(run(op.select(number(4), number(5), get(0)), 1), 4);
  assert.equal(run(op.select(number(4), number(5), get(0)), 0), 5);
});

test("what is conditional is done on its condition, and a branch leaves or repeats", () => {
  const halves = [
    ...set(1, number(0)),
    ...op.loop(
      op.when(
        get(0),
        set(0, op.shiftRight(get(0), number(1))),
        op.increase(1, 1),
        op.when(op.equals(get(1), number(20)), op.giveBack(number(-1))),
        op.branch(1),
      ),
    ),
    ...get(1),
  ];
  assert.equal(run(halves, 1_000), 10);
  assert.equal(run(halves, -1), -1);
  const which = [...op.either(get(0), [set(1, number(7))], [set(1, number(8))]), ...get(1)];
  assert.deepEqual([run(which, 1), run(which, 0)], [7, 8]);
  const twice = [...op.loop(op.increase(1, get(0)), op.branchIf(0, op.less(get(1), number(9)))), ...get(1)];
  assert.equal(run(twice, 4), 12);
  assert.equal(run([...op.block(op.branchIf(0, get(0)), set(1, number(5))), ...get(1)], 1, 2), 2);
});

test("memory is written and read at a place and an offset", () => {
  const writes = [
    op.writeWord(number(32), number(-1)),
    op.writeHalf(number(30), number(0x1_2345), 2),
    op.writeByte(number(33), number(0x67)),
  ];
  assert.equal(run([...writes.flat(), ...op.readWord(number(31), 1)]), 0xffff_6745 | 0);
  const double = op.addDoubles(
    op.toDouble(number(-1)),
    op.multiplyDoubles(op.toDouble(number(3)), op.toDouble(number(2))),
  );
  const written = op.writeDouble(number(32), double);
  const high = Buffer.alloc(8);
  high.writeDoubleLE(0xffff_ffff + 6);
  assert.equal(run([...written, ...op.readWord(number(36))]), high.readInt32LE(4));
});

test("vectors are worked on byte by byte", () => {
  const V = get(2);
  const of = (...bytes: number[]): op.Code =>
    op.vector([...bytes, ...new Array<number>(16 - bytes.length).fill(0)]);
  const bytes = of(1, 2, 3, 4, 0xff);
  const first = (vector: op.Code): op.Code => op.wordOf(vector, 0);
  const word = (...bytes: [number, number, number, number]): number => Buffer.from(bytes).readInt32LE();
  const own = 0x0520_0301;
  assert.equal(run(first(V), own), own);
  assert.equal(run(first(op.bytesAdd(V, bytes)), own), word(2, 5, 35, 9));
  assert.equal(run(first(op.bytesSubtract(V, bytes)), own), word(0, 1, 29, 1));
  assert.equal(run(first(op.bytesSubtractToZero(bytes, V)), own), word(0, 0, 0, 0));
  assert.equal(run(op.highBits(op.bytesEqual(V, op.repeated(3))), own), 0b0010);
  assert.equal(run(op.highBits(op.bytesLessSigned(of(0x80, 1), op.repeated(1))), own), 0xffff - 2);
  assert.equal(run(op.highBits(op.bytesLess(op.repeated(1), of(0x80, 1, 2))), own), 0b101);
  assert.equal(run(op.highBits(op.bytesDiffer(V, of(1, 3, 0x21, 5))), own), 0b0100);
  assert.deepEqual([run(op.anyBit(V), own), run(op.anyBit(V), 0)], [1, 0]);
  assert.equal(run(first(op.pairsMultiply(V, op.repeated(2, 0, 1, 0))), own), 0x0301 * 2 + 0x0520);
  assert.equal(run([...op.writeVector(number(32), V), ...op.readByte(number(32), 2)], own), 0x20);
  assert.equal(run(op.highBits(op.bytesMoreSigned(V, op.repeated(4))), own), 0b1100);
  assert.equal(run(first(op.bitsOr(V, op.bitsAnd(bytes, op.repeated(2, 0)))), own), word(1, 3, 34, 5));
  assert.equal(run(first(op.bitsDiffer(V, op.repeated(3, 0))), own), word(2, 3, 35, 5));
  assert.equal(run(first(op.pick(V, of(3, 2, 1, 16)))), 0);
  assert.equal(run(first(op.pick(V, of(3, 2, 1, 16))), own), word(5, 32, 3, 0));
  assert.equal(run(op.wordOf(op.fillWords(get(1)), 3), own, 9), 9);
  assert.equal(run(op.wordOf(op.fillBytes(get(1)), 3), own, 9), 0x0909_0909);
  assert.equal(run(first(op.halvesLeft(V, 4)), own), 0x5200_3010);
  assert.equal(run(first(op.halvesRight(V, 4)), own), 0x0052_0030);
  assert.equal(run(first(op.halvesMultiply(V, op.repeated(16, 0, 1, 0))), own), 0x0520_3010);
  assert.equal(run([...op.writeVector(number(32), V, 16), ...op.readWord(number(48))], own), own);
});
