/** A gateway's store and the rig's statement, in a process of its own: `SERVERS PREFIX DIR`. */
import { openJetStreamStreams } from "../../../gateway/streams/stores/jetstream/jetstream.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { armedSteps, toldLog } from "../../support/armed-steps.ts";
import { openRigOver } from "./analytics-rig.ts";

const [servers, prefix, dir] = process.argv.slice(2) as [string, string, string];
const onStep = armedSteps();
const streams = await openJetStreamStreams({
  servers: servers.split(","),
  replicas: 3,
  prefix,
  clock: systemClock,
  log: silentLog,
  metrics: new Metrics(),
});
const rig = await openRigOver(streams, dir, { log: toldLog(), onStep });
await rig.analytics.start();
process.stdout.write("ready\n");
