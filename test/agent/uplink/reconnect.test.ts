import assert from "node:assert/strict";
import test from "node:test";
import { ReconnectWaits } from "../../../agent/uplink/reconnect.ts";
import { Backoff } from "../../../runtime/backoff.ts";

function waits(random = () => 0.5): ReconnectWaits {
  return new ReconnectWaits(new Backoff(1_000, 30_000, random), random);
}

test("broken connections wait ever longer, until one was worth something", () => {
  const reconnect = waits();
  assert.deepEqual(
    [0, 0, 0, 0, 0, 0, 0].map((heldMs) => reconnect.nextMs(heldMs)),
    [500, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000],
  );
  assert.equal(reconnect.nextMs(9_000), 15_000);
  assert.equal(reconnect.nextMs(10_000), 500);
  reconnect.nextMs(0);
  reconnect.progress();
  assert.equal(reconnect.nextMs(0), 500);
});

test("a gateway that stays busy is asked ever more seldom, within bounds", () => {
  const reconnect = waits();
  assert.equal(reconnect.beginsWithLittle, false);
  assert.deepEqual(
    [1, 2, 3, 4, 5, 6, 7].map(() => reconnect.nextMs(100, 1_000)),
    [1_000, 2_000, 4_000, 8_000, 10_000, 10_000, 10_000],
  );
  assert.equal(reconnect.beginsWithLittle, true);
  // What the gateway asks for is never cut short.
  assert.equal(reconnect.nextMs(100, 60_000), 60_000);
  reconnect.progress();
  assert.equal(reconnect.beginsWithLittle, false);
  assert.equal(reconnect.nextMs(100, 1_000), 1_000);
});

test("agents that were told the same do not come back together", () => {
  const all = Array.from({ length: 500 }, () => waits(Math.random).nextMs(100, 1_000));
  assert.ok(Math.min(...all) >= 500 && Math.max(...all) <= 1_500);
  assert.ok(Math.min(...all) < 600 && Math.max(...all) > 1_400);
});

test("the first connection waits a little after a boot, and not otherwise", () => {
  assert.equal(waits().firstMs(20_000), 1_000);
  assert.equal(waits().firstMs(600_000), 0);
  assert.equal(waits().firstMs(undefined), 0);
});

test("a link that broke before anything got through is tried with little until one holds", () => {
  const reconnect = waits();
  // Nobody was there: that says nothing of the link.
  reconnect.nextMs(0);
  assert.equal(reconnect.beginsWithLittle, false);
  reconnect.nextMs(5_000);
  assert.equal(reconnect.beginsWithLittle, true);
  // A little got through; with much at once it would have been nothing again.
  reconnect.progress();
  reconnect.nextMs(5_000);
  assert.equal(reconnect.beginsWithLittle, true);
  reconnect.progress();
  reconnect.nextMs(60_000);
  assert.equal(reconnect.beginsWithLittle, false);
});
