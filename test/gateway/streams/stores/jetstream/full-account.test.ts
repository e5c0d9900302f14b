/** An account of which the cluster takes nothing more: what makes room must go on, and nothing may take the last of it. */
import assert from "node:assert/strict";
import test, { mock } from "node:test";
import { jetstreamManager } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import { JetStreams } from "../../../../../gateway/streams/stores/jetstream/cluster/jet-streams.ts";
import { openJetStreamStreams } from "../../../../../gateway/streams/stores/jetstream/jetstream.ts";
import { systemClock } from "../../../../../runtime/clock.ts";
import { silentLog } from "../../../../../runtime/log.ts";
import { Metrics } from "../../../../../runtime/metrics.ts";
import { natsMissing } from "../../../../support/nats-cluster.ts";
import { recordsOf } from "./cluster-fact.ts";
import { startSingleNode } from "./single-node.ts";

const HOUR_MS = 3_600_000;

for (const { silentHours, code } of [
  { silentHours: 13, code: undefined },
  // What is remembered of the client would go at once.
  { silentHours: 25, code: "LOG_FULL" },
]) {
  const outcome = code === undefined ? "can be kept for less long" : "is kept for as long as before";
  test(`a stream that is full, and has a client that was silent for ${silentHours} of 24 hours, ${outcome}`, {
    skip: natsMissing() ?? false,
    timeout: 120_000,
  }, async () => {
    const node = await startSingleNode();
    await node.runLimited("max_file: 100000");
    let laterMs = 0;
    const clock = { ...systemClock, nowUs: () => systemClock.nowUs() + laterMs * 1_000 };
    const parts = { clock, log: silentLog, metrics: new Metrics() };
    const streams = await openJetStreamStreams({ servers: node.servers, replicas: 1, ...parts });
    const nc = await connect({ servers: node.servers });
    const { update } = JetStreams.prototype;
    const changes = mock.method(
      JetStreams.prototype,
      "update",
      async function (this: JetStreams, ...[name, change]: Parameters<JetStreams["update"]>) {
        await update.call(this, name, change);
        // As nats-server takes what is older than it shall keep, when it hears so.
        await (await jetstreamManager(nc)).streams.purge(name, { seq: 3 });
      },
    );
    try {
      await streams.createStream({ name: "s", shards: 1, retentionHours: 48 });
      const append = (bytes: number) =>
        streams.append("s", [{ partitionKey: "k", data: Buffer.alloc(bytes) }]);
      await append(20_000);
      await append(20_000);
      const publish = {
        clientId: "c",
        packetId: 1,
        partitionKey: "k",
        mayRepeat: false,
        timeUs: clock.nowUs(),
      };
      await streams.appendPublish("s", { ...publish, payload: Buffer.from("x") });
      laterMs = silentHours * HOUR_MS;
      const fill = async (bytes: number): Promise<void> => {
        for (;;) await append(bytes);
      };
      await assert.rejects(fill(20_000), { code: "LOG_FULL" });
      await assert.rejects(fill(1), { code: "LOG_FULL" });
      const changed = streams.updateStream("s", { retentionHours: 24 });
      if (code === undefined) await changed;
      else await assert.rejects(changed, { code });
      assert.equal(streams.settings("s").retentionHours, code === undefined ? 24 : 48);
      if (code === undefined) await append(20_000);
    } finally {
      changes.mock.restore();
      await nc.close();
      await streams.close();
      await node.stop();
    }
  });
}

test("a stream that has filled the account can be deleted", {
  skip: natsMissing() ?? false,
  timeout: 120_000,
}, async () => {
  const node = await startSingleNode();
  await node.runLimited("max_file: 400000");
  const parts = { clock: systemClock, log: silentLog, metrics: new Metrics() };
  const streams = await openJetStreamStreams({ servers: node.servers, replicas: 1, ...parts });
  try {
    await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
    for (const bytes of [40_000, 1_000, 1]) {
      const fill = async (): Promise<void> => {
        for (;;) await streams.append("s", [{ partitionKey: "k", data: Buffer.alloc(bytes) }]);
      };
      await assert.rejects(fill(), { code: "LOG_FULL" });
    }
    const refuse = (): void => {
      throw new Error("not that one");
    };
    await assert.rejects(streams.deleteStream("s", refuse), /not that one/);
    assert.ok((await recordsOf(streams)).length > 0);
    await streams.deleteStream("s");
    await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
    await streams.append("s", [{ partitionKey: "k", data: Buffer.alloc(40_000) }]);
  } finally {
    await streams.close();
    await node.stop();
  }
});

test("a checkpoint for which there is no room takes none from others", {
  skip: natsMissing() ?? false,
  timeout: 120_000,
}, async () => {
  const node = await startSingleNode();
  await node.runLimited("max_file: 5000000");
  const parts = { clock: systemClock, log: silentLog, metrics: new Metrics() };
  const streams = await openJetStreamStreams({ servers: node.servers, replicas: 1, ...parts });
  try {
    await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
    const { handover } = await streams.openConsumer("s", "statement");
    await assert.rejects(handover!.keepBytes([Buffer.alloc(8_000_000)]), { code: "LOG_FULL" });
    await handover!.keepBytes([Buffer.alloc(4_000_000)]);
    assert.equal((await handover!.keptBytes())!.length, 4_000_000);
  } finally {
    await streams.close();
    await node.stop();
  }
});
