/** What a record buffer on LevelDB is made with. */
import type { Epoch, TimeSource } from "../../../protocol/frame.ts";
import type { Clock } from "../../../runtime/clock.ts";
import type { Log } from "../../../runtime/log.ts";
import type { Metrics } from "../../../runtime/metrics.ts";
import type { BufferFailedError } from "../record-buffer.ts";

export interface LevelRecordBufferOptions {
  /** Made when it is missing; belongs to this buffer alone. */
  readonly dir: string;
  readonly device: string;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly maxBytes: number;
  readonly whenFull: "pause" | "reject" | "drop-oldest";
  readonly commitDelayMs: number;
  readonly commitRecords: number;
  readonly commitBytes?: number;
  /** `drop-oldest` begins with the streams of the lowest number; 0 unless named. */
  readonly priorities?: Readonly<Record<string, number>>;
  /** Frames that have waited longer are dropped; 0 for no limit. */
  readonly maxAgeHours?: number;
  /** Less free space on the disk counts as full; 0 for no limit. */
  readonly minFreeBytes?: number;
  /** Size of a part of the chain; 4 MiB, or an eighth of `maxBytes`, unless given. */
  readonly partBytes?: number;
  /** How long writers wait for a new part while it cannot be made; 60 s unless given. */
  readonly patienceMs?: number;
  /** Called once, when a write failed and the buffer takes nothing more. */
  readonly onFailure?: (error: BufferFailedError) => void;
  /** How `clock` knows the time, as frames say it; `system` unless given. */
  readonly timeSource?: () => TimeSource;
  /** A new epoch's id; random unless given. */
  readonly random?: () => Epoch;
}
