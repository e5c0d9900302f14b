/** Modules assembled at loading: they run, and what no machine takes is no failure. */
import assert from "node:assert/strict";
import { once } from "node:events";
import test from "node:test";
import { Worker } from "node:worker_threads";
import { I32, signed, startSharedWasm, startWasm, unsigned } from "../../runtime/wasm-assembly.ts";

const get = (local: number): number[] => [0x20, local];
const ADD = 0x6a;

test("functions run by their names, on one memory", () => {
  // plus(a, b) = a + b; put(at, value) stores the value's lowest byte and returns nothing
  const wasm = startWasm(65_536, {
    plus: { parameters: 2, returns: true, locals: [I32], code: [...get(0), ...get(1), ADD] },
    put: { parameters: 2, returns: false, locals: [], code: [...get(0), ...get(1), 0x3a, 0, 0] },
  });
  assert.ok(wasm !== undefined);
  assert.equal(wasm.functions.plus(40, 2), 42);
  wasm.functions.put(70, 0x101);
  assert.equal(new Uint8Array(wasm.memory)[70], 1);
  assert.equal(wasm.memory.byteLength, 65_536);
});

test("functions run on memory that other threads see", async () => {
  const wasm = startSharedWasm(65_537, {
    put: { parameters: 2, returns: false, locals: [], code: [...get(0), ...get(1), 0x3a, 0, 0] },
  });
  assert.ok(wasm !== undefined && wasm.memory instanceof SharedArrayBuffer);
  assert.equal(wasm.memory.byteLength, 131_072);
  wasm.functions.put(70, 42);
  const other = new Worker(
    `const { parentPort, workerData } = require("node:worker_threads");
    parentPort.postMessage(new Uint8Array(workerData)[70]);`,
    { eval: true, workerData: wasm.memory },
  );
  assert.deepEqual(await once(other, "message"), [42]);
});

test("memory is given in whole pages", () => {
  assert.equal(startWasm(65_537, {})?.memory.byteLength, 131_072);
});

test("code that is not valid starts nothing", () => {
  assert.equal(startWasm(1, { bad: { parameters: 0, returns: true, locals: [], code: [ADD] } }), undefined);
});

test("numbers of any size are read back by the machine", () => {
  for (const value of [
    0, 1, 63, 64, 127, 128, 8_191, 8_192, 65_535, 1_000_000, 0x7fff_ffff, -1, -64, -65, -123_456,
  ]) {
    const wasm = startWasm(1, {
      it: { parameters: 0, returns: true, locals: [], code: [0x41, ...signed(value)] },
    });
    assert.equal(wasm?.functions.it(), value);
  }
  assert.deepEqual(unsigned(624_485), [0xe5, 0x8e, 0x26]);
});
