/**
 * A gateway's store and one delivery of the stream `s`, in a process of its own: `SERVERS PREFIX DIR OUT BUFFER_BYTES`. Sends
 * itself a signal right after the next `STEP SIGNAL` that it reads. Tells each step, and what its delivery has to say, as
 * a line.
 */
import { openDelivery } from "../../../gateway/delivery/open-delivery.ts";
import { openJetStreamStreams } from "../../../gateway/streams/stores/jetstream/jetstream.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { type Log, silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";

const [servers, prefix, dir, out, bufferBytes] = process.argv.slice(2);
let step: string | undefined;
let signal = "";
process.stdin.on("data", (text) => {
  [step, signal = ""] = String(text).trim().split(" ");
  process.stdout.write("armed\n");
});
// Nobody is left behind when the test ends.
process.stdin.on("end", () => process.exit());

const say = (fields: object, message: string): void => {
  process.stdout.write(`log ${message} ${JSON.stringify(fields)}\n`);
};
const log: Log = { ...silentLog, info: say, warn: say, error: say, child: () => log };
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
  log,
  onStep: (_, at) => {
    process.stdout.write(`step ${at}\n`);
    if (at !== step) return;
    step = undefined;
    process.kill(process.pid, signal);
  },
});
await delivery.start();
process.stdout.write("ready\n");
