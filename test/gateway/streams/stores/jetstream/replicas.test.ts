import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import test from "node:test";
import { jetstreamManager } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import { openJetStreamStreams } from "../../../../../gateway/streams/stores/jetstream/jetstream.ts";
import { systemClock } from "../../../../../runtime/clock.ts";
import { silentLog } from "../../../../../runtime/log.ts";
import { Metrics } from "../../../../../runtime/metrics.ts";
import { natsMissing, startNatsCluster } from "../../../../support/nats-cluster.ts";
import { textsOf, until } from "./cluster-fact.ts";

test("more replicas in the config hold for the streams that are there, too; fewer take none away", {
  skip: natsMissing() ?? false,
  timeout: 120_000,
}, async () => {
  const { servers, stop } = await startNatsCluster();
  const prefix = `t${randomBytes(6).toString("hex")}`;
  const open = (replicas: number) =>
    openJetStreamStreams({
      servers,
      replicas,
      prefix,
      clock: systemClock,
      log: silentLog,
      metrics: new Metrics(),
    });
  const nc = await connect({ servers });
  try {
    const manager = await jetstreamManager(nc);
    const replicas = async (): Promise<number[]> => {
      const found: number[] = [];
      for await (const { config } of manager.streams.list()) {
        if (config.name.startsWith(prefix)) found.push(config.num_replicas);
      }
      return found;
    };
    const before = await open(1);
    await before.createStream({ name: "s", shards: 1, retentionHours: 24 });
    await before.append("s", [{ partitionKey: "k", data: Buffer.from("x") }]);
    await before.close();
    assert.deepEqual(await replicas(), [1, 1]);
    const more = await open(3);
    await until(async () => (await replicas()).every((count) => count === 3));
    await more.append("s", [{ partitionKey: "k", data: Buffer.from("y") }]);
    await more.close();
    const fewer = await open(1);
    assert.deepEqual(await textsOf(fewer), ["x", "y"]);
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    assert.deepEqual(await replicas(), [3, 3]);
    await fewer.close();
  } finally {
    await nc.close();
    await stop();
  }
});
