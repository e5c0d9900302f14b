/**
 * Ingest: where devices meet the gateway. It decides who a device is, what is stored, and when a
 * publish may be acknowledged.
 *
 *   MQTT ─frames, publishes→ streams          RTSP ─footage→ video
 */
import type { StatusMessage } from "../../protocol/topics.ts";

export interface DeviceStatus {
  readonly device: string;
  readonly connected: boolean;
  readonly lastSeenMs: number;
  readonly frames: number;
  readonly records: number;
  readonly duplicateFrames: number;
  /** Frame sequences that never came, as the agent dropped them. */
  readonly missedFrames: number;
  /** What the agent last said of itself; undefined for plain MQTT clients. */
  readonly status?: StatusMessage;
}

export interface QuarantineStatus {
  readonly publishes: number;
  readonly keptBytes: number;
  readonly lastReason?: string;
}

export interface Ingest {
  start(): Promise<void>;
  /** Refuses new connections, answers what is stored, closes. Safe to call twice. */
  close(): Promise<void>;
  /** Sorted by name. */
  devices(): DeviceStatus[];
  quarantine(): QuarantineStatus;
}
