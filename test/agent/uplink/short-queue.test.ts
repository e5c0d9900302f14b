import assert from "node:assert/strict";
import test from "node:test";
import { ShortQueue } from "../../../agent/uplink/short-queue.ts";

/** A link of a given speed with a queue before it; sends as much as the window lets it. */
function send(queue: ShortQueue, link: { bytesPerSecond: number; roundTripMs: number }, seconds: number) {
  const underway: { bytes: number; sentMs: number; ackMs: number }[] = [];
  let freeMs = 0;
  let nowMs = 0;
  let sentBytes = 0;
  const delays: number[] = [];
  const inFlight = (): number => underway.reduce((sum, { bytes }) => sum + bytes, 0);
  while (nowMs < seconds * 1_000) {
    const bytes = queue.publishBytes;
    if (inFlight() + bytes <= queue.limitBytes) {
      freeMs = Math.max(freeMs, nowMs) + (bytes / link.bytesPerSecond) * 1_000;
      underway.push({ bytes, sentMs: nowMs, ackMs: freeMs + link.roundTripMs });
      sentBytes += bytes;
      continue;
    }
    const first = underway[0]!;
    nowMs = first.ackMs;
    queue.acknowledged(first.sentMs, nowMs, inFlight() > queue.limitBytes / 2);
    delays.push(nowMs - first.sentMs);
    underway.shift();
  }
  const late = delays.slice(delays.length / 2).sort((a, b) => a - b);
  return { share: sentBytes / (link.bytesPerSecond * seconds), p90Ms: late[Math.floor(late.length * 0.9)]! };
}

const options = { startBytes: 131_072, minBytes: 16_384, maxBytes: 2 * 1_048_576, targetMs: 100 };

for (const [name, bytesPerSecond, roundTripMs, mostMs] of [
  ["a modem of 64 KB/s", 64_000, 200, 800],
  ["a link of 500 KB/s", 500_000, 80, 400],
  ["a satellite of 2 MB/s", 2_000_000, 600, 900],
  ["a local network", 100_000_000, 1, 120],
] as const) {
  test(`${name} is used for the most part, and what comes behind the backlog waits ${mostMs} ms at most`, () => {
    const { share, p90Ms } = send(new ShortQueue(options), { bytesPerSecond, roundTripMs }, 60);
    assert.ok(share > 0.7, `${share} of the link`);
    assert.ok(p90Ms <= mostMs, `${p90Ms} ms`);
  });
}

test("the window stays within its bounds", () => {
  const queue = new ShortQueue(options);
  for (let i = 0; i < 1_000; i++) queue.acknowledged(i * 10, i * 10 + 1, true);
  assert.equal(queue.limitBytes, options.maxBytes);
  for (let i = 1_000; i < 2_000; i++) queue.acknowledged(i * 10_000, i * 10_000 + 5_000, true);
  assert.ok(queue.limitBytes >= options.minBytes && queue.limitBytes < options.maxBytes);
});

test("a smaller window than the least is left as it is", () => {
  const queue = new ShortQueue({ ...options, maxBytes: 1_000 });
  queue.acknowledged(0, 1, true);
  queue.acknowledged(10, 9_000, true);
  assert.equal(queue.limitBytes, 1_000);
});
