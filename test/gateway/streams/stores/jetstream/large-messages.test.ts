/** nats-server cuts a client off for which 64 MB wait: large messages are asked for a few at a time. */
import assert from "node:assert/strict";
import test from "node:test";
import { openJetStreamStreams } from "../../../../../gateway/streams/stores/jetstream/jetstream.ts";
import { systemClock } from "../../../../../runtime/clock.ts";
import { createLog } from "../../../../../runtime/log.ts";
import { Metrics } from "../../../../../runtime/metrics.ts";
import { natsMissing } from "../../../../support/nats-cluster.ts";
import { startSingleNode } from "./single-node.ts";

const RECORDS = 48;
const MIB = 1_048_576;

test("twelve readers of large messages get them without being cut off from the node", {
  skip: natsMissing() ?? false,
  timeout: 180_000,
}, async () => {
  const node = await startSingleNode();
  await (await node.link()).close();
  const said: string[] = [];
  const log = createLog("gateway", "info", { write: (line) => said.push(line) });
  const parts = { servers: node.servers, replicas: 1, clock: systemClock };
  const writer = await openJetStreamStreams({ ...parts, log, metrics: new Metrics() });
  try {
    await writer.createStream({ name: "s", shards: 12, retentionHours: 24 });
    const data = Buffer.alloc(MIB);
    for (let i = 0; i < RECORDS; i++) await writer.append("s", [{ partitionKey: `k${i}`, data }]);
    const streams = await openJetStreamStreams({ ...parts, log, metrics: new Metrics() });
    try {
      const found = await Promise.all(
        streams.describe("s").shardList.map(async ({ shardId, latest }) => {
          let records = 0;
          for (let from = 0; from < latest; ) {
            const { parts, next } = await streams.read("s", shardId, from, 4 * MIB);
            for (const { count } of parts) records += count;
            from = next;
          }
          return records;
        }),
      );
      assert.equal(
        found.reduce((sum, count) => sum + count),
        RECORDS,
      );
      assert.deepEqual(said, []);
    } finally {
      await streams.close();
    }
  } finally {
    await writer.close();
    await node.stop();
  }
});
