/**
 * The agent's store-and-forward queue of footage: one entry is one unit, a group of pictures of
 * raw RTP of all tracks (protocol/footage.ts). Survives power loss. Knows nothing of RTSP.
 *
 *   camera ─append→ [oldest … newest] per camera ─read/ack→ uplink
 */
import type { FootageUnit } from "../../protocol/footage.ts";
import type { Epoch, FrameSequence } from "../../protocol/frame.ts";

export interface UnitPlace {
  readonly epoch: Epoch;
  readonly sequence: FrameSequence;
}

/** What a camera's recorder knows of a unit; the buffer adds its place. */
export interface RecordedUnit extends Omit<FootageUnit, "epoch" | "sequence"> {
  /** Producer time of its last picture, µs since 1970 UTC. */
  readonly endUs: number;
}

/** Footage that nobody will ever see: from the producer time `fromUs` to `toUs`, µs since 1970 UTC. */
export interface FootageGap {
  readonly camera: string;
  readonly fromUs: number;
  readonly toUs: number;
  readonly reason: string;
}

export interface FootageUsage {
  readonly waitingUnits: number;
  readonly waitingBytes: number;
  readonly maxBytes: number;
  /** When the oldest waiting unit began, µs; undefined when none waits. */
  readonly oldestUs: number | undefined;
  readonly droppedUnits: number;
}

export interface FootageBuffer {
  /**
   * Resolves with its place once the unit is on disk; the oldest units make room for it.
   * @throws BufferFullError when it is larger than all the room; FootageWriteError when the disk refuses
   */
  append(unit: RecordedUnit): Promise<UnitPlace>;
  /** The oldest unit of `camera` behind `after`; undefined when none waits. Removes nothing. */
  read(camera: string, after: UnitPlace | undefined): Promise<FootageUnit | undefined>;
  /** Resolves when a unit of `camera` waits behind `after`, or `signal` aborts. */
  waiting(camera: string, after: UnitPlace | undefined, signal: AbortSignal): Promise<void>;
  /** Resolves when a unit waits of a camera that is not in `known`, or `signal` aborts. */
  waitingOther(known: ReadonlySet<string>, signal: AbortSignal): Promise<void>;
  /** Forgets the units of `camera` from `first` to `last` of `epoch`, which the gateway has persisted. Safe to repeat. */
  ack(camera: string, epoch: Epoch, first: FrameSequence, last: FrameSequence): Promise<void>;
  /** Tells whoever watches over completeness of footage that was never stored, such as during a camera's stall. */
  reportGap(gap: FootageGap): void;
  /** The end of the newest unit of `camera` that was ever stored, in producer time; also of an earlier start. */
  newestUs(camera: string): number | undefined;
  /** Every camera with a unit that waits, also those no longer configured. */
  cameras(): Promise<string[]>;
  usage(): FootageUsage;
  close(): Promise<void>;
}
