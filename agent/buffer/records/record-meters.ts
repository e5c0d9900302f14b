/** What the record buffer counts. */
import type { Counter } from "prom-client";
import type { Clock } from "../../../runtime/clock.ts";
import type { Metrics } from "../../../runtime/metrics.ts";
import type { BufferUsage } from "../record-buffer.ts";

export interface BufferMeters {
  commit(records: number, bytes: number, durationMs: number): void;
  readonly dropped: Counter;
  readonly damage: Counter;
  /** Records that damage cost. */
  readonly lost: Counter;
}

export function bufferMeters(metrics: Metrics, usage: () => BufferUsage, clock: Clock): BufferMeters {
  metrics.gauge(
    "headwater_buffer_waiting_records",
    "Records stored and not yet acknowledged",
    [],
    function () {
      this.set(usage().waitingRecords);
    },
  );
  metrics.gauge("headwater_buffer_waiting_bytes", "Bytes of frames not yet acknowledged", [], function () {
    this.set(usage().waitingBytes);
  });
  metrics.gauge("headwater_buffer_oldest_age_seconds", "Age of the oldest frame that waits", [], function () {
    const { oldestUs } = usage();
    this.set(oldestUs === undefined ? 0 : Math.max(0, clock.nowUs() - oldestUs) / 1e6);
  });
  metrics.gauge("headwater_buffer_open_epochs", "Epochs of which frames may wait", [], function () {
    this.set(usage().openEpochs);
  });
  const records = metrics.counter("headwater_buffer_stored_records_total", "Records stored");
  const bytes = metrics.counter("headwater_buffer_stored_bytes_total", "Bytes of frames stored");
  const seconds = metrics.histogram(
    "headwater_buffer_commit_seconds",
    "Duration of a synced group commit",
    [0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5],
  );
  return {
    commit(recordCount, byteCount, durationMs) {
      records.inc(recordCount);
      bytes.inc(byteCount);
      seconds.observe(durationMs / 1_000);
    },
    dropped: metrics.counter("headwater_buffer_dropped_records_total", "Oldest records dropped to make room"),
    damage: metrics.counter(
      "headwater_buffer_damage_total",
      "Times that part of the buffer was found damaged",
    ),
    lost: metrics.counter("headwater_buffer_lost_records_total", "Records that such damage cost"),
  };
}
