import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { Turnstile } from "../../runtime/turnstile.ts";

test("those that ask pass in their order, and never more than the limit at a time, but for one alone", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.integer({ min: 1, max: 150 }), { minLength: 1, maxLength: 30 }),
      async (amounts) => {
        const limit = 100;
        const turnstile = new Turnstile(limit);
        const passed: number[] = [];
        let inside = 0;
        await Promise.all(
          amounts.map(async (amount, i) => {
            await turnstile.take(amount);
            passed.push(i);
            inside++;
            assert.ok(turnstile.taken <= limit || inside === 1);
            await new Promise((resolve) => setImmediate(resolve));
            inside--;
            turnstile.give(amount);
          }),
        );
        assert.deepEqual(
          passed,
          amounts.map((_, i) => i),
        );
        assert.equal(turnstile.taken, 0);
      },
    ),
  );
});

test("it is full for whoever would have to wait behind another", () => {
  const turnstile = new Turnstile(10);
  void turnstile.take(8);
  assert.equal(turnstile.isFull(2), false);
  assert.equal(turnstile.isFull(3), true);
  void turnstile.take(3);
  assert.equal(turnstile.isFull(1), true);
  turnstile.give(8);
  assert.equal(turnstile.isFull(1), false);
});

test("no more run at once than there are places, in the order in which they came, whatever fails", async () => {
  const turnstile = new Turnstile(3);
  const begun: number[] = [];
  const ends: Array<() => void> = [];
  let running = 0;
  const all = Array.from({ length: 10 }, (_, i) =>
    turnstile
      .run(1, async () => {
        begun.push(i);
        running++;
        await new Promise<void>((resolve) => ends.push(resolve));
        running--;
        if (i % 2 === 0) throw new Error(`${i} failed`);
        return i;
      })
      .catch((error: Error) => error.message),
  );
  for (let i = 0; i < 10; i++) {
    await new Promise((resolve) => setImmediate(resolve));
    assert.ok(running <= 3);
    assert.equal(begun.length, Math.min(10, i + 3));
    ends[i]!();
  }
  const answers = Array.from({ length: 10 }, (_, i) => (i % 2 === 0 ? `${i} failed` : i));
  assert.deepEqual(await Promise.all(all), answers);
  assert.deepEqual(begun, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
});
