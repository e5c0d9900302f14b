/** Changes of the cluster's streams. */
import assert from "node:assert/strict";
import { jetstreamManager } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import { Link } from "../../../../../../gateway/streams/stores/jetstream/cluster/link.ts";
import { systemClock } from "../../../../../../runtime/clock.ts";
import { Metrics } from "../../../../../../runtime/metrics.ts";
import { clusterFact as fact } from "../cluster-fact.ts";

const HOUR_NS = 3_600 * 1_000_000_000;
const STREAMS = 30;
const ROUNDS = 5;

fact("a stream that three gateways change at the same moment refuses none of them", async (ground) => {
  const { cluster, prefix } = ground;
  const links = await Promise.all(
    cluster.servers.map((server) =>
      Link.open({ servers: [server], clock: systemClock, metrics: new Metrics() }),
    ),
  );
  const nc = await connect({ servers: cluster.servers });
  const names = Array.from({ length: STREAMS }, (_, i) => `${prefix}-${i}`);
  try {
    for (const [i, name] of names.entries()) {
      await links[0]!.streams.make({ name, subjects: [`${prefix}.${i}.>`], num_replicas: 3 });
    }
    for (let round = 1; round <= ROUNDS; round++) {
      const changed = links.flatMap(({ streams }, i) =>
        names.map((name) => streams.update(name, { max_age: (round * 3 + i) * HOUR_NS })),
      );
      await Promise.all(changed);
    }
    const manager = await jetstreamManager(nc);
    for (const name of names) {
      const { config } = await manager.streams.info(name);
      assert.ok(config.max_age >= ROUNDS * 3 * HOUR_NS);
    }
  } finally {
    await nc.close();
    await Promise.all(links.map((link) => link.close()));
  }
});
