/** What the MQTT uplink counts. */
import type { Metrics } from "../../runtime/metrics.ts";

export interface UplinkMeters {
  sent(frames: number, bytes: number, inFlightBytes: number): void;
  acknowledged(frames: number, inFlightBytes: number): void;
  connecting(): void;
  busy(): void;
}

export function uplinkMeters(metrics: Metrics, connected: () => boolean): UplinkMeters {
  metrics.gauge("headwater_uplink_connected", "1 while the gateway is reached", [], function () {
    this.set(connected() ? 1 : 0);
  });
  const sent = metrics.counter("headwater_uplink_frames_sent_total", "Frames sent, also again");
  const bytes = metrics.counter("headwater_uplink_bytes_sent_total", "Bytes of frames sent, also again");
  const acknowledged = metrics.counter("headwater_uplink_frames_acknowledged_total", "Frames acknowledged");
  const connections = metrics.counter("headwater_uplink_connections_total", "Connections tried");
  const busy = metrics.counter(
    "headwater_uplink_busy_total",
    "Times that the gateway asked to come back later",
  );
  const inFlight = metrics.gauge("headwater_uplink_in_flight_bytes", "Bytes sent and not acknowledged");
  return {
    sent(frames, byteCount, inFlightBytes) {
      sent.inc(frames);
      bytes.inc(byteCount);
      inFlight.set(inFlightBytes);
    },
    acknowledged(frames, inFlightBytes) {
      acknowledged.inc(frames);
      inFlight.set(inFlightBytes);
    },
    connecting: () => connections.inc(),
    busy: () => busy.inc(),
  };
}
