/** Memory that is lent belongs to one borrower, whatever is taken and given back meanwhile. */
import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { MemoryPool } from "../../runtime/memory-pool.ts";
import { oldGarbageOf } from "../support/old-garbage.ts";

const KIB = 1_024;
const MAX_IDLE_BYTES = 32 * 1_024 * KIB;

test("what was given back is lent again, for any length of its size", () => {
  const memory = new MemoryPool(MAX_IDLE_BYTES);
  const first = memory.take(100 * KIB);
  assert.equal(first.length, 100 * KIB);
  assert.equal(memory.idleBytes, 0);
  memory.give(first);
  assert.equal(memory.idleBytes, 128 * KIB);
  const second = memory.take(128 * KIB);
  assert.equal(second.buffer, first.buffer);
  assert.equal(second.length, 128 * KIB);
  assert.equal(memory.idleBytes, 0);
  assert.notEqual(memory.take(100 * KIB).buffer, first.buffer, "it is lent");
});

test("an answer is given back by a part of it, and counts once", () => {
  const memory = new MemoryPool(MAX_IDLE_BYTES);
  const answer = memory.take(100 * KIB);
  memory.give(answer.subarray(7, 90 * KIB));
  memory.give(answer);
  memory.give(answer.subarray(1));
  assert.equal(memory.idleBytes, 128 * KIB);
  assert.notEqual(memory.take(128 * KIB).buffer, memory.take(128 * KIB).buffer);
});

test("small ones take memory of the least size, and bytes of others are none of its business", () => {
  const memory = new MemoryPool(MAX_IDLE_BYTES);
  const small = memory.take(5);
  assert.equal(small.length, 5);
  memory.give(small);
  assert.equal(memory.idleBytes, 8 * KIB);
  assert.equal(memory.take(8 * KIB).buffer, small.buffer);
  memory.give(Buffer.alloc(128 * KIB));
  memory.give(Buffer.from("from the pool of node:buffer"));
  memory.give(new MemoryPool(MAX_IDLE_BYTES).take(128 * KIB));
  assert.equal(memory.idleBytes, 0);
});

test("what is kept is bounded, and makes room for answers of another size", () => {
  const memory = new MemoryPool(1_024 * KIB);
  const many = Array.from({ length: 12 }, () => memory.take(128 * KIB));
  for (const answer of many) memory.give(answer);
  assert.equal(memory.idleBytes, 1_024 * KIB);
  const large = memory.take(500 * KIB);
  memory.give(large);
  assert.equal(memory.idleBytes, 1_024 * KIB);
  assert.equal(memory.take(512 * KIB).buffer, large.buffer, "the burst of small ones does not keep it out");
  memory.give(memory.take(2_048 * KIB));
  assert.equal(memory.idleBytes, 512 * KIB, "too large to be kept at all");
});

/** Takes of any length, and gives of any of those, of a part of it, or of what was given before. */
const step = fc.oneof(
  fc.record({ take: fc.integer({ min: 1, max: 700 * KIB }) }),
  fc.record({ give: fc.nat(), from: fc.nat(60 * KIB) }),
);

test("nobody writes into what another one holds", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const maxIdleBytes = 1_500 * KIB;
      const memory = new MemoryPool(maxIdleBytes);
      const held: { answer: Buffer; mark: number }[] = [];
      let mark = 0;
      for (const now of steps) {
        if ("take" in now) {
          const answer = memory.take(now.take);
          assert.equal(answer.length, now.take);
          mark = (mark + 1) % 251;
          answer.fill(mark);
          held.push({ answer, mark });
        } else if (held.length > 0) {
          const [{ answer, mark }] = held.splice(now.give % held.length, 1) as [(typeof held)[0]];
          assert.ok(isAll(answer, mark), "nobody else wrote into it");
          memory.give(answer.subarray(Math.min(now.from, answer.length - 1)));
          memory.give(answer);
        }
        assert.ok(memory.idleBytes <= maxIdleBytes);
      }
      for (const { answer, mark } of held) assert.ok(isAll(answer, mark), "nobody else wrote into it");
      for (let size = 8 * KIB; size <= 1_024 * KIB; size *= 2) {
        for (let before = -1; before !== memory.idleBytes; memory.take(size)) before = memory.idleBytes;
      }
      assert.equal(memory.idleBytes, 0, "what is idle is there to be taken");
    }),
    { numRuns: 150 },
  );
});

function isAll(bytes: Buffer, value: number): boolean {
  return bytes[0] === value && bytes.subarray(1).equals(bytes.subarray(0, -1));
}

test("lending leaves nothing for collections of the whole heap", async () => {
  const memory = new MemoryPool(MAX_IDLE_BYTES);
  const bytes = await oldGarbageOf((i) => {
    memory.give(memory.take(((i % 3) + 1) * 8 * KIB));
    return undefined;
  });
  assert.ok(bytes < 40, `${bytes} bytes each`);
});
