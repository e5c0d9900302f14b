import assert from "node:assert/strict";
import test from "node:test";
import { Backoff, pause } from "../../runtime/backoff.ts";

test("the ceiling doubles up to the cap, and falls back after a success", () => {
  const backoff = new Backoff(100, 1_000, () => 1);
  assert.deepEqual(
    [1, 2, 3, 4, 5, 6].map(() => backoff.nextMs()),
    [100, 200, 400, 800, 1_000, 1_000],
  );
  backoff.reset();
  assert.equal(backoff.nextMs(), 100);
});

test("waits are spread over the whole range", () => {
  const waits = Array.from({ length: 500 }, () => new Backoff(1_000, 1_000).nextMs());
  assert.ok(Math.min(...waits) < 100 && Math.max(...waits) > 900);
});

test("a pause ends at once when it is aborted", async () => {
  const stop = new AbortController();
  const paused = pause(60_000, stop.signal);
  stop.abort();
  await paused;
  await pause(60_000, stop.signal);
});
