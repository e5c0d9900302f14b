import assert from "node:assert/strict";
import test from "node:test";
import { UplinkWatch } from "../../../agent/uplink/uplink-watch.ts";

class HeldClock {
  ms = 1_000_000;
  nowUs(): number {
    return this.ms * 1_000;
  }
  monotonicMs(): number {
    return this.ms;
  }
}

test("the backlog's end is told by how fast it shrinks, and live latency by its worst", () => {
  const clock = new HeldClock();
  let waitingBytes = 10_000;
  let oldestUs: number | undefined = 1;
  let split = true;
  const watch = new UplinkWatch({
    clock,
    waiting: () => ({ waitingBytes, oldestUs }),
    split: () => split,
  });
  watch.look();
  assert.deepEqual(watch.work(), { live: {}, backlog: {} }, "nothing is known of a speed yet");
  for (const latency of [50, 300, 20]) watch.liveAcknowledged(latency);
  for (let i = 0; i < 5; i++) {
    clock.ms += 1_000;
    waitingBytes -= 500;
    watch.look();
  }
  assert.deepEqual(watch.work(), { live: { latencyMs: 300 }, backlog: { drainedInMs: 15_000 } });
  clock.ms += 6_000;
  watch.liveAcknowledged(10);
  assert.deepEqual(watch.work().live, { latencyMs: 10 });
  waitingBytes = 20_000;
  watch.look();
  assert.deepEqual(watch.work().backlog, {}, "it grows");
  oldestUs = clock.nowUs() - 1_000_000;
  split = false;
  assert.deepEqual(watch.work(), {});
  oldestUs = undefined;
  assert.deepEqual(watch.work(), {});
});
