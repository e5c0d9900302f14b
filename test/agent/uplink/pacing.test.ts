import assert from "node:assert/strict";
import test, { type TestContext } from "node:test";
import fc from "fast-check";
import { Pacer, type Traffic, wireBytes } from "../../../agent/uplink/pacing.ts";

/** Timers and the clock move together, only when told. */
function handTurned(t: TestContext): { clock: { monotonicMs(): number }; pass(ms: number): Promise<void> } {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  let nowMs = 1_000;
  return {
    clock: { monotonicMs: () => nowMs },
    async pass(ms) {
      // Whoever was given something writes down when, before time goes on.
      await undefined;
      for (let i = 0; i < ms; i++) {
        nowMs++;
        t.mock.timers.tick(1);
        await undefined;
      }
    },
  };
}

const never = new AbortController().signal;

/** Takes, and writes down what was given and when. */
function taker(pacer: Pacer, clock: { monotonicMs(): number }) {
  const given: { atMs: number; bytes: number; traffic: Traffic }[] = [];
  const take = (bytes: number, traffic: Traffic, signal = never): Promise<boolean> => {
    const asked = pacer.take(bytes, traffic, signal);
    void asked.then((may) => may && given.push({ atMs: clock.monotonicMs(), bytes, traffic }));
    return asked;
  };
  return { given, take };
}

test("without a cap nothing waits", async (t) => {
  const { clock } = handTurned(t);
  const pacer = new Pacer(clock);
  for (let i = 0; i < 100; i++) assert.equal(await pacer.take(10_000_000, "footage", never), true);
  assert.equal(pacer.waitedMs, 0);
  assert.equal(pacer.publishBytes(262_144), 262_144);
});

test("over any time no more goes out than the cap, one burst and one large publish allow", async (t) => {
  const { clock, pass } = handTurned(t);
  const traffic = fc.constantFrom<Traffic>("live", "backlog", "footage");
  const takes = fc.array(
    fc.record({
      afterMs: fc.integer({ min: 0, max: 60 }),
      bytes: fc.integer({ min: 1, max: 40_000 }),
      traffic,
    }),
    { minLength: 1, maxLength: 40 },
  );
  await fc.assert(
    fc.asyncProperty(takes, fc.integer({ min: 5_000, max: 500_000 }), async (asked, rate) => {
      const pacer = new Pacer(clock, rate);
      const { given, take } = taker(pacer, clock);
      for (const { afterMs, bytes, traffic: kind } of asked) {
        await pass(afterMs);
        void take(bytes, kind);
      }
      const all = asked.reduce((sum, { bytes }) => sum + wireBytes(bytes), 0);
      for (let ms = 0; given.length < asked.length; ms += 20) {
        assert.ok(ms < (all / rate) * 1_000 + 5_000, "it stands still");
        await pass(20);
      }
      const largest = Math.max(2_048, rate / 4, ...asked.map(({ bytes }) => wireBytes(bytes)));
      for (let from = 0; from < given.length; from++) {
        let sum = 0;
        for (const { atMs, bytes } of given.slice(from)) {
          sum += wireBytes(bytes);
          const seconds = (atMs - given[from]!.atMs) / 1_000;
          assert.ok(sum <= rate * seconds + largest + 1e-6, `${sum} bytes in ${seconds} s at ${rate}/s`);
        }
      }
      pacer.close();
    }),
    { numRuns: 60 },
  );
});

test("live goes before backlog, and backlog before footage; each in its own order", async (t) => {
  const { clock, pass } = handTurned(t);
  const pacer = new Pacer(clock, 10_000);
  const { given, take } = taker(pacer, clock);
  await take(30_000, "backlog");
  const waiting = [
    take(1_000, "footage"),
    take(1_100, "backlog"),
    take(1_200, "backlog"),
    take(1_300, "live"),
  ];
  await pass(10_000);
  await Promise.all(waiting);
  assert.deepEqual(
    given.map(({ bytes }) => bytes),
    [30_000, 1_300, 1_100, 1_200, 1_000],
  );
});

test("the cap is used: a backlog takes all of it", async (t) => {
  const { clock, pass } = handTurned(t);
  const pacer = new Pacer(clock, 50_000);
  let sent = 0;
  const ending = new AbortController();
  const sending = (async () => {
    while (await pacer.take(4_000, "backlog", ending.signal)) sent += wireBytes(4_000);
  })();
  await pass(10_000);
  ending.abort();
  await sending;
  assert.ok(sent > 0.98 * 500_000 && sent <= 500_000 + 12_500, `${sent} bytes`);
});

test("another cap holds at once, also for what waits", async (t) => {
  const { clock, pass } = handTurned(t);
  const pacer = new Pacer(clock, 1_000);
  const { given, take } = taker(pacer, clock);
  await take(10_000, "backlog");
  const waiting = take(10_000, "backlog");
  await pass(100);
  assert.equal(given.length, 1);
  pacer.setRate(1_000_000);
  await pass(50);
  assert.equal(await waiting, true);
  // From no cap at all to a small one: what went before was not saved up.
  pacer.setRate(Number.POSITIVE_INFINITY);
  await take(5_000_000, "footage");
  pacer.setRate(1_000);
  const late = take(500, "live");
  await pass(100);
  assert.equal(given.length, 3);
  pacer.setRate(Number.POSITIVE_INFINITY);
  assert.equal(await late, true);
});

test("what goes in any case is paid for by what takes next", async (t) => {
  const { clock, pass } = handTurned(t);
  const pacer = new Pacer(clock, 10_000);
  pacer.charge(10_000);
  const asked = pacer.take(100, "live", never);
  let may: boolean | undefined;
  void asked.then((given) => (may = given));
  await pass(700);
  assert.equal(may, undefined);
  await pass(400);
  assert.equal(may, true);
});

test("who gives up waiting lets the next one go, and close() leaves nobody waiting", async (t) => {
  const { clock, pass } = handTurned(t);
  const pacer = new Pacer(clock, 1_000);
  await pacer.take(2_000, "backlog", never);
  const ending = new AbortController();
  const given = pacer.take(1_000, "live", ending.signal);
  const next = pacer.take(1_000, "footage", never);
  ending.abort();
  assert.equal(await given, false);
  await pass(5_000);
  assert.equal(await next, true);
  assert.equal(await pacer.take(1, "live", ending.signal), false);
  assert.equal(await pacer.take(1_000_000, "live", never), true);
  const left = pacer.take(1, "live", never);
  pacer.close();
  assert.equal(await left, false);
  // Neither does what comes behind it.
  pacer.setRate(Number.POSITIVE_INFINITY);
  assert.equal(await pacer.take(1, "live", never), false);
});
