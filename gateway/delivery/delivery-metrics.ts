/** What /metrics tells of deliveries. */
import type { Metrics } from "../../runtime/metrics.ts";
import type { CutManifest } from "./cut-manifest.ts";

export type DeliveryMetrics = ReturnType<typeof deliveryMetrics>;

export function deliveryMetrics(metrics: Metrics) {
  const labels = ["delivery"] as const;
  return {
    objects: metrics.counter("headwater_delivery_objects_total", "Objects delivered", labels),
    records: metrics.counter("headwater_delivery_records_total", "Records delivered", labels),
    bytes: metrics.counter(
      "headwater_delivery_bytes_total",
      "Bytes of delivered objects, compressed",
      labels,
    ),
    failedRecords: metrics.counter(
      "headwater_delivery_failed_records_total",
      "Records that went to the error output",
      labels,
    ),
    trimmedRecords: metrics.counter(
      "headwater_delivery_trimmed_records_total",
      "Records that retention removed before they were delivered",
      labels,
    ),
    errors: metrics.counter("headwater_delivery_errors_total", "Failed tries to read or deliver", labels),
  };
}

export function countCut(metrics: DeliveryMetrics, delivery: string, manifest: CutManifest): void {
  const { records, failedRecords, bytes, trimmedRecords = 0 } = manifest;
  if (records > 0) {
    metrics.objects.inc({ delivery });
    metrics.bytes.inc({ delivery }, bytes);
  }
  metrics.records.inc({ delivery }, records);
  metrics.failedRecords.inc({ delivery }, failedRecords);
  metrics.trimmedRecords.inc({ delivery }, trimmedRecords);
}
