/** What the video part counts. */
import type { Counter } from "prom-client";
import type { Metrics } from "../../runtime/metrics.ts";

export interface VideoCounters {
  /** Units that came, by what became of them. */
  readonly units: Counter<"camera" | "result">;
  /** Units whose packets were not those that their end announced. */
  readonly mismatches: Counter<"camera">;
  /** Packets of an agent outside any unit. */
  readonly strayPackets: Counter<"camera">;
  /** Packets that are relayed to readers but not archived, such as G.711, and AAC that is not understood. */
  readonly otherPackets: Counter<"camera">;
  readonly badMarks: Counter<"camera">;
  readonly removed: Counter<"camera">;
}

export function videoCounters(metrics: Metrics): VideoCounters {
  return {
    units: metrics.counter(
      "headwater_video_units_total",
      "Units of footage that came, by result: whole, truncated, quarantined, repeated, empty, failed",
      ["camera", "result"],
    ),
    mismatches: metrics.counter(
      "headwater_video_mismatched_units_total",
      "Units whose packets did not match the digest at their end",
      ["camera"],
    ),
    strayPackets: metrics.counter(
      "headwater_video_stray_packets_total",
      "Packets that an agent sent outside a unit",
      ["camera"],
    ),
    otherPackets: metrics.counter(
      "headwater_video_unstored_packets_total",
      "Packets of sound and other tracks that the archive cannot hold beside pictures",
      ["camera"],
    ),
    badMarks: metrics.counter("headwater_video_bad_marks_total", "Broken begin or end marks of units", [
      "camera",
    ]),
    removed: metrics.counter("headwater_video_removed_fragments_total", "Fragments removed by retention", [
      "camera",
    ]),
  };
}
