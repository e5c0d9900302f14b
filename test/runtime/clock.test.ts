import assert from "node:assert/strict";
import test, { mock } from "node:test";
import { systemClock } from "../../runtime/clock.ts";

test("the system's clock is followed when somebody sets it, and is fine and steady meanwhile", (t) => {
  t.after(() => mock.restoreAll());
  const trueMs = Date.now();
  let monotonicMs = performance.now() + 10_000;
  let setByMs = 0;
  const startMs = monotonicMs;
  mock.method(performance, "now", () => monotonicMs);
  mock.method(Date, "now", () => Math.floor(trueMs + setByMs + (monotonicMs - startMs)));
  const offMs = () => systemClock.nowUs() / 1_000 - (trueMs + setByMs + (monotonicMs - startMs));
  assert.ok(Math.abs(offMs()) < 102);
  for (const byMs of [3_600_000, -7_200_000, 56 * 365 * 86_400_000]) {
    setByMs += byMs;
    monotonicMs += 1_001;
    assert.ok(Math.abs(offMs()) < 2, `${offMs()} ms off after it was set by ${byMs}`);
  }
  // Less than a step is how coarse the system tells it.
  const before = offMs();
  for (let i = 0; i < 100; i++) {
    monotonicMs += 137.25;
    assert.ok(Math.abs(offMs() - before) < 0.01);
  }
});

test("a pause between the looks at two clocks is not taken for a step", (t) => {
  t.after(() => mock.restoreAll());
  // Behind the first test's, which the clock remembers.
  let monotonicMs = performance.now() + 1_000_000;
  const apartMs = Date.now() - monotonicMs;
  let pauseMs = 0;
  mock.method(performance, "now", () => monotonicMs);
  mock.method(Date, "now", () => {
    monotonicMs += pauseMs;
    return apartMs + monotonicMs;
  });
  const offMs = () => systemClock.nowUs() / 1_000 - monotonicMs - apartMs;
  offMs();
  const before = offMs();
  pauseMs = 5_000;
  for (let i = 0; i < 3; i++) {
    const saidMs = monotonicMs + apartMs;
    assert.ok(Math.abs(systemClock.nowUs() / 1_000 - saidMs - before) < 1);
    monotonicMs += 2_000;
  }
});
