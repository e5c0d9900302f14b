/**
 * A gateway's store in a process of its own that ends, as by SIGKILL, before its n-th change of the
 * cluster. What it does: makes or deletes a stream.
 */
import { Documents } from "../../../../../gateway/streams/stores/jetstream/cluster/documents.ts";
import { JetStreams } from "../../../../../gateway/streams/stores/jetstream/cluster/jet-streams.ts";
import { openJetStreamStreams } from "../../../../../gateway/streams/stores/jetstream/jetstream.ts";
import { systemClock } from "../../../../../runtime/clock.ts";
import { silentLog } from "../../../../../runtime/log.ts";
import { Metrics } from "../../../../../runtime/metrics.ts";

const [servers, prefix, action, name, changes] = process.argv.slice(2);
const streams = await openJetStreamStreams({
  servers: servers!.split(","),
  replicas: 3,
  prefix: prefix!,
  clock: systemClock,
  log: silentLog,
  metrics: new Metrics(),
});
let left = Number(changes);
/** Puts itself before each call of a method that changes something. */
function endBefore<T extends object>(prototype: T, method: keyof T & string): void {
  const original = prototype[method] as (...args: unknown[]) => unknown;
  const ending = function (this: T, ...args: unknown[]): unknown {
    if (left-- === 0) process.kill(process.pid, "SIGKILL");
    return original.apply(this, args);
  };
  Object.defineProperty(prototype, method, { value: ending });
}
endBefore(Documents.prototype, "put");
endBefore(JetStreams.prototype, "make");
endBefore(JetStreams.prototype, "remove");
endBefore(JetStreams.prototype, "purge");
if (action === "make") await streams.createStream({ name: name!, shards: 1, retentionHours: 24 });
else await streams.deleteStream(name!);
process.exit(0);
