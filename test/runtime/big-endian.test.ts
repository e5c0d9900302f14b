import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { putU16, putU32, u16, u32 } from "../../runtime/big-endian.ts";

test("reads and writes what a Buffer's own methods read and write", () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 8, maxLength: 64 }), fc.nat(), fc.nat(), (array, place, value) => {
      const bytes = Buffer.from(array);
      const at = place % (bytes.length - 3);
      assert.equal(u16(bytes, at), bytes.readUInt16BE(at));
      assert.equal(u32(bytes, at), bytes.readUInt32BE(at));
      const [ours, theirs] = [Buffer.from(bytes), Buffer.from(bytes)];
      putU32(ours, value, at);
      putU16(ours, value % 65_536, at + 2);
      theirs.writeUInt32BE(value, at);
      theirs.writeUInt16BE(value % 65_536, at + 2);
      assert.deepEqual(ours, theirs);
    }),
  );
});

test("nothing is read or written beyond a buffer's end", () => {
  const bytes = Buffer.alloc(8).subarray(0, 4);
  for (const at of [-1, 1, 4, 8, 0.5]) {
    assert.throws(() => u32(bytes, at), { name: "RangeError" });
    assert.throws(() => putU32(bytes, 1, at), { name: "RangeError" });
  }
  for (const at of [-1, 3, 4]) {
    assert.throws(() => u16(bytes, at), { name: "RangeError" });
    assert.throws(() => putU16(bytes, 1, at), { name: "RangeError" });
  }
  assert.throws(() => putU16(bytes, 65_536, 0), { name: "RangeError" });
});
