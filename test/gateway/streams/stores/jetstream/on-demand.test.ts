/** On-demand scaling of a stream on the cluster: of the shard that is busy, also by its bytes alone. */
import assert from "node:assert/strict";
import { OnDemand } from "../../../../../gateway/streams/on-demand.ts";
import { MAX_HASH } from "../../../../../gateway/streams/streams.ts";
import { silentLog } from "../../../../../runtime/log.ts";
import { Metrics } from "../../../../../runtime/metrics.ts";
import { clusterFact as fact } from "./cluster-fact.ts";

fact("a shard that is busy by its bytes is split, and no other", async ({ open }) => {
  const streams = await open();
  await streams.createStream({ name: "s", shards: 4, retentionHours: 24, mode: "on-demand" });
  let nowMs = 0;
  const clock = { nowUs: () => nowMs * 1_000, monotonicMs: () => nowMs };
  const onDemand = new OnDemand({ streams, clock, log: silentLog, metrics: new Metrics() });
  const data = Buffer.alloc(700_000);
  // 1.4 MB a second into the last shard alone.
  for (let i = 0; i < 12; i++) {
    for (const explicitHash of [MAX_HASH, MAX_HASH - MAX_HASH / 6n]) {
      await streams.append("s", [{ partitionKey: "k", data, explicitHash }]);
    }
    nowMs += 1_000;
    await onDemand.look();
  }
  const { shardList } = streams.describe("s");
  const closed = shardList.filter(({ closedMs }) => closedMs !== undefined).map(({ shardId }) => shardId);
  assert.deepEqual(closed, ["shardId-000000000003"]);
  await onDemand.close();
});
