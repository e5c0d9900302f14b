/** What /metrics tells of statements. */
import type { Metrics } from "../../runtime/metrics.ts";

export type AnalyticsMetrics = ReturnType<typeof analyticsMetrics>;

export function analyticsMetrics(metrics: Metrics) {
  const labels = ["statement"] as const;
  return {
    records: metrics.counter("headwater_analytics_records_total", "Records read", labels),
    late: metrics.counter("headwater_analytics_late_total", "Records after their window had closed", labels),
    rejected: metrics.counter(
      "headwater_analytics_rejected_total",
      "Records that could not be decoded",
      labels,
    ),
    results: metrics.counter(
      "headwater_analytics_results_total",
      "Results stored in the output stream",
      labels,
    ),
    trimmed: metrics.counter(
      "headwater_analytics_trimmed_total",
      "Records that retention removed before they were read",
      labels,
    ),
    skipped: metrics.counter(
      "headwater_analytics_skipped_total",
      "Records left out because the checkpoint was older than what had been read",
      labels,
    ),
    errors: metrics.counter("headwater_analytics_errors_total", "Failed tries to read or write", labels),
    groups: metrics.gauge("headwater_analytics_open_groups", "Keys and windows that are open", labels),
  };
}
