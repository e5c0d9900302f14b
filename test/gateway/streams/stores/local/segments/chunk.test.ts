/** The memory of a piece of a segment is used again when everybody has let it go, and not before. */
import assert from "node:assert/strict";
import test from "node:test";
import { Chunk } from "../../../../../../gateway/streams/stores/local/segments/chunk.ts";

const KIB = 1_024;

test("memory is used again when the last holder has let go", () => {
  const chunk = new Chunk(undefined, 0, 700 * KIB);
  const { buffer } = chunk.bytes;
  const lentNext = (): unknown => {
    const next = new Chunk(undefined, 0, 600 * KIB);
    next.hold();
    next.letGo();
    return next.bytes.buffer;
  };
  chunk.hold();
  chunk.hold();
  chunk.letGo();
  assert.notEqual(lentNext(), buffer, "somebody holds it");
  chunk.letGo();
  assert.equal(lentNext(), buffer);
  assert.equal(chunk.memoryBytes, 1_024 * KIB, "what it costs is the memory, not the part in use");
});

test("small and very large ones are left to the collector", () => {
  for (const bytes of [0, 100, 8 * KIB - 1, 4_096 * KIB + 1]) {
    const chunk = new Chunk(undefined, 64, bytes);
    assert.equal(chunk.bytes.length, bytes);
    assert.equal(chunk.verifiedTo, 64);
    chunk.hold();
    chunk.letGo();
    assert.notEqual(new Chunk(undefined, 64, bytes + 9 * KIB).bytes.buffer, chunk.bytes.buffer);
  }
});
