/** Keys found by their bytes are those that stand there, with the hash that they have. */
import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { KnownKeys } from "../../../../../gateway/api/kinesis/puts/known-keys.ts";
import { md5 } from "../../../../../gateway/streams/md5.ts";

const known = new KnownKeys();

/** The slot of `key` in the middle of other bytes, found or learned. */
function slotOf(key: string, behind = '"},{'): { slot: number; wasKnown: boolean } {
  const bytes = Buffer.from(`"${key}${behind}`, "latin1");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const to = 1 + key.length;
  const slot = known.find(view, 1, to, bytes.length);
  if (slot >= 0) return { slot, wasKnown: true };
  return { slot: known.learn(view, 1, to, bytes.length, key), wasKnown: false };
}

function holds(slot: number, key: string): void {
  assert.equal(known.texts[slot], key);
  const words = [0, 8, 16, 24].map((at) => Number.parseInt(md5(key).slice(at, at + 8), 16));
  const copied = new Uint32Array(5);
  known.copyHash(slot, copied, 1);
  assert.deepEqual([...copied], [0, ...words]);
}

test("a slot holds the key that stands there, however many came before", () => {
  const key = fc.oneof(
    fc.string({ minLength: 1, maxLength: 60 }),
    fc.integer({ min: 0, max: 30_000 }).map((i) => `device-${i}`),
    fc.uuid(),
  );
  fc.assert(
    fc.property(fc.array(key, { maxLength: 200 }), (keys) => {
      for (const each of keys) holds(slotOf(each).slot, each);
    }),
    { numRuns: 300 },
  );
  for (let i = 0; i < 100_000; i++) slotOf(`sensor-${i}`);
  for (let i = 0; i < 1_000; i++) holds(slotOf(`sensor-${i * 100}`).slot, `sensor-${i * 100}`);
});

test("a key is known the second time, whatever stands behind it", () => {
  for (const key of ["a", "ab", "abc", "abcd", "device-1", "x".repeat(44)]) {
    slotOf(key, '"}]}');
    assert.equal(slotOf(key, '","Data').wasKnown, true, key);
  }
  assert.equal(slotOf("abc").slot === slotOf("abd").slot, false);
});

test("what is not kept: long ones, those at the very end, and all that JSON writes otherwise", () => {
  for (const key of ["x".repeat(45), 'a"b', "a\\b", "a\nb", "\u007f", "k\u00e4se"]) {
    slotOf(key);
    assert.equal(slotOf(key).wasKnown, false, key);
  }
  slotOf("z1", '"}');
  assert.equal(slotOf("z1", '"}').wasKnown, false);
});
