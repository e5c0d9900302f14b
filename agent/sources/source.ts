/** A source turns what a device says into records and hands them to the buffer. It cannot hurt another. */
import type { SourceStatus } from "../../protocol/topics.ts";

export interface Source {
  readonly name: string;
  /** Resolves when it runs or will keep trying by itself; rejects only for a fault in its config. */
  start(): Promise<void>;
  /** Takes nothing more, waits for what it handed over, closes its port or socket. Safe to call twice. */
  close(): Promise<void>;
  status(): SourceStatus;
}

/** A record as a sensor meant it: JSON `{device, sensor, time, …fields}`. */
export interface SensorReading {
  readonly sensor: string;
  /** µs since 1970 UTC; undefined when the sensor has no clock, and the time of arrival counts. */
  readonly timeUs: number | undefined;
  readonly fields: Readonly<Record<string, unknown>>;
}
