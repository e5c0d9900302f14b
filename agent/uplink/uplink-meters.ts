/** What the MQTT uplink counts. */
import type { Metrics } from "../../runtime/metrics.ts";

export type LaneName = "in-order" | "live" | "backlog";

/** What the meters ask for when they are read. */
export interface UplinkState {
  readonly connected: boolean;
  readonly inFlightBytes: number;
  /** Whether live-first streams go their own way now. */
  readonly split: boolean;
}

export interface UplinkMeters {
  /** @param wireBytes of the publish, which may be compressed */
  sent(frames: number, frameBytes: number, wireBytes: number): void;
  /** @param latencyUs since the oldest of the frames was stored */
  acknowledged(lane: LaneName, frames: number, latencyUs: number): void;
  connecting(): void;
  busy(): void;
}

const LATENCY_SECONDS = [0.01, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 15, 60, 600, 3_600, 86_400];
const LANES: readonly LaneName[] = ["in-order", "live", "backlog"];

export function uplinkMeters(metrics: Metrics, state: () => UplinkState): UplinkMeters {
  metrics.gauge("headwater_uplink_connected", "1 while the gateway is reached", [], function () {
    this.set(state().connected ? 1 : 0);
  });
  metrics.gauge("headwater_uplink_in_flight_bytes", "Bytes sent and not acknowledged", [], function () {
    this.set(state().inFlightBytes);
  });
  metrics.gauge(
    "headwater_uplink_live_lane",
    "1 while live-first streams are sent beside a backlog",
    [],
    function () {
      this.set(state().split ? 1 : 0);
    },
  );
  const sent = metrics.counter("headwater_uplink_frames_sent_total", "Frames sent, also again");
  const bytes = metrics.counter("headwater_uplink_bytes_sent_total", "Bytes of frames sent, also again");
  const wire = metrics.counter("headwater_uplink_wire_bytes_total", "Bytes of publishes that carried them");
  const acknowledged = metrics.counter("headwater_uplink_frames_acknowledged_total", "Frames acknowledged");
  const latency = metrics.histogram(
    "headwater_uplink_latency_seconds",
    "From the storing of a publish's oldest frame to its acknowledgement",
    LATENCY_SECONDS,
    ["lane"],
  );
  const latencies = new Map(LANES.map((lane) => [lane, latency.labels({ lane })]));
  const connections = metrics.counter("headwater_uplink_connections_total", "Connections tried");
  const busy = metrics.counter(
    "headwater_uplink_busy_total",
    "Times that the gateway asked to come back later",
  );
  return {
    sent(frames, frameBytes, wireBytes) {
      sent.inc(frames);
      bytes.inc(frameBytes);
      wire.inc(wireBytes);
    },
    acknowledged(lane, frames, latencyUs) {
      acknowledged.inc(frames);
      latencies.get(lane)!.observe(Math.max(0, latencyUs) / 1e6);
    },
    connecting: () => connections.inc(),
    busy: () => busy.inc(),
  };
}
