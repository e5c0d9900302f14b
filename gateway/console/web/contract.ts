/**
 * What the gateway's HTTP API says to this page. The page shares no code with the gateway: it speaks
 * only HTTP, so these shapes are written down here again, as far as the page reads them.
 */

export interface BufferStatus {
  readonly waitingRecords: number;
  readonly waitingBytes: number;
  readonly maxBytes: number;
  readonly oldestAgeMs: number;
  readonly droppedRecords: number;
}

export interface SourceStatus {
  readonly name: string;
  readonly type: string;
  readonly state: "running" | "waiting" | "stalled" | "stopped";
  readonly records: number;
  readonly rejected: number;
  readonly lastError?: string;
}

export interface DeviceStatus {
  readonly device: string;
  readonly connected: boolean;
  readonly lastSeenMs: number;
  readonly frames: number;
  readonly records: number;
  readonly duplicateFrames: number;
  readonly missedFrames: number;
  readonly status?: {
    readonly version: string;
    readonly buffer: BufferStatus;
    readonly footage?: BufferStatus;
    readonly sources: readonly SourceStatus[];
    readonly residentBytes: number;
  };
}

export interface ShardState {
  readonly shardId: string;
  /** False once it was split or merged: what it keeps can be read, nothing comes any more. */
  readonly open: boolean;
  /** The API writes whole numbers that may grow large as text. */
  readonly latest: number | string;
  readonly trimHorizon: number | string;
  /** Kept ones. */
  readonly records: number;
  readonly storedBytes: number;
  readonly recordsPerSecond: number;
}

export interface StreamState {
  readonly name: string;
  readonly retentionHours: number;
  readonly mode: "provisioned" | "on-demand";
  readonly openShards: number;
  readonly shards: readonly ShardState[];
  /** Of its log, so many could not be read back since the gateway began. */
  readonly damagedBytes: number;
  /** Why it cannot be written, if so. */
  readonly refusing: string | null;
  readonly consumers: readonly { readonly name: string; readonly behind: number }[];
}

export interface DeliveryStatus {
  readonly name: string;
  readonly stream: string;
  readonly destination: string;
  readonly deliveredObjects: number;
  readonly deliveredRecords: number;
  readonly failedRecords: number;
  readonly waitingMs: number;
  readonly lastError?: string;
}

export interface DeliveredObject {
  readonly delivery: string;
  readonly name: string;
  readonly records: number;
  readonly bytes: number;
  readonly deliveredMs: number;
}

export interface StatementStatus {
  readonly name: string;
  readonly input: string;
  readonly output: string;
  readonly state: "running" | "failed";
  readonly records: number;
  readonly late: number;
  readonly rejected: number;
  readonly results: number;
  readonly watermarkUs?: number;
  readonly lastError?: string;
}

export interface CameraStatus {
  readonly camera: string;
  readonly live: boolean;
  readonly codec?: string;
  readonly width?: number;
  readonly height?: number;
  readonly fragments: number;
  readonly storedBytes: number;
  readonly oldestUs?: number;
  readonly newestUs?: number;
  readonly quarantined: number;
  readonly viewers: number;
}

export interface GatewayState {
  readonly nowMs: number;
  readonly version: string;
  readonly devices: readonly DeviceStatus[];
  readonly quarantine: {
    readonly publishes: number;
    readonly keptBytes: number;
    readonly lastReason?: string;
  };
  /** Why the store cannot be reached, if it is on other machines and that is so. */
  readonly unreachable: string | null;
  readonly streams: readonly StreamState[];
  readonly deliveries: readonly DeliveryStatus[];
  readonly objects: readonly DeliveredObject[];
  readonly statements: readonly StatementStatus[];
  readonly cameras: readonly CameraStatus[];
}

export interface SensorSummary {
  readonly key: string;
  readonly fields: readonly string[];
  readonly lastUs: number;
}

export interface Reading {
  readonly timeUs: number;
  readonly values: Readonly<Record<string, number>>;
}

export interface RecentRows {
  readonly rows: readonly Reading[];
  /** Of those before it some may be missing: too much came to be read or kept. */
  readonly wholeFromUs?: number;
}

/** A result of a statement: columns as its SQL names them. */
export type WindowRow = Readonly<Record<string, unknown>>;

export interface NewestWindows {
  readonly rows: readonly WindowRow[];
  /** Some were too large to be read or shown. */
  readonly isCut?: true;
}

export interface FootageFragment {
  readonly id: string;
  readonly producerUs: number;
  readonly durationUs: number;
  readonly bytes: number;
  readonly state: "whole" | "truncated" | "quarantined";
}
