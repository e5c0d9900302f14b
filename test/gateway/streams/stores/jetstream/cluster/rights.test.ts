/** What the gateway's NATS user may do. */
import assert from "node:assert/strict";
import test from "node:test";
import { openJetStreamStreams } from "../../../../../../gateway/streams/stores/jetstream/jetstream.ts";
import { systemClock } from "../../../../../../runtime/clock.ts";
import { silentLog } from "../../../../../../runtime/log.ts";
import { Metrics } from "../../../../../../runtime/metrics.ts";
import { natsMissing } from "../../../../../support/nats-cluster.ts";
import { textsOf } from "../cluster-fact.ts";
import { type SingleNode, startSingleNode } from "../single-node.ts";

/** A node whose only user has these. */
async function nodeAllowing(permissions: string): Promise<SingleNode> {
  const node = await startSingleNode();
  const user = `{user: a, password: a, permissions: {${permissions}}}`;
  await node.run(`accounts { A { jetstream: enabled, users: [${user}] } }\nno_auth_user: a\n`);
  await (await node.link()).close();
  return node;
}

function open({ servers }: SingleNode) {
  const parts = { clock: systemClock, log: silentLog, metrics: new Metrics() };
  return openJetStreamStreams({ servers, replicas: 1, prefix: "hw", ...parts });
}

const told = { hint: /rights/, message: /Permissions Violation/ };

test("the rights that the guide names are enough", {
  skip: natsMissing() ?? false,
  timeout: 60_000,
}, async () => {
  const node = await nodeAllowing('publish: ["$JS.API.>", "hw.>"], subscribe: ["_INBOX.>", "hw.>"]');
  const [a, b] = [await open(node), await open(node)];
  try {
    await a.createStream({ name: "s", shards: 1, retentionHours: 24 });
    await a.append("s", [{ partitionKey: "k", data: Buffer.from("x") }]);
    await a.splitShard("s", "shardId-000000000000", 2n ** 127n);
    const consumer = await a.openConsumer("s", "c");
    await consumer.handover!.keepBytes([Buffer.from("kept")]);
    await consumer.close();
    assert.deepEqual(await textsOf(b), ["x"]);
    await a.updateStream("s", { retentionHours: 48 });
    await a.deleteStream("s");
  } finally {
    await Promise.all([a.close(), b.close()]);
    await node.stop();
  }
});

test("that rights are wanting is said at the start", {
  skip: natsMissing() ?? false,
  timeout: 60_000,
}, async () => {
  const node = await nodeAllowing('publish: {deny: ["$JS.API.>"]}');
  try {
    await assert.rejects(open(node), { code: "JETSTREAM_UNFIT", ...told });
  } finally {
    await node.stop();
  }
});

test("and where records cannot be stored for want of them", {
  skip: natsMissing() ?? false,
  timeout: 120_000,
}, async () => {
  const node = await nodeAllowing('publish: {deny: ["hw.d.>"]}');
  const streams = await open(node);
  try {
    await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
    const appended = streams.append("s", [{ partitionKey: "k", data: Buffer.from("x") }]);
    await assert.rejects(appended, { code: "LOG_WRITE_FAILED", ...told });
    assert.match(streams.describe("s").refusing!, /Permissions Violation/);
  } finally {
    await streams.close();
    await node.stop();
  }
});
