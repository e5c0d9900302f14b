import assert from "node:assert/strict";
import { totalmem } from "node:os";
import test from "node:test";
import { heldMemoryBytes, machineMemoryBytes } from "../../runtime/machine-memory.ts";

test("what there is of memory is the machine's, or less where the process is confined", () => {
  const bytes = machineMemoryBytes();
  assert.ok(bytes > 64 * 1_048_576 && bytes <= totalmem(), String(bytes));
  const limit = process.constrainedMemory();
  if (limit > 0) assert.ok(bytes <= limit);
});

test("what may be held fits into small machines, and is never too little for one packet", () => {
  const mib = 1_048_576;
  for (const [machine, held] of [
    [256, 64],
    [1_024, 128],
    [24_576, 256],
  ] as const) {
    assert.equal(heldMemoryBytes(machine * mib), held * mib);
  }
});
