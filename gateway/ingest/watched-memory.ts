/** The memory of the MQTT door (publish-memory.ts), with its metrics and a word in the log when it is full. */
import type { Metrics } from "../../runtime/metrics.ts";
import type { PublishDesk } from "./publish-desk.ts";
import { PublishMemory, type PublishMemoryOptions } from "./publish-memory.ts";

const HELD_BYTES = "headwater_ingest_held_bytes";

export function watchedMemory(
  options: PublishMemoryOptions | undefined,
  { metrics, desk }: { metrics: Metrics; desk: PublishDesk },
): PublishMemory {
  const heldUps = metrics.counter(
    "headwater_ingest_held_up_total",
    "Times that MQTT connections were not read on because publishes filled the memory set aside for them",
  );
  const onHeld = (): void => {
    heldUps.inc();
    desk.warn({}, "MQTT connections are held up: publishes fill the memory set aside for them");
  };
  const memory = new PublishMemory({ onHeld, ...options });
  const what = "Bytes of MQTT publishes that are held in memory, by state";
  metrics.gauge(HELD_BYTES, what, ["state"], () => {
    const gauge = metrics.gauge<"state">(HELD_BYTES, "");
    gauge.set({ state: "waiting for the disk" }, memory.waitingBytes);
    gauge.set({ state: "coming in" }, memory.comingBytes);
  });
  return memory;
}
