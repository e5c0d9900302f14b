/**
 * What the agent says of itself: the body of /status.json, documented in docs/reference/agent-status.md.
 * Keys are only ever added.
 */
import type { BufferStatus, SourceStatus } from "../../protocol/topics.ts";

export interface AgentStatus {
  readonly device: string;
  readonly version: string;
  readonly uptimeMs: number;
  readonly residentBytes: number;
  readonly health: Health;
  readonly uplinkConnected: boolean;
  /** What makes the agent unfit to go on; empty when nothing does. */
  readonly faults: readonly string[];
  readonly uplink: UplinkStatus;
  readonly clock: ClockStatus;
  readonly buffer: BufferStatus;
  /** There only where a camera is, or was, configured; units instead of records. */
  readonly footage?: BufferStatus;
  readonly sources: readonly WatchedSource[];
  /** The newest first. */
  readonly errors: readonly RecentError[];
}

export interface Health {
  /** `warned`: it does its work, and somebody should look. `failing`: it cannot do its work. */
  readonly state: "ok" | "warned" | "failing";
  /** Why it fails; empty unless it does. */
  readonly reasons: readonly string[];
  readonly warnings: readonly string[];
}

export interface UplinkStatus {
  /** Of the gateway, without a user or a password. */
  readonly gateway: string;
  readonly connected: boolean;
  /** For how long it has been as it is. */
  readonly sinceMs: number;
  /** What the link may carry now. */
  readonly link?: {
    /** `metered`: each byte costs. `paused`: nothing but the status is sent. */
    readonly mode: "full" | "metered" | "paused";
    readonly by: "config" | "schedule";
    /** For records and footage together; absent without a cap. */
    readonly maxBytesPerSecond?: number;
    /** When the schedule changes it, RFC 3339; absent when it does not within a week. */
    readonly until?: string;
  };
  /** Since the agent began, what was sent again counted again. */
  readonly sent?: {
    readonly frameBytes: number;
    /** Of the publishes that carried the frames, compressed where it pays. */
    readonly wireBytes: number;
  };
  /** There while connections with this device's identity end one another, as the gateway says. */
  readonly contested?: true;
  /** There while live-first streams are sent beside a backlog. */
  readonly live?: {
    /** From storing to the gateway's acknowledgement, the longest of the last ten seconds. */
    readonly latencyMs?: number;
  };
  /** There while records wait that are not of this moment. */
  readonly backlog?: {
    /** Until none does, at the speed of the last half minute; absent while it does not shrink. */
    readonly drainedInMs?: number;
  };
}

export interface ClockStatus {
  /** Nothing is uploaded while it is not. */
  readonly known: boolean;
  /** RFC 3339; absent while it is not known. */
  readonly time?: string;
  readonly by?: "system" | "ntp" | "gateway";
  /** How far off it can be. */
  readonly boundMs?: number;
}

/** How a source has fared of late. */
export interface Activity {
  /** Over the last ten seconds. */
  readonly recordsPerSecond: number;
  /** Since it last stored a record; absent before the first. */
  readonly lastRecordAgoMs?: number;
}

export interface WatchedSource extends SourceStatus, Activity {
  readonly health?: "idle" | "running" | "backing-off";
  /** Until the next try, while it backs off. */
  readonly retryInMs?: number;
  /** Readings that the config's filter, deadband or sampling left out. */
  readonly leftOut?: number;
}

export interface RecentError {
  readonly level: "warn" | "error";
  /** Which part of the agent met it, such as a source's name. */
  readonly part?: string;
  /** docs/reference/errors.md has them; absent where the system gave the error. */
  readonly code?: string;
  readonly message: string;
  /** What to do about it. */
  readonly hint?: string;
  readonly agoMs: number;
  /** Since it was met first. */
  readonly firstAgoMs: number;
  readonly times: number;
}

/** A buffer that is so full will soon be full. */
const NEARLY_FULL = 0.9;
/** A link that is away for longer deserves a look; records wait meanwhile and nothing is lost. */
const LINK_AWAY_MS = 60_000;

/** Whether the agent does its work. A gateway that cannot be reached is what the buffer is for: a warning. */
export function judge(status: Omit<AgentStatus, "health">): Health {
  const { faults, sources, buffer, footage, uplink, clock } = status;
  const reasons = [...faults];
  const warnings: string[] = [];
  for (const { name, type, state, health } of sources) {
    // Of a camera it says that no picture came for too long; its footage has a buffer that always takes.
    if (state === "stalled" && type === "camera") warnings.push(`${name} sends no pictures`);
    else if (state === "stalled") reasons.push(`${name} is held: the buffer takes nothing`);
    else if (health === "backing-off" || (health === undefined && state === "waiting")) {
      warnings.push(`${name} is not reached`);
    }
  }
  const fill = buffer.waitingBytes / Math.max(1, buffer.maxBytes);
  if (fill >= NEARLY_FULL) warnings.push(`the record buffer is ${Math.floor(fill * 100)} % full`);
  if (buffer.droppedRecords > 0) warnings.push(`${buffer.droppedRecords} records were dropped to make room`);
  if (footage !== undefined && footage.droppedRecords > 0) {
    warnings.push(`${footage.droppedRecords} units of footage were dropped to make room`);
  }
  if (!uplink.connected && uplink.sinceMs >= LINK_AWAY_MS) warnings.push("the gateway is not reached");
  if (uplink.contested) warnings.push("another device has this device's identity, or its link breaks unseen");
  if (!clock.known && uplink.sinceMs >= LINK_AWAY_MS) {
    warnings.push("the time of day is not known: records wait for NTP or the gateway");
  }
  const state = reasons.length > 0 ? "failing" : warnings.length > 0 ? "warned" : "ok";
  return { state, reasons, warnings };
}
