import { randomBytes } from "node:crypto";
import test from "node:test";
import { openJetStreamStreams } from "../../../../../gateway/streams/stores/jetstream/jetstream.ts";
import { systemClock } from "../../../../../runtime/clock.ts";
import { silentLog } from "../../../../../runtime/log.ts";
import { Metrics } from "../../../../../runtime/metrics.ts";
import { streamsContract } from "../../../../contract/streams.ts";
import { type NatsCluster, natsMissing, startNatsCluster } from "../../../../support/nats-cluster.ts";

const missing = natsMissing();
if (missing !== undefined) test("jetstream", { skip: missing }, () => undefined);
else {
  let cluster: NatsCluster | undefined;
  test.before(async () => {
    cluster = await startNatsCluster();
  });
  test.after(() => cluster?.stop());
  streamsContract("jetstream", async () => {
    const prefix = `t${randomBytes(6).toString("hex")}`;
    const { servers } = cluster!;
    return {
      open: (more) =>
        openJetStreamStreams({
          servers,
          replicas: 3,
          prefix,
          clock: systemClock,
          log: silentLog,
          metrics: new Metrics(),
          ...more,
        }),
      remove: async () => undefined,
    };
  });
}
