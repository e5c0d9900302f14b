/** A gateway's store in a process of its own: appends frames and works through a consumer until it is killed, or told to close. */
import { openJetStreamStreams } from "../../../../../gateway/streams/stores/jetstream/jetstream.ts";
import { systemClock } from "../../../../../runtime/clock.ts";
import { silentLog } from "../../../../../runtime/log.ts";
import { Metrics } from "../../../../../runtime/metrics.ts";
import { makeFrame } from "../../../../contract/stream-records.ts";

const [servers, prefix] = process.argv.slice(2);
// Nobody is left behind when the test ends.
process.stdin.on("end", () => process.exit());
const streams = await openJetStreamStreams({
  servers: servers!.split(","),
  replicas: 3,
  prefix: prefix!,
  clock: systemClock,
  log: silentLog,
  metrics: new Metrics(),
});
let closed: Promise<void> | undefined;
process.stdin.on("data", () => {
  // It has to wait for this one.
  streams.append("s", [{ partitionKey: "key", data: Buffer.from("last") }]).catch(() => undefined);
  closed ??= streams.close().then(() => process.exit());
});
try {
  const consumer = await streams.openConsumer("s", "c");
  for (let sequence = 1n; ; sequence++) {
    await streams.appendFrame(makeFrame("s", sequence, [`key=${sequence}`]));
    const [shardId] = consumer.shards;
    const { next } = await streams.read("s", shardId!, consumer.positions().get(shardId!)!, 1_000_000);
    await consumer.checkpoint(new Map([[shardId!, next]]));
    process.stdout.write(`${sequence} ${next}\n`);
  }
} catch (error) {
  if (closed === undefined) throw error;
}
