/** A gateway's store and one delivery of the stream `s`, in a process of its own: `SERVERS PREFIX DIR OUT BUFFER_BYTES`. */
import { openDelivery } from "../../../gateway/delivery/open-delivery.ts";
import { openJetStreamStreams } from "../../../gateway/streams/stores/jetstream/jetstream.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { armedSteps, toldLog } from "../../support/armed-steps.ts";

const [servers, prefix, dir, out, bufferBytes] = process.argv.slice(2);
const done = armedSteps();
const parts = { clock: systemClock, metrics: new Metrics() };
const streams = await openJetStreamStreams({
  servers: servers!.split(","),
  replicas: 3,
  prefix: prefix!,
  log: silentLog,
  ...parts,
});
const delivery = await openDelivery({
  ...parts,
  dir: dir!,
  streams,
  deliveries: [
    {
      name: "archive",
      stream: "s",
      bufferBytes: Number(bufferBytes),
      bufferSeconds: 0.2,
      destination: { type: "files", path: out!, compression: "gzip" },
    },
  ],
  log: toldLog(),
  onStep: (_, step) => done(step),
});
await delivery.start();
process.stdout.write("ready\n");
