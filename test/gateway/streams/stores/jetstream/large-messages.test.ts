/** nats-server cuts a client off for which 64 MB wait: messages are asked for a few megabytes at a time. */
import assert from "node:assert/strict";
import test from "node:test";
import { openJetStreamStreams } from "../../../../../gateway/streams/stores/jetstream/jetstream.ts";
import type { Streams } from "../../../../../gateway/streams/streams.ts";
import { systemClock } from "../../../../../runtime/clock.ts";
import { createLog } from "../../../../../runtime/log.ts";
import { Metrics } from "../../../../../runtime/metrics.ts";
import { natsMissing } from "../../../../support/nats-cluster.ts";
import { startSingleNode } from "./single-node.ts";

const MIB = 1_048_576;

interface Case {
  readonly readers: number;
  readonly records: number;
  readonly bytes: number;
  /** By another gateway, while they are read. */
  readonly smallOnesArrive?: boolean;
}

const CASES: Readonly<Record<string, Case>> = {
  "twelve readers of large messages": { readers: 12, records: 48, bytes: MIB },
  "twelve readers of large messages, while small ones arrive by another gateway,": {
    ...{ readers: 12, records: 96, bytes: MIB },
    smallOnesArrive: true,
  },
  "a hundred readers of messages of 60 KB": { readers: 100, records: 300, bytes: 60_000 },
};

for (const [who, { readers, records, bytes, smallOnesArrive }] of Object.entries(CASES)) {
  test(`${who} get them without being cut off from the node`, {
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
      await writer.createStream({ name: "s", shards: readers, retentionHours: 24 });
      const put = (i: number, data: Buffer) => writer.append("s", [{ partitionKey: `k${i}`, data }]);
      for (let i = 0; i < records; i++) await put(i, Buffer.alloc(bytes));
      const streams = await openJetStreamStreams({ ...parts, log, metrics: new Metrics() });
      // These were seen last.
      for (let i = 0; smallOnesArrive && i < 50; i++) await put(0, Buffer.alloc(10));
      let isRead = false;
      try {
        const read = readUpToNow(streams).finally(() => {
          isRead = true;
        });
        while (smallOnesArrive && !isRead) await put(0, Buffer.alloc(10));
        const found = await read;
        assert.ok(smallOnesArrive ? found >= records : found === records, `${found} were read`);
        assert.deepEqual(said, []);
      } finally {
        await streams.close();
      }
    } finally {
      await writer.close();
      await node.stop();
    }
  });
}

/** @returns how many records all shards have */
async function readUpToNow(streams: Streams): Promise<number> {
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
  return found.reduce((sum, count) => sum + count);
}
