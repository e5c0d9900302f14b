/** Nodes that lost power before they had synced lack what they had acknowledged. */
import assert from "node:assert/strict";
import test from "node:test";
import { Documents } from "../../../../../gateway/streams/stores/jetstream/cluster/documents.ts";
import { openJetStreamStreams } from "../../../../../gateway/streams/stores/jetstream/jetstream.ts";
import { JetStreamStream } from "../../../../../gateway/streams/stores/jetstream/log/jetstream-stream.ts";
import type { Streams } from "../../../../../gateway/streams/streams.ts";
import { systemClock } from "../../../../../runtime/clock.ts";
import { silentLog } from "../../../../../runtime/log.ts";
import { Metrics } from "../../../../../runtime/metrics.ts";
import { makeFrame } from "../../../../contract/stream-records.ts";
import { natsMissing } from "../../../../support/nats-cluster.ts";
import { textsOf, until } from "./cluster-fact.ts";
import { startSingleNode } from "./single-node.ts";

const put = (streams: Streams, text: string) =>
  streams.append("s", [{ partitionKey: "k", data: Buffer.from(text) }]);

test("what comes after records that the nodes lost is read by a consumer that had read those", {
  skip: natsMissing() ?? false,
  timeout: 120_000,
}, async () => {
  const node = await startSingleNode();
  await (await node.link()).close();
  const open = () =>
    openJetStreamStreams({
      servers: node.servers,
      replicas: 1,
      clock: systemClock,
      log: silentLog,
      metrics: new Metrics(),
    });
  try {
    const before = await open();
    await before.createStream({ name: "s", shards: 1, retentionHours: 24 });
    await put(before, "kept");
    const restore = await node.snapshot(`headwater-${before.describe("s").streamId}`);
    for (let i = 0; i < 10; i++) await put(before, `lost-${i}`);
    const consumer = await before.openConsumer("s", "c");
    const { shardId, latest } = before.describe("s").shardList[0]!;
    await consumer.checkpoint(new Map([[shardId, latest]]));
    await before.close();
    await node.kill();
    await restore();
    await node.run();
    await (await node.link()).close();
    const after = await open();
    assert.deepEqual(await textsOf(after), ["kept"]);
    const again = await after.openConsumer("s", "c");
    const from = again.positions().get(shardId)!;
    await put(after, "new");
    const { parts, next } = await after.read("s", shardId, from, 1_000);
    assert.equal(parts.length, 1, `nothing at ${from}`);
    await again.checkpoint(new Map([[shardId, next]]));
    await after.close();
  } finally {
    await node.stop();
  }
});

test("a gateway that outlived the nodes stores again what it is given", {
  skip: natsMissing() ?? false,
  timeout: 120_000,
}, async () => {
  const node = await startSingleNode();
  await (await node.link()).close();
  const streams = await openJetStreamStreams({
    servers: node.servers,
    replicas: 1,
    clock: systemClock,
    log: silentLog,
    metrics: new Metrics(),
  });
  try {
    await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
    await put(streams, "kept");
    await streams.appendFrame(makeFrame("s", 1n, ["f1"]));
    const restore = await node.snapshot(`headwater-${streams.describe("s").streamId}`);
    for (let i = 0; i < 10; i++) await put(streams, `lost-${i}`);
    await streams.appendFrame(makeFrame("s", 2n, ["f2"]));
    await node.kill();
    await restore();
    await node.run();
    // Until it is clear that they are lost nothing is answered; then who waits is told to try again.
    await assert.rejects(put(streams, "early"), { code: "LOG_WRITE_FAILED", retryable: true });
    await until(() => streams.listStreams().includes("s"));
    assert.equal(await streams.appendFrame(makeFrame("s", 2n, ["f2"])), "stored");
    assert.equal(await streams.appendFrame(makeFrame("s", 1n, ["f1"])), "duplicate");
    await put(streams, "new");
    const texts = await textsOf(streams);
    assert.deepEqual(texts, ["kept", "f1", "f2", "new"]);
  } finally {
    await streams.close();
    await node.stop();
  }
});

test("a consumer that is being opened while the stream is followed anew leaves what others have", {
  skip: natsMissing() ?? false,
  timeout: 120_000,
}, async (t) => {
  const node = await startSingleNode();
  await (await node.link()).close();
  let aheadMs = 0;
  const clock = { ...systemClock, monotonicMs: () => systemClock.monotonicMs() + aheadMs };
  const streams = await openJetStreamStreams({
    servers: node.servers,
    replicas: 1,
    clock,
    log: silentLog,
    metrics: new Metrics(),
  });
  try {
    await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
    const other = await streams.openConsumer("s", "other");
    await other.handover!.keep({ a: "note" });
    await other.close();
    const restore = await node.snapshot(`headwater-${streams.describe("s").streamId}`);
    await put(streams, "lost");
    await node.kill();
    await restore();
    await node.run();
    const { end } = JetStreamStream.prototype;
    const ended = new Promise<void>((resolve) => {
      t.mock.method(JetStreamStream.prototype, "end", function (this: JetStreamStream) {
        const ending = end.call(this);
        resolve();
        return ending;
      });
    });
    const { put: write } = Documents.prototype;
    t.mock.method(
      Documents.prototype,
      "put",
      async function (this: Documents, ...args: Parameters<typeof write>) {
        const revision = await write.apply(this, args);
        await ended;
        return revision;
      },
    );
    const refused = assert.rejects(streams.openConsumer("s", "c"));
    let isRefused = false;
    void refused.then(() => {
      isRefused = true;
    });
    await until(() => {
      // Half a minute is over sooner.
      aheadMs += 200;
      return isRefused;
    });
    t.mock.restoreAll();
    await until(() => streams.listStreams().includes("s"));
    const again = await streams.openConsumer("s", "other");
    assert.deepEqual(again.handover!.note, { a: "note" });
  } finally {
    await streams.close();
    await node.stop();
  }
});

test("a gateway that heard of messages, and did not get them before the nodes lost them, goes on with what comes next", {
  skip: natsMissing() ?? false,
  timeout: 60_000,
}, async () => {
  const node = await startSingleNode();
  const link = await node.link();
  let aheadMs = 0;
  const clock = { ...systemClock, monotonicMs: () => systemClock.monotonicMs() + aheadMs };
  const open = () =>
    openJetStreamStreams({
      servers: node.servers,
      replicas: 1,
      clock,
      log: silentLog,
      metrics: new Metrics(),
    });
  const [a, b] = [await open(), await open()];
  try {
    await a.createStream({ name: "s", shards: 1, retentionHours: 24 });
    await put(a, "kept");
    await until(async () => b.listStreams().includes("s") && (await textsOf(b)).length === 1);
    link.tell(`headwater.n.${b.describe("s").streamId}`, "100 lost");
    await put(a, "new");
    await until(async () => {
      // Half a minute is over sooner.
      aheadMs += 200;
      return b.listStreams().includes("s") && (await textsOf(b)).length === 2;
    });
    await put(a, "newer");
    await until(async () => (await textsOf(b)).length === 3);
  } finally {
    await Promise.all([a.close(), b.close(), link.close()]);
    await node.stop();
  }
});
