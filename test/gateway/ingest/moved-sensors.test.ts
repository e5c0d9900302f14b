/** Plain sensors that go from one gateway to another, in front of one cluster. */
import assert from "node:assert/strict";
import type { TestContext } from "node:test";
import { openJetStreamStreams } from "../../../gateway/streams/stores/jetstream/jetstream.ts";
import type { AppendOutcome, PublishColumns } from "../../../gateway/streams/streams.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { eventually } from "../../support/program.ts";
import { TcpProxy } from "../../support/tcp-proxy.ts";
import {
  clusterFact as fact,
  type Ground,
  textsOf,
  until,
} from "../streams/stores/jetstream/cluster-fact.ts";
import { openDoor, RawSensor } from "./door.ts";

const TOPIC = "plant/a/temperature";

fact(
  "what a connection brings late, when its sensor has sent it again by another gateway, is stored once",
  async ({ open }, t) => {
    const [one, other] = [await open(), await open()];
    await one.createStream({ name: "sensors", shards: 2, retentionHours: 24 });
    await until(() => other.listStreams().includes("sensors"));
    const left = await openDoor(t, { wrap: () => one });
    const entered = await openDoor(t, { wrap: () => other });
    const link = new TcpProxy({ targetPort: left.port });
    await link.start();
    t.after(() => link.close());
    const before = await new RawSensor(link.port).connect("plain");
    await before.acknowledged(100, TOPIC, "21.5");
    link.stall(["up"]);
    before.publish(101, TOPIC, "21.6");
    await before.vanish();
    const after = await new RawSensor(entered.port).connect("plain");
    await after.acknowledged(101, TOPIC, "21.6", true);
    await eventually(
      "the gateway that was left knows of it",
      60_000,
      async () => (await textsOf(one, "sensors")).length === 2 || undefined,
    );
    link.restore();
    await eventually(
      "the connection is over",
      60_000,
      async () => !left.ingest.devices()[0]?.connected || undefined,
    );
    await after.acknowledged(102, TOPIC, "21.7");
    assert.deepEqual((await textsOf(other, "sensors")).sort(), ["21.5", "21.6", "21.7"]);
  },
);

/** A sensor's publish waits at a gateway that is cut off from the cluster; `goOn` is what it does then. @returns what became of it */
async function overtaken(
  { cluster, prefix, open }: Ground,
  t: TestContext,
  goOn: (before: RawSensor, entered: number) => Promise<void>,
): Promise<{ outcome: readonly (AppendOutcome | Error)[]; texts: string[] }> {
  const link = new TcpProxy({ targetPort: Number(cluster.servers[0]!.split(":")[1]) });
  await link.start();
  t.after(() => link.close());
  const parts = { replicas: 3, prefix, clock: systemClock, log: silentLog, metrics: new Metrics() };
  const late = await openJetStreamStreams({ servers: [`127.0.0.1:${link.port}`], ...parts });
  t.after(() => late.close());
  const other = await open();
  await late.createStream({ name: "sensors", shards: 2, retentionHours: 24 });
  await until(() => other.listStreams().includes("sensors"));
  const handed: Array<Promise<readonly (AppendOutcome | Error)[]>> = [];
  const watched = new Proxy(late, {
    get(target, name) {
      if (name !== "appendPublishes") return Reflect.get(target, name)?.bind(target);
      return (stream: string, publishes: PublishColumns) => {
        const appended = target.appendPublishes(stream, publishes);
        handed.push(appended);
        return appended;
      };
    },
  });
  const left = await openDoor(t, { wrap: () => watched });
  const entered = await openDoor(t, { wrap: () => other });
  const before = await new RawSensor(left.port).connect("plain");
  await before.acknowledged(100, TOPIC, "21.5");
  await until(() => other.remembersPacket("plain", 100));
  link.stall();
  before.publish(101, TOPIC, "21.6");
  await until(() => handed.length === 2);
  await goOn(before, entered.port);
  await until(() => !left.ingest.devices()[0]?.connected && !other.remembersPacket("plain", 101));
  link.restore();
  return { outcome: await handed[1]!, texts: (await textsOf(late, "sensors")).sort() };
}

fact(
  "what waits for the cluster, when its sensor has sent it again by another gateway and left in peace, is stored once",
  async (ground, t) => {
    const { outcome, texts } = await overtaken(ground, t, async (before, entered) => {
      await before.vanish();
      const after = await new RawSensor(entered).connect("plain");
      await after.acknowledged(101, TOPIC, "21.6", true);
      await after.disconnect();
    });
    assert.deepEqual(outcome, ["duplicate"]);
    assert.deepEqual(texts, ["21.5", "21.6"]);
  },
);

fact(
  "what waits for the cluster, when its sensor has left in peace and come by another gateway, is stored",
  async (ground, t) => {
    const { outcome, texts } = await overtaken(ground, t, async (before, entered) => {
      await before.disconnect();
      const after = await new RawSensor(entered).connect("plain");
      await after.acknowledged(1, TOPIC, "21.7");
      await after.disconnect();
    });
    assert.deepEqual(outcome, ["stored"]);
    assert.deepEqual(texts, ["21.5", "21.6", "21.7"]);
  },
);
