/** Whoever waits for a shard to grow hears of it once, and hears of nothing else. */
import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import test from "node:test";
import fc from "fast-check";
import { Listeners } from "../../../../gateway/streams/stores/listeners.ts";
import { oldGarbageOf, PROMISES_BYTES } from "../../../support/old-garbage.ts";

const SHARDS = 3;
const SIGNALS = 30;

const step = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      wait: fc.nat(SHARDS - 1),
      signal: fc.nat(SIGNALS - 1),
      above: fc.integer({ min: -1, max: 3 }),
    }),
  },
  { weight: 3, arbitrary: fc.record({ grow: fc.nat(SHARDS - 1), all: fc.boolean() }) },
  { weight: 2, arbitrary: fc.record({ abort: fc.nat(SIGNALS - 1) }) },
  { weight: 1, arbitrary: fc.constant({ rest: true } as const) },
);

test("each ends when its shard has grown or its signal aborts, and not before", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
      const listeners = new Listeners();
      const signals = Array.from({ length: SIGNALS }, () => new AbortController());
      const grown = new Array<number>(SHARDS).fill(0);
      const seen = new Array<number>(SHARDS).fill(0);
      const waiters: { isOver: () => boolean; ended: boolean }[] = [];
      for (const now of steps) {
        if ("wait" in now) {
          const { wait: shard, above } = now;
          const { signal } = signals[now.signal]!;
          const from = grown[shard]! + above;
          seen[shard] = grown[shard]!;
          const known = grown[shard]!;
          // What a check has not been told of yet counts only for those who come now.
          const isOver = (): boolean => signal.aborted || known > from || seen[shard]! > from;
          const waiter = { isOver, ended: false };
          waiters.push(waiter);
          void listeners
            .wait(shard, () => grown[shard]! > from, signal)
            .then(() => {
              waiter.ended = true;
            });
        } else if ("grow" in now) {
          grown[now.grow]!++;
          if (now.all) {
            listeners.checkAll();
            for (let shard = 0; shard < SHARDS; shard++) seen[shard] = grown[shard]!;
          } else {
            listeners.check(now.grow);
            seen[now.grow] = grown[now.grow]!;
          }
        } else if ("abort" in now) signals[now.abort]!.abort();
        else listeners.rest();
        await new Promise((resolve) => setImmediate(resolve));
        for (const waiter of waiters) assert.equal(waiter.ended, waiter.isOver());
        assert.equal(listeners.waiting, waiters.filter(({ ended }) => !ended).length);
      }
      for (const controller of signals) controller.abort();
      await new Promise((resolve) => setImmediate(resolve));
      assert.ok(waiters.every(({ ended }) => ended));
      assert.equal(listeners.waiting, 0);
    }),
    { numRuns: 200 },
  );
});

test("a signal that is used again and again has one listener, and none once all rests", async () => {
  const listeners = new Listeners();
  const { signal } = new AbortController();
  for (let i = 0; i < 100; i++) {
    let ends = false;
    const waited = Promise.all([0, 1, 2].map((shard) => listeners.wait(shard, () => ends, signal)));
    assert.equal(getEventListeners(signal, "abort").length, 1);
    ends = true;
    listeners.checkAll();
    await waited;
  }
  listeners.rest();
  assert.equal(getEventListeners(signal, "abort").length, 0);
  assert.equal(listeners.signals, 0);
});

test("signals that nobody aborts are not kept, those that somebody waits with are", async () => {
  const listeners = new Listeners();
  const held = new AbortController();
  let heard = false;
  void listeners
    .wait(7, () => false, held.signal)
    .then(() => {
      heard = true;
    });
  for (let i = 0; i < 1_000; i++) {
    let ends = false;
    const waited = listeners.wait(0, () => ends, new AbortController().signal);
    ends = true;
    listeners.check(0);
    await waited;
    assert.ok(listeners.signals <= 20, `${listeners.signals} signals`);
  }
  held.abort();
  await new Promise((resolve) => setImmediate(resolve));
  assert.ok(heard);
});

test("waiting leaves nothing for collections of the whole heap", async () => {
  const listeners = new Listeners();
  const { signal } = new AbortController();
  let grown = 0;
  const bytes = await oldGarbageOf(async (i) => {
    const waited = listeners.wait(0, () => grown > i, signal);
    grown = i + 1;
    listeners.checkAll();
    await waited;
  });
  assert.ok(bytes < PROMISES_BYTES, `${bytes} bytes each`);
});
