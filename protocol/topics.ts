/**
 * The MQTT topics between agent and gateway, all below `headwater/v1/{device}/`, and what travels
 * on them. docs/reference/wire.md is the specification.
 */
import { HeadwaterError } from "../runtime/errors.ts";

const ROOT = "headwater/v1";

/**
 * `frames` agent → gateway, QoS 1: one or several frames; PUBACK means on disk.
 * `drained` agent → gateway, QoS 1: JSON DrainedMessage; PUBACK means forgotten.
 * `status` agent → gateway, QoS 0: JSON StatusMessage, every second or so.
 * `time` agent → gateway, QoS 0: JSON TimeRequest; the answer comes on `control`.
 * `control` gateway → agent, QoS 0: JSON ControlMessage.
 */
export type TopicKind = "frames" | "drained" | "status" | "time" | "control";
const KINDS: readonly string[] = ["frames", "drained", "status", "time", "control"];

/** The epochs of which the agent holds no frame any more and will never send one again. */
export interface DrainedMessage {
  /** 16 hex digits each. */
  readonly epochs: readonly string[];
}

export interface StatusMessage {
  readonly version: string;
  readonly buffer: BufferStatus;
  readonly footage?: BufferStatus;
  readonly sources: readonly SourceStatus[];
  readonly residentBytes: number;
}

export interface BufferStatus {
  readonly waitingRecords: number;
  readonly waitingBytes: number;
  readonly maxBytes: number;
  /** Age of the oldest entry that waits; 0 when nothing does. */
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

/** What time is it? */
export interface TimeRequest {
  /** Comes back in the answer; a whole number. */
  readonly id: number;
}

export interface TimeMessage {
  readonly type: "time";
  readonly id: number;
  /** µs since 1970 UTC. */
  readonly utcUs: number;
}

export type ControlMessage = BusyMessage | TimeMessage | HelloMessage;

/**
 * What the gateway of this connection understands beyond plain frames; sent when an agent has subscribed
 * to its control topic. Until it came, and where none comes, only plain frames may be sent.
 */
export interface HelloMessage {
  readonly type: "hello";
  /** How publishes of frames may be compressed (publish-envelope.ts). Ways that are not known are passed over. */
  readonly accepts: readonly string[];
  /** Connections with this device's identity have ended one another again and again. */
  readonly contested?: boolean;
}

/** A publish could not be stored for now; it gets no PUBACK. Reconnect after the wait and send it again. */
export interface BusyMessage {
  readonly type: "busy";
  readonly reason: string;
  readonly retryAfterMs: number;
}

/** The stream in which agents and gateway report what is missing from others. */
export const GAPS_STREAM = "headwater-gaps";

/** A record of GAPS_STREAM, as JSON; its partition key is `device/sensor`. */
export interface GapRecord {
  readonly device: string;
  readonly sensor: string;
  /** RFC 3339, when it was noticed. */
  readonly time: string;
  readonly stream: string;
  readonly reason: string;
  readonly fromUs: number;
  readonly toUs: number;
  /** Where it is known. */
  readonly records?: number;
}

/** A device's name: letters, digits, `_`, `-`, `.`; at most 64. */
export const DEVICE_NAME = /^[A-Za-z0-9_.-]{1,64}$/;
/** Kinesis: a stream's name has 1 to 128 of these. */
export const STREAM_NAME = /^[A-Za-z0-9_.-]{1,128}$/;

export class BadNameError extends HeadwaterError {
  constructor(kind: string, name: string) {
    super("BAD_NAME", {
      message: `${JSON.stringify(name.slice(0, 80))} is no name for a ${kind}`,
      hint: "use letters, digits, _, - and .",
    });
  }
}

export function topicOf(device: string, kind: TopicKind): string {
  if (!DEVICE_NAME.test(device)) throw new BadNameError("device", device);
  return `${ROOT}/${device}/${kind}`;
}

/** The parts of one of our topics; undefined for any other. */
export function parseTopic(topic: string): { device: string; kind: TopicKind } | undefined {
  const parts = topic.split("/");
  if (parts.length !== 4 || `${parts[0]}/${parts[1]}` !== ROOT) return undefined;
  const [, , device, kind] = parts as [string, string, string, string];
  if (!DEVICE_NAME.test(device) || !KINDS.includes(kind)) return undefined;
  return { device, kind: kind as TopicKind };
}

/** True for topics that only agents may use, also malformed ones. */
export function isReservedTopic(topic: string): boolean {
  return topic === "headwater" || topic.startsWith("headwater/");
}
