/** What a log knows as it stores must be what the next start finds in its files. */
import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { LogEnd } from "../../../../../../gateway/streams/stores/local/log/log-end.ts";
import { recoverLog } from "../../../../../../gateway/streams/stores/local/log/log-recovery.ts";
import { StreamLog } from "../../../../../../gateway/streams/stores/local/log/stream-log.ts";
import { ENTRY_KIND } from "../../../../../../gateway/streams/stores/log-entry.ts";
import { append, makeLogPlace, STREAM_ID } from "./log-place.ts";

type Step =
  | { readonly what: "frame"; readonly shard: number; readonly count: number; readonly bytes: number }
  | { readonly what: "forget" | "wait" };

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      what: fc.constant("frame" as const),
      shard: fc.integer({ min: 0, max: 5 }),
      count: fc.integer({ min: 1, max: 50 }),
      bytes: fc.integer({ min: 1, max: 3_000 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ what: fc.constant("forget" as const) }) },
  // Groups end here, and only between groups a new segment may begin.
  { weight: 4, arbitrary: fc.record({ what: fc.constant("wait" as const) }) },
);

/** Stores what the steps say; the log in several segments, in groups of whatever came together. */
async function store(log: StreamLog, steps: readonly Step[]): Promise<void> {
  let waiting: Promise<unknown>[] = [];
  for (const [i, each] of steps.entries()) {
    if (each.what === "frame") waiting.push(append(log, i + 1, each));
    if (each.what === "forget") {
      const producer = { kind: "frame", device: "d", epoch: 7n, epochStart: 0, sequence: 0n } as const;
      waiting.push(
        new Promise<void>((resolve, reject) => {
          log.append(ENTRY_KIND.forget, producer, [], { done: resolve, failed: reject });
        }),
      );
    }
    if (each.what === "wait") {
      await Promise.all(waiting);
      waiting = [];
    }
  }
  await Promise.all(waiting);
}

test("a log's end as it stored is its end as the next start reads it back", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 10, maxLength: 40 }), async (steps) => {
      const place = await makeLogPlace();
      try {
        const log = await StreamLog.create(place.options({ segmentBytes: 2_000 }));
        await store(log, steps);
        const shards = [0, 1, 2, 3, 4, 5];
        const known = { next: shards.map((shard) => log.next(shard)), producers: log.producers.snapshot() };
        const crashed = await place.copy();
        await log.close();
        for (const folder of [crashed, place.folder]) {
          const found = await recoverLog(folder, STREAM_ID);
          await found.file.close();
          assert.deepEqual(found.findings, []);
          const end = new LogEnd(found);
          const { nextOffsets, records, producers } = end.state(found.arrivalMs);
          assert.deepEqual({ next: shards.map((shard) => end.next(shard)), producers }, known);
          const sum = nextOffsets.reduce((total, [, next]) => total + next, 0);
          assert.equal(records, sum);
        }
      } finally {
        await place.remove();
      }
    }),
    { numRuns: 25 },
  );
});

test("a new log's end is that of nothing, behind the first state entry", () => {
  const end = LogEnd.ofNewLog();
  assert.equal(end.number, 1);
  assert.equal(end.next(3), 0);
  assert.deepEqual(end.state(5), {
    nextOffsets: [],
    records: 0,
    arrivalMs: 5,
    producers: { epochs: [], clients: [] },
  });
});

test("a shard that is skipped ahead is remembered with its place, others without any are left out", () => {
  const end = LogEnd.ofNewLog();
  end.skipTo(2, 40);
  assert.equal(end.next(2), 40);
  assert.deepEqual(end.state(0).nextOffsets, [[2, 40]]);
  const copy = end.nextOffsets();
  copy[2] = 50;
  assert.equal(end.next(2), 40);
});
