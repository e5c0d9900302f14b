import assert from "node:assert/strict";
import { totalmem } from "node:os";
import test from "node:test";
import { machineMemoryBytes } from "../../runtime/machine-memory.ts";

test("what there is of memory is the machine's, or less where the process is confined", () => {
  const bytes = machineMemoryBytes();
  assert.ok(bytes > 64 * 1_048_576 && bytes <= totalmem(), String(bytes));
  const limit = process.constrainedMemory();
  if (limit > 0) assert.ok(bytes <= limit);
});
