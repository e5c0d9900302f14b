/** SubscribeToShard where gateways share the store, and what one of them says comes late. */
import assert from "node:assert/strict";
import test, { type TestContext } from "node:test";
import { type KinesisClient, PutRecordCommand, RegisterStreamConsumerCommand } from "@aws-sdk/client-kinesis";
import { openJetStreamStreams } from "../../../../../gateway/streams/stores/jetstream/jetstream.ts";
import type { Streams } from "../../../../../gateway/streams/streams.ts";
import { systemClock } from "../../../../../runtime/clock.ts";
import { silentLog } from "../../../../../runtime/log.ts";
import { Metrics } from "../../../../../runtime/metrics.ts";
import { natsMissing, startNatsCluster } from "../../../../support/nats-cluster.ts";
import { eventually } from "../../../../support/program.ts";
import { kinesisClient } from "../../../../support/stream-writers.ts";
import { TcpProxy } from "../../../../support/tcp-proxy.ts";
import { HandClock, KEY, openFixture, StillClock } from "../../api-fixture.ts";
import { Subscribed } from "./subscribed.ts";

const WITHIN_MS = 60_000;
const fact = { skip: natsMissing() ?? false, timeout: 120_000 };

test("a call that another gateway hears of late ends no later one", fact, async (t) => {
  const { proxy, clock, clients, arn } = await open(t);
  const [late, other] = clients;
  // What this gateway says waits; it hears all.
  proxy.stall(["up"]);
  const first = await Subscribed.to(late, arn);
  clock.aheadMs += 6_000;
  const second = await Subscribed.to(other, arn);
  await eventually("the first one has ended", WITHIN_MS, async () => first.ended);
  assert.equal(first.ended, "ResourceInUseException");
  clock.aheadMs += 6_000;
  proxy.restore();
  // It comes behind the word that was late.
  await late.send(new PutRecordCommand({ StreamName: "s", PartitionKey: "k", Data: Buffer.from("one") }));
  await eventually("what comes is pushed", WITHIN_MS, async () => second.texts[0] ?? second.ended);
  assert.deepEqual([second.texts, second.ended], [["one"], undefined]);
});

test(
  "of two claims one is left, also where the later one comes from a clock that is an hour behind",
  fact,
  async (t) => {
    const cluster = await startNatsCluster(1);
    t.after(() => cluster.stop());
    const gateway = async (aheadMs: number): Promise<{ streams: Streams; heard: string[] }> => {
      const clock = new HandClock();
      clock.aheadMs = aheadMs;
      const parts = { clock, log: silentLog, metrics: new Metrics() };
      const streams = await openJetStreamStreams({ servers: cluster.servers, replicas: 1, ...parts });
      t.after(() => streams.close());
      const heard: string[] = [];
      streams.onClaim!("push", (what) => heard.push(what));
      return { streams, heard };
    };
    const a = await gateway(0);
    a.streams.claim!("push", "it");
    // It was not there to hear of that.
    const b = await gateway(-3_600_000);
    b.streams.claim!("push", "it");
    await eventually(
      "the earlier one is said again",
      WITHIN_MS,
      async () => b.heard.includes("it") || undefined,
    );
    const over = b.streams.claim!("push", "it");
    await eventually("now it is the later one", WITHIN_MS, async () => a.heard.includes("it") || undefined);
    over();
    a.streams.claim!("push", "it");
    await eventually(
      "what is over is not held against it",
      WITHIN_MS,
      async () => b.heard.filter((what) => what === "it")[1],
    );
  },
);

async function open(t: TestContext): Promise<{
  proxy: TcpProxy;
  clock: StillClock;
  clients: [KinesisClient, KinesisClient];
  arn: string;
}> {
  const cluster = await startNatsCluster(1);
  t.after(() => cluster.stop());
  const proxy = new TcpProxy({ targetPort: Number(cluster.servers[0]!.split(":")[1]) });
  await proxy.start();
  t.after(() => proxy.close());
  const clock = new StillClock();
  const gateway = async (server: string): Promise<{ streams: Streams; client: KinesisClient }> => {
    const parts = { clock: systemClock, log: silentLog, metrics: new Metrics() };
    const streams = await openJetStreamStreams({ servers: [server], replicas: 1, ...parts });
    const fixture = await openFixture({ clock, api: { streams } });
    const client = kinesisClient(fixture.port, KEY, WITHIN_MS);
    t.after(async () => {
      client.destroy();
      await fixture.close();
      await streams.close();
    });
    return { streams, client };
  };
  const late = await gateway(`127.0.0.1:${proxy.port}`);
  const other = await gateway(cluster.servers[0]!);
  await late.streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
  const StreamARN = "arn:aws:kinesis:us-east-1:000000000000:stream/s";
  const registering = new RegisterStreamConsumerCommand({ StreamARN, ConsumerName: "reader" });
  const arn = (await late.client.send(registering)).Consumer!.ConsumerARN!;
  await eventually("the reader is known everywhere", WITHIN_MS, async () => {
    return other.streams.registeredReaders("s")[0];
  });
  return { proxy, clock, clients: [late.client, other.client], arn };
}
