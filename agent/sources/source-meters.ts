/** What every source counts, and what its status says of it. */
import type { Metrics } from "../../runtime/metrics.ts";

export interface SourceMeters {
  stored(records: number): void;
  /** Something arrived that is no reading. */
  rejected(reason: string): void;
  /** Sent again by a device that had not heard that it is stored. */
  repeated(): void;
  /** Not asked for by the config. */
  ignored(): void;
  /** The config asks for readings like these to be left out. */
  leftOut(reason: LeftOutReason, readings: number): void;
  /** A filter failed on a reading. */
  unfiltered(reason: string): void;
  /** Something is wrong, though no record was. */
  fault(reason: string): void;
  status(): { records: number; rejected: number; leftOut: number; lastError?: string };
}

export type LeftOutReason = "filter" | "deadband" | "sampling";

export function sourceMeters(metrics: Metrics, source: string, type: string): SourceMeters {
  const labels = { source, type };
  const names = ["source", "type"] as const;
  const stored = metrics.counter("headwater_source_records_total", "Records stored for a source", names);
  const rejected = metrics.counter(
    "headwater_source_rejected_total",
    "Lines and publishes that are no reading",
    names,
  );
  const repeated = metrics.counter(
    "headwater_source_repeated_total",
    "Publishes sent again and stored once",
    names,
  );
  const ignored = metrics.counter(
    "headwater_source_ignored_total",
    "Publishes on topics that are not stored",
    names,
  );
  const faults = metrics.counter(
    "headwater_source_faults_total",
    "Refused clients, lost ports, failed appends",
    names,
  );
  const leftOut = metrics.counter(
    "headwater_source_left_out_total",
    "Readings that a filter, a deadband or sampling left out",
    [...names, "reason"] as const,
  );
  const unfiltered = metrics.counter(
    "headwater_source_filter_failures_total",
    "Readings on which the filter failed",
    names,
  );
  let records = 0;
  let out = 0;
  let refusals = 0;
  let lastError: string | undefined;
  const remember = (reason: string): void => {
    lastError = reason.slice(0, 200);
  };
  return {
    stored(count) {
      records += count;
      stored.inc(labels, count);
    },
    rejected(reason) {
      refusals++;
      rejected.inc(labels);
      remember(reason);
    },
    repeated: () => repeated.inc(labels),
    ignored: () => ignored.inc(labels),
    leftOut(reason, readings) {
      out += readings;
      leftOut.inc({ ...labels, reason }, readings);
    },
    unfiltered(reason) {
      unfiltered.inc(labels);
      remember(`filter: ${reason}`);
    },
    fault(reason) {
      faults.inc(labels);
      remember(reason);
    },
    status: () => ({
      records,
      rejected: refusals,
      leftOut: out,
      ...(lastError !== undefined && { lastError }),
    }),
  };
}
