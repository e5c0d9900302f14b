/** SubscribeToShard where two gateways serve one stream: one subscription for each consumer and shard all the same. */
import assert from "node:assert/strict";
import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { setTimeout as wait } from "node:timers/promises";
import {
  DescribeStreamConsumerCommand,
  type KinesisClient,
  PutRecordCommand,
  RegisterStreamConsumerCommand,
} from "@aws-sdk/client-kinesis";
import { natsMissing, startNatsCluster } from "../../../../support/nats-cluster.ts";
import { eventually, freePorts, Program } from "../../../../support/program.ts";
import { removeFolder } from "../../../../support/remove-folder.ts";
import { kinesisClient } from "../../../../support/stream-writers.ts";
import { Subscribed } from "./subscribed.ts";

const KEY = { id: "two_gateways", secret: "a-secret-of-two-gateways" };
const STREAM_ARN = "arn:aws:kinesis:us-east-1:000000000000:stream/s";
const WITHIN_MS = 60_000;

async function open(t: TestContext): Promise<{ clients: [KinesisClient, KinesisClient]; arn: string }> {
  const cluster = await startNatsCluster();
  t.after(() => cluster.stop());
  const dir = await mkdtemp(join(tmpdir(), "headwater-two-gateways-"));
  t.after(() => removeFolder(dir));
  const ports = await freePorts(6);
  const started = ["a", "b"].map(async (name, i) => {
    const [http, mqtt, rtsp] = ports.slice(3 * i);
    const config = join(dir, `${name}.yaml`);
    await writeFile(
      config,
      `
dataDir: data-${name}
store: { jetstream: { servers: [${cluster.servers.join(", ")}], replicas: 3 } }
http: { port: ${http} }
mqtt: { port: ${mqtt} }
rtsp: { port: ${rtsp} }
accessKeys: [{ id: ${KEY.id}, secret: ${KEY.secret}, allow: ["*"] }]
streams: [{ name: s, shards: 1 }]
`,
    );
    const program = new Program("gateway", config, join(dir, `${name}.log`));
    t.after(() => program.kill());
    await program.ready;
    const client = kinesisClient(http!, KEY, WITHIN_MS);
    t.after(() => client.destroy());
    return client;
  });
  const clients = (await Promise.all(started)) as [KinesisClient, KinesisClient];
  const registering = new RegisterStreamConsumerCommand({ StreamARN: STREAM_ARN, ConsumerName: "reader" });
  const arn = (await clients[0].send(registering)).Consumer!.ConsumerARN!;
  // The other gateway hears of it.
  await eventually("the reader is known everywhere", WITHIN_MS, () =>
    clients[1].send(new DescribeStreamConsumerCommand({ ConsumerARN: arn })),
  );
  return { clients, arn };
}

/** Tries until it is no longer refused. */
function lateEnough(client: KinesisClient, arn: string): Promise<Subscribed> {
  return eventually("it is served", WITHIN_MS, () => Subscribed.to(client, arn));
}

test("a call to another gateway takes over, not within five seconds, and of two at once one is left", {
  skip: natsMissing() ?? false,
  timeout: 240_000,
}, async (t) => {
  const { clients, arn } = await open(t);
  const [a, b] = clients;
  let first: Subscribed;
  let early: Subscribed | string;
  for (let tries = 0; ; tries++) {
    first = await lateEnough(a, arn);
    const begunMs = performance.now();
    // The other gateway hears of it meanwhile; on a machine that stood still it may not have.
    await wait(500);
    early = await Subscribed.to(b, arn).catch((error: Error) => error.name);
    if (typeof early === "string" || performance.now() - begunMs > 4_000) break;
    assert.ok(tries < 3, "a call within five seconds is not refused");
    await eventually("it is taken over all the same", WITHIN_MS, async () => first.ended);
  }
  assert.ok(typeof early !== "string" || early === "ResourceInUseException");
  const second = typeof early === "string" ? await lateEnough(b, arn) : early;
  await eventually("the first one has ended", WITHIN_MS, async () => first.ended);
  assert.equal(first.ended, "ResourceInUseException");
  const put = new PutRecordCommand({ StreamName: "s", PartitionKey: "k", Data: Buffer.from("one") });
  await a.send(put);
  await eventually("the second one has it", WITHIN_MS, async () => second.texts[0]);
  assert.deepEqual([first.texts, second.texts], [[], ["one"]]);
  await wait(6_000);
  const both = await Promise.allSettled([Subscribed.to(a, arn), Subscribed.to(b, arn)]);
  const begun = both.flatMap((one) => (one.status === "fulfilled" ? [one.value] : []));
  await eventually("one is left", WITHIN_MS, async () =>
    begun.filter(({ ended }) => ended === undefined).length === 1 ? true : undefined,
  );
  assert.ok(begun.every(({ ended }) => ended === undefined || ended === "ResourceInUseException"));
  await a.send(put);
  const left = begun.find(({ ended }) => ended === undefined)!;
  await eventually("it gets what comes", WITHIN_MS, async () => left.texts[0]);
});
