import assert from "node:assert/strict";
import test from "node:test";
import { jetstreamManager } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import { Link } from "../../../../../gateway/streams/stores/jetstream/link.ts";
import { systemClock } from "../../../../../runtime/clock.ts";
import { Metrics } from "../../../../../runtime/metrics.ts";
import { natsMissing, startNatsCluster } from "../../../../support/nats-cluster.ts";

test("a message that is only on its way is not taken for stored, though it is called a duplicate", {
  skip: natsMissing() ?? false,
  timeout: 60_000,
}, async () => {
  const { servers, stop } = await startNatsCluster(1);
  const nc = await connect({ servers });
  const link = await Link.open({ servers, clock: systemClock, metrics: new Metrics() });
  try {
    // Answers as nats-server 2.10 does while it waits for a majority, then as any.
    const ids: string[] = [];
    nc.subscribe("s", {
      callback: (_, message) => {
        const isFirst = ids.push(message.headers!.get("Nats-Msg-Id")) === 1;
        message.respond(
          JSON.stringify({ stream: "S", ...(isFirst ? { seq: 0, duplicate: true } : { seq: 7 }) }),
        );
      },
    });
    await nc.flush();
    const outcome = await link.publish("S", "s", Buffer.from("x"), {}, 0, "id");
    assert.deepEqual(outcome, { stored: true, sequence: 7 });
    assert.deepEqual(ids, ["id", "id"]);
  } finally {
    await link.close();
    await nc.close();
    await stop();
  }
});

test("where a replica gives no answer the leader is asked, and asked first for a while", {
  skip: natsMissing() ?? false,
  timeout: 60_000,
}, async () => {
  const { servers, stop } = await startNatsCluster(1);
  const nc = await connect({ servers });
  let nowMs = 0;
  const clock = { nowUs: systemClock.nowUs, monotonicMs: () => nowMs };
  const link = await Link.open({ servers, clock, metrics: new Metrics() });
  try {
    const manager = await jetstreamManager(nc);
    await manager.streams.add({ name: "S", subjects: ["s"] });
    await link.publish("S", "s", Buffer.from("x"), {}, 0);
    let asked = 0;
    // It takes questions as a node does that hangs.
    nc.subscribe("$JS.API.DIRECT.GET.S", { callback: () => void asked++ });
    await nc.flush();
    const get = async (): Promise<string> => Buffer.from((await link.get("S", 1))!.payload).toString();
    assert.equal(await get(), "x");
    assert.equal(asked, 1);
    assert.equal(await get(), "x");
    assert.equal(asked, 1);
    assert.equal(await link.get("S", 2), undefined);
    nowMs += 10_000;
    assert.equal(await get(), "x");
    assert.equal(asked, 2);
  } finally {
    await link.close();
    await nc.close();
    await stop();
  }
});
