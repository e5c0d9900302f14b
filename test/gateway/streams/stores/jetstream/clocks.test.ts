/** The clocks of two gateways differ by minutes. */
import assert from "node:assert/strict";
import { systemClock } from "../../../../../runtime/clock.ts";
import { clusterFact as fact, until } from "./cluster-fact.ts";

const AHEAD_US = 180_000_000;
const RECORDS = 300;

fact("no record that arrived at a time or later is passed over by who begins there", async ({ open }) => {
  const ahead = { ...systemClock, nowUs: () => systemClock.nowUs() + AHEAD_US };
  const [a, b] = [await open(), await open(ahead)];
  await a.createStream({ name: "s", shards: 1, retentionHours: 24 });
  await until(() => b.listStreams().includes("s"));
  const placed: Array<{ readonly offset: number; readonly arrivalMs: number }> = [];
  for (let i = 0; i < RECORDS; i++) {
    const [place] = await (i % 2 === 0 ? b : a).append("s", [{ partitionKey: "k", data: Buffer.alloc(1) }]);
    placed.push(place!);
  }
  // One that begins now, and writes, goes on where the others are.
  const fresh = await open();
  const [last] = await fresh.append("s", [{ partitionKey: "k", data: Buffer.alloc(1) }]);
  for (const [i, { arrivalMs }] of [...placed, last!].entries()) {
    const first = placed.findIndex((one) => one.arrivalMs >= arrivalMs);
    const at = await fresh.position("s", "shardId-000000000000", { at: "time", arrivalMs });
    const wanted = first < 0 ? last!.offset : placed[first]!.offset;
    assert.ok(at <= wanted, `of record ${i}, ${at} is behind ${wanted}`);
  }
});
