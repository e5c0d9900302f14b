/** Frames that a gateway hung upon, and that their agent has sent again by another gateway. */
import assert from "node:assert/strict";
import { openJetStreamStreams } from "../../../../../gateway/streams/stores/jetstream/jetstream.ts";
import { systemClock } from "../../../../../runtime/clock.ts";
import { silentLog } from "../../../../../runtime/log.ts";
import { Metrics } from "../../../../../runtime/metrics.ts";
import { makeFrame } from "../../../../contract/stream-records.ts";
import { TcpProxy } from "../../../../support/tcp-proxy.ts";
import { clusterFact as fact, textsOf, until } from "./cluster-fact.ts";

fact(
  "a frame that was handed in before another gateway forgot its epoch is not stored again",
  async ({ cluster, prefix, open }) => {
    const epoch = 7n;
    const frame = (sequence: bigint) => makeFrame("s", sequence, [`f${sequence}`], epoch);
    const port = Number(cluster.servers[0]!.split(":")[1]);
    const link = new TcpProxy({ targetPort: port });
    await link.start();
    const parts = { replicas: 3, prefix, clock: systemClock, log: silentLog, metrics: new Metrics() };
    const late = await openJetStreamStreams({ servers: [`127.0.0.1:${link.port}`], ...parts });
    try {
      const other = await open();
      await late.createStream({ name: "s", shards: 1, retentionHours: 24 });
      await until(() => other.listStreams().includes("s"));
      assert.equal(await late.appendFrame(frame(1n)), "stored");
      await until(async () => (await textsOf(other)).length === 1);
      // As of a gateway that hung: what happens meanwhile it hears later.
      link.stall(["down"]);
      for (const sequence of [2n, 3n]) assert.equal(await other.appendFrame(frame(sequence)), "stored");
      await other.forgetEpoch(frame(1n).device, epoch);
      const outcomes = Promise.all([late.appendFrame(frame(2n)), late.appendFrame(frame(3n))]);
      link.restore();
      assert.deepEqual(await outcomes, ["duplicate", "duplicate"]);
      assert.deepEqual(await textsOf(other), ["f1", "f2", "f3"]);
      // Who has heard of it takes the epoch for a new one.
      assert.equal(await late.appendFrame(frame(1n)), "stored");
    } finally {
      await late.close();
      await link.close();
    }
  },
);
