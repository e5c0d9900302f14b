/** What the logs of all streams count. */
import type { Counter, Histogram } from "prom-client";
import type { Metrics } from "../../../../../runtime/metrics.ts";

export interface LogMeters {
  readonly records: Counter<"stream">;
  readonly bytes: Counter<"stream">;
  readonly duplicates: Counter<"stream">;
  readonly damagedBytes: Counter<"stream">;
  readonly tornBytes: Counter<"stream">;
  readonly writeFailures: Counter<"stream">;
  readonly retentionHolds: Counter;
  readonly commitSeconds: Histogram;
  readonly groupEntries: Histogram;
}

export function makeLogMeters(metrics: Metrics): LogMeters {
  const counter = (name: string, help: string) => metrics.counter(`headwater_log_${name}`, help, ["stream"]);
  return {
    records: counter("appended_records_total", "Records on disk"),
    bytes: counter("appended_bytes_total", "Bytes of the log, all told"),
    duplicates: counter("duplicates_total", "Frames and publishes that came again and were not stored again"),
    damagedBytes: counter("damaged_bytes_total", "Bytes of the log that could not be read back"),
    tornBytes: counter("torn_bytes_total", "Bytes of unfinished writes that were cut off at a start"),
    writeFailures: counter("write_failures_total", "Writes or syncs that the disk refused"),
    retentionHolds: metrics.counter(
      "headwater_log_retention_holds_total",
      "Jumps of the wall clock that made retention wait before it believed them",
    ),
    commitSeconds: metrics.histogram(
      "headwater_log_commit_seconds",
      "How long it took to bring a group of appends to the disk, its fdatasync included",
      [0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2],
    ),
    groupEntries: metrics.histogram(
      "headwater_log_group_entries",
      "Appends that shared one fdatasync",
      [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000],
    ),
  };
}

/** A stream's log, as far as it is looked at when somebody asks for the metrics. */
interface WatchedLog {
  readonly retiredBytes: number;
  readonly writeAgeMs: number;
}

export function watchLogs(
  metrics: Metrics,
  streams: ReadonlyMap<string, { readonly log: WatchedLog }>,
): void {
  const gauge = (name: string, help: string, look: (log: WatchedLog) => number) =>
    metrics.gauge(`headwater_log_${name}`, help, ["stream"], function () {
      this.reset();
      for (const [stream, { log }] of streams) this.set({ stream }, look(log));
    });
  const unremoved =
    "Bytes of segments that are too old and could not be removed yet; tried again each minute";
  const age = "For how long the disk has not answered the write that is under way; 0 without one";
  gauge("write_age_seconds", age, (log) => log.writeAgeMs / 1000);
  gauge("unremoved_bytes", unremoved, (log) => log.retiredBytes);
}

/** Of a stream that is no more, so that streams which come and go without end do not fill /metrics. */
export function forgetStream(meters: LogMeters, stream: string): void {
  const { records, bytes, duplicates, damagedBytes, tornBytes, writeFailures } = meters;
  for (const counter of [records, bytes, duplicates, damagedBytes, tornBytes, writeFailures])
    counter.remove({ stream });
}
