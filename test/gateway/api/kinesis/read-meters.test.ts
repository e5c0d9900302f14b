import assert from "node:assert/strict";
import test from "node:test";
import { ReadMeters } from "../../../../gateway/api/kinesis/read-meters.ts";
import { Metrics } from "../../../../runtime/metrics.ts";

const MINUTE_MS = 60_000;

async function samples(metrics: Metrics): Promise<string[]> {
  const lines = (await metrics.render()).split("\n");
  return lines.filter((line) => line.startsWith("headwater_kinesis_")).map((line) => line.slice(18));
}

test("the highest of this minute and the last is told, and nothing of a stream that nobody reads or that is gone", async () => {
  const metrics = new Metrics();
  let nowMs = 5 * MINUTE_MS + 10_000;
  const clock = { nowUs: () => nowMs * 1_000, monotonicMs: () => nowMs };
  let there = ["a", "b"];
  const reads = new ReadMeters(metrics, clock, () => there);
  reads.page("a", 10, 2_000, 1_500);
  reads.page("a", 5, 1_000, 250);
  reads.pushed("a", 8, 30);
  reads.pushed("b", 7, 40);
  reads.throttled("b", 3);
  assert.deepEqual(await samples(metrics), [
    'read_behind_seconds{stream="a",by="GetRecords"} 1.5',
    'read_behind_seconds{stream="a",by="SubscribeToShard"} 0.03',
    'read_behind_seconds{stream="b",by="SubscribeToShard"} 0.04',
    'read_records_total{stream="a"} 15',
    'read_bytes_total{stream="a"} 3000',
    'pushed_records_total{stream="a"} 8',
    'pushed_records_total{stream="b"} 7',
    'throttled_records_total{stream="b"} 3',
  ]);
  nowMs += MINUTE_MS;
  reads.page("a", 0, 0, 700);
  assert.ok((await samples(metrics)).includes('read_behind_seconds{stream="a",by="GetRecords"} 1.5'));
  nowMs += MINUTE_MS;
  assert.deepEqual(
    (await samples(metrics)).filter((line) => line.startsWith("read_behind")),
    ['read_behind_seconds{stream="a",by="GetRecords"} 0.7'],
  );
  there = ["b"];
  assert.deepEqual(await samples(metrics), [
    'pushed_records_total{stream="b"} 7',
    'throttled_records_total{stream="b"} 3',
  ]);
});
