import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { Metrics } from "../../runtime/metrics.ts";

const BOUNDS = [0.001, 0.01, 0.5, 2];

test("tallies render what prom-client's own counters and histograms do", async () => {
  const call = fc.record({
    operation: fc.constantFrom("PutRecord", "GetRecords"),
    count: fc.nat(1_000),
    seconds: fc.constantFrom(0, 0.001, 0.0011, 0.01, 0.3, 0.5, 1, 2, 2.01, 90),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(call), fc.array(call), async (some, others) => {
      const plain = new Metrics();
      const plainCounter = plain.counter("headwater_calls_total", "Calls", ["operation"]);
      const plainSeconds = plain.histogram("headwater_call_seconds", "Times", BOUNDS, ["operation"]);
      const fast = new Metrics();
      const counter = fast.counter("headwater_calls_total", "Calls", ["operation"]);
      const seconds = fast.tallies("headwater_call_seconds", "Times", BOUNDS, "operation");
      const tallies = new Map(
        ["PutRecord", "GetRecords"].map((operation) => [operation, fast.tally(counter, { operation })]),
      );
      for (const calls of [some, others]) {
        for (const { operation, count, seconds: took } of calls) {
          if (count > 0) plainCounter.inc({ operation }, count);
          plainSeconds.observe({ operation }, took);
          tallies.get(operation)!.add(count);
          seconds(operation).observe(took);
        }
        // The second time shows that what was rendered once is not counted again.
        assert.deepEqual(await lines(fast), await lines(plain));
      }
    }),
    { numRuns: 50 },
  );
});

/** Sorted, as the order of labels is nobody's promise. */
async function lines(metrics: Metrics): Promise<string[]> {
  return (await metrics.render()).split("\n").sort();
}
