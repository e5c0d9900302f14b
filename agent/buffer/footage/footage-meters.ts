/** What the footage buffer counts. */
import type { Metrics } from "../../../runtime/metrics.ts";
import type { FootageBuffer } from "../footage-buffer.ts";

export type FootageMeters = ReturnType<typeof footageMeters>;

export function footageMeters(metrics: Metrics, buffer: FootageBuffer) {
  metrics.gauge("headwater_agent_footage_waiting_units", "Units that wait for the gateway", [], function () {
    this.set(buffer.usage().waitingUnits);
  });
  metrics.gauge("headwater_agent_footage_waiting_bytes", "Bytes of units that wait", [], function () {
    this.set(buffer.usage().waitingBytes);
  });
  return {
    stored: metrics.counter("headwater_agent_footage_stored_units_total", "Units stored and synced", [
      "camera",
    ]),
    storedBytes: metrics.counter("headwater_agent_footage_stored_bytes_total", "Their bytes", ["camera"]),
    dropped: metrics.counter("headwater_agent_footage_dropped_units_total", "Dropped for room", ["camera"]),
    damaged: metrics.counter("headwater_agent_footage_damaged_units_total", "Could not be read back"),
    sidecarDamaged: metrics.counter(
      "headwater_agent_footage_sidecar_damaged_total",
      "Times that the list of what must be there could not be believed",
    ),
    gaps: metrics.counter("headwater_agent_footage_gaps_total", "Gaps reported, for any reason", ["camera"]),
  };
}
