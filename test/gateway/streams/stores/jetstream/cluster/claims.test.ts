/** What gateways tell one another while a connection is lost. */
import assert from "node:assert/strict";
import test from "node:test";
import { openJetStreamStreams } from "../../../../../../gateway/streams/stores/jetstream/jetstream.ts";
import { systemClock } from "../../../../../../runtime/clock.ts";
import { silentLog } from "../../../../../../runtime/log.ts";
import { Metrics } from "../../../../../../runtime/metrics.ts";
import { natsMissing } from "../../../../../support/nats-cluster.ts";
import { until } from "../cluster-fact.ts";
import { startSingleNode } from "../single-node.ts";

test("what was claimed while the connection was lost is known once it is back, and only the later claim stands", {
  skip: natsMissing() ?? false,
  timeout: 60_000,
}, async () => {
  const node = await startSingleNode();
  await (await node.link()).close();
  const open = async () => {
    const parts = { clock: systemClock, log: silentLog, metrics: new Metrics() };
    const streams = await openJetStreamStreams({ servers: node.servers, replicas: 1, ...parts });
    const heard: string[] = [];
    streams.onClaim!("mqtt", (name) => void heard.push(name));
    return { streams, heard, claim: (name: string) => streams.claim!("mqtt", name) };
  };
  const [a, b] = [await open(), await open()];
  try {
    a.claim("plug");
    b.claim("lamp");
    await until(() => b.heard.length === 1 && a.heard.length === 1);
    await node.kill();
    b.claim("plug");
    a.claim("lamp");
    // What is over is not held against anybody.
    b.claim("fan")();
    await node.run();
    await until(() => a.heard.includes("plug") && b.heard.includes("lamp"));
    a.claim("last");
    b.claim("last of all");
    await until(() => a.heard.includes("last of all") && b.heard.includes("last"));
    assert.deepEqual(a.heard, ["lamp", "plug", "last of all"]);
    assert.deepEqual(b.heard, ["plug", "lamp", "last"]);
  } finally {
    await Promise.all([a.streams.close(), b.streams.close()]);
    await node.stop();
  }
});
