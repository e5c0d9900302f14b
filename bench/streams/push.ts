/** How long a record takes to a reader that is pushed to. */
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { runLoad } from "../load/load.ts";
import { noteLoad, RECORD_BYTES, type StreamsBench, tried, WARM_MS } from "./part.ts";

const PUSHED_PER_SECOND = 10_000;
/** As p99 is made by a few pauses a second, of V8's and of the disk's, more of them are looked at than elsewhere. */
const MEASURE_MS = 10_000;

/** From publish over fdatasync to the push, at a rate that is far from what the gateway can do. */
export async function push(bench: StreamsBench): Promise<void> {
  const { say, bars, gateway } = bench;
  say(`publish → fdatasync → SubscribeToShard at ${PUSHED_PER_SECOND.toLocaleString("en-US")} records/s`);
  const load = {
    kind: "push",
    stream: "pushes",
    recordsPerSecond: PUSHED_PER_SECOND,
    recordBytes: RECORD_BYTES,
    connections: 1,
    window: 1,
    warmMs: WARM_MS,
    measureMs: MEASURE_MS,
    endpoint: gateway.endpoint,
    port: gateway.mqttPort,
  } as const;
  // Peers that do not sync have left hundreds of megabytes to the kernel, which would write them meanwhile.
  await promisify(execFile)("sync");
  const pushed = await tried(say, "push", () => runLoad(load, gateway.pid));
  noteLoad(bench, "pushed", "Headwater, pushed", pushed);
  bars.bar("pushP50Ms", pushed?.p50Ms, "<=", 1, "publish to push, p50 in ms");
  bars.bar("pushP99Ms", pushed?.p99Ms, "<=", 5, "publish to push, p99 in ms");
}
