/** How long the cluster keeps a stream's records is what the list of streams says, whoever changed what at the same moment. */
import assert from "node:assert/strict";
import { jetstreamManager } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import { StreamList } from "../../../../../gateway/streams/stores/jetstream/registry/stream-list.ts";
import { clusterFact as fact, until } from "./cluster-fact.ts";

const HOUR_NS = 3_600 * 1_000_000_000;

fact(
  "of two gateways that change the retention at once one's holds, in the list as on the cluster",
  async (ground) => {
    const { open, cluster, prefix } = ground;
    const [a, b] = [await open(), await open()];
    const nc = await connect({ servers: cluster.servers });
    try {
      const manager = await jetstreamManager(nc);
      const names = Array.from({ length: 12 }, (_, i) => `s${i}`);
      for (const name of names) await a.createStream({ name, shards: 1, retentionHours: 24 });
      await until(() => b.listStreams().length === names.length);
      await Promise.all(
        names.flatMap((name) => [
          a.updateStream(name, { retentionHours: 48 }),
          b.updateStream(name, { retentionHours: 72 }),
        ]),
      );
      const hoursOnCluster = async (name: string): Promise<number> => {
        const { config } = await manager.streams.info(`${prefix}-${a.settings(name).streamId}`);
        return config.max_age / HOUR_NS;
      };
      const untilMs = Date.now() + 30_000;
      for (const name of names) {
        await until(async () => {
          const said = [a, b].map((streams) => streams.settings(name).retentionHours);
          const kept = await hoursOnCluster(name);
          if (Date.now() > untilMs) assert.deepEqual([...said, kept], [said[0], said[0], said[0]]);
          return said.every((hours) => hours === kept);
        });
      }
    } finally {
      await nc.close();
    }
  },
);

fact("a longer retention never ends again while it takes long to be written down", async (ground, t) => {
  const { open, cluster, prefix } = ground;
  const streams = await open();
  await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
  const { streamId } = streams.settings("s");
  const nc = await connect({ servers: cluster.servers });
  const seen: number[] = [];
  const { updateStream } = StreamList.prototype;
  t.mock.method(
    StreamList.prototype,
    "updateStream",
    async function (this: StreamList, ...change: Parameters<StreamList["updateStream"]>) {
      // Longer than a difference between cluster and list is let be.
      await new Promise((resolve) => setTimeout(resolve, 8_000));
      await updateStream.apply(this, change);
    },
  );
  try {
    const manager = await jetstreamManager(nc);
    const look = async (): Promise<void> => {
      const { config } = await manager.streams.info(`${prefix}-${streamId}`);
      if (seen.at(-1) !== config.max_age / HOUR_NS) seen.push(config.max_age / HOUR_NS);
    };
    await look();
    let isDone = false;
    const done = streams.updateStream("s", { retentionHours: 48 }).finally(() => {
      isDone = true;
    });
    while (!isDone) await look();
    await done;
    await look();
    assert.deepEqual(seen, [24, 48]);
  } finally {
    await nc.close();
  }
});
