import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import test, { mock } from "node:test";
import { jetstreamManager } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import { JetStreams } from "../../../../../gateway/streams/stores/jetstream/cluster/jet-streams.ts";
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

test("a change of the retention beside a start with more replicas leaves the stream on as many nodes", {
  skip: natsMissing() ?? false,
  timeout: 120_000,
}, async () => {
  const { servers, stop } = await startNatsCluster();
  const open = (replicas: number) =>
    openJetStreamStreams({ servers, replicas, clock: systemClock, log: silentLog, metrics: new Metrics() });
  const nc = await connect({ servers });
  let looked: (() => void) | undefined;
  const isLooked = new Promise<void>((resolve) => {
    looked = resolve;
  });
  try {
    const former = await open(1);
    const { streamId } = await former.createStream({ name: "s", shards: 1, retentionHours: 24 });
    await former.close();
    const stream = `headwater-${streamId}`;
    const { streams: asked } = await jetstreamManager(nc);
    const replicas = async (): Promise<number> => (await asked.info(stream)).config.num_replicas;
    const { replicate } = JetStreams.prototype;
    const held = mock.method(JetStreams.prototype, "replicate", async function (this: JetStreams, ...what) {
      await isLooked;
      return replicate.apply(this, what);
    } satisfies typeof replicate);
    const gateway = await open(3);
    held.mock.restore();
    // What is written is made from what was read a moment before.
    const api = Object.getPrototypeOf(asked) as typeof asked;
    const { info } = api;
    const read = mock.method(
      api,
      "info",
      async function (this: typeof asked, ...what: Parameters<typeof info>) {
        const found = await info.apply(this, what);
        if (read.mock.callCount() > 0) return found;
        looked!();
        await until(async () => (await replicas()) === 3);
        return found;
      },
    );
    await gateway.updateStream("s", { retentionHours: 48 });
    read.mock.restore();
    const untilMs = Date.now() + 10_000;
    await until(async () => Date.now() > untilMs || (await replicas()) === 3);
    assert.equal(await replicas(), 3);
    await gateway.close();
  } finally {
    mock.restoreAll();
    await nc.close();
    await stop();
  }
});
