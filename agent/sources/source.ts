/**
 * A source turns what a device says into records and hands them to the buffer. It cannot hurt another.
 *
 *   bytes → decode/ → readings → shape/ (names, filter, deadband, sampling) → records ─append→ buffer
 *
 * What cannot be decoded is stored raw with the reason, or counted as rejected: silence never.
 */
import type { TimeSource } from "../../protocol/frame.ts";
import type { SourceStatus } from "../../protocol/topics.ts";
import type { Backoff } from "../../runtime/backoff.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { Log } from "../../runtime/log.ts";
import type { Metrics } from "../../runtime/metrics.ts";
import type { RecordBuffer } from "../buffer/record-buffer.ts";

export interface Source {
  readonly name: string;
  /** Resolves when it runs or will keep trying by itself; rejects only for a fault in its config. */
  start(): Promise<void>;
  /** Takes nothing more, waits for what it handed over, closes its port or socket. Safe to call twice. */
  close(): Promise<void>;
  status(): SourceReport;
}

/** `idle`: there is nothing to read yet, or it is closed. */
export type SourceHealth = "idle" | "running" | "backing-off";

export interface SourceReport extends SourceStatus {
  readonly health?: SourceHealth;
  /** Until the next try, while it backs off. */
  readonly retryInMs?: number;
  /** Readings that the config's filter, deadband or sampling left out. */
  readonly leftOut?: number;
}

/** A clock that can say how it knows the time of day. */
export interface SourceClock extends Clock {
  /** Undefined while it does not, and where nobody asks. */
  readonly knownBy?: TimeSource | undefined;
}

/** What every source of records needs, beside its config. */
export interface SourceParts {
  readonly device: string;
  readonly buffer: RecordBuffer;
  readonly clock: SourceClock;
  /** A child that names the source. */
  readonly log: Log;
  readonly metrics: Metrics;
  /** Between two tries; 100 ms to 30 s unless given. */
  readonly backoff?: Backoff;
}

/** A record as a sensor meant it: JSON `{device, sensor, time, …fields}`. */
export interface SensorReading {
  readonly sensor: string;
  /** µs since 1970 UTC; undefined when the sensor has no clock, and the time of arrival counts. */
  readonly timeUs: number | undefined;
  readonly fields: Readonly<Record<string, unknown>>;
}

/** A reading, and when it came, µs since 1970 UTC. */
export interface Arrival {
  readonly reading: SensorReading;
  readonly arrivalUs: number;
}

/** What a decoder makes of a line, a frame, a message: readings, perhaps none, or the reason why it could not. */
export type Decoded =
  | { readonly readings: readonly SensorReading[]; readonly reason?: never }
  | { readonly readings?: never; readonly reason: string };
