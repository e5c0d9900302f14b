/** Plain sensors that go from one gateway to another, in front of one cluster. */
import assert from "node:assert/strict";
import { eventually } from "../../support/program.ts";
import { TcpProxy } from "../../support/tcp-proxy.ts";
import { clusterFact as fact, textsOf, until } from "../streams/stores/jetstream/cluster-fact.ts";
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
