/** Moves and base64 by WebAssembly against Buffer's. */
import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { makeByteArena, SLACK_BYTES } from "../../../../../gateway/api/kinesis/wire/byte-arena.ts";

const BYTES = 4_096;
const TO = 2_048;

for (const how of ["fastest", "plain"] as const) {
  const arena = makeByteArena(BYTES, how);
  const some = fc.tuple(fc.uint8Array({ maxLength: 1_000 }), fc.nat(20), fc.nat(20));

  test(`base64 of any bytes at any place is RFC 4648's: ${how}`, () => {
    fc.assert(
      fc.property(some, ([bytes, before, toBefore]) => {
        // What stands around them must not count.
        arena.memory.fill(0xff);
        arena.memory.set(bytes, before);
        const to = TO + toBefore;
        const end = arena.base64(before, before + bytes.length, to);
        const text = Buffer.from(bytes).toString("base64");
        assert.equal(end, to + text.length);
        assert.equal(arena.memory.toString("latin1", to, end), text);
        assert.ok(arena.memory.subarray(0, before).every((byte) => byte === 0xff));
        assert.ok(arena.memory.subarray(TO, to).every((byte) => byte === 0xff));
        assert.ok(arena.memory.subarray(end + SLACK_BYTES).every((byte) => byte === 0xff));
      }),
    );
  });

  test(`bytes are moved as they are: ${how}`, () => {
    fc.assert(
      fc.property(some, ([bytes, before, toBefore]) => {
        arena.memory.fill(0);
        arena.memory.set(bytes, before);
        const to = TO + toBefore;
        arena.move(before, before + bytes.length, to);
        assert.ok(arena.memory.subarray(to, to + bytes.length).equals(bytes));
        assert.ok(arena.memory.subarray(TO, to).every((byte) => byte === 0));
        assert.ok(arena.memory.subarray(to + bytes.length + SLACK_BYTES).every((byte) => byte === 0));
      }),
    );
  });
}

test("each of the 64 characters stands for its six bits", () => {
  const { memory, base64 } = makeByteArena(BYTES);
  const text = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  memory.write(text, 0, "base64");
  assert.equal(memory.toString("latin1", TO, base64(0, 48, TO)), text);
});
