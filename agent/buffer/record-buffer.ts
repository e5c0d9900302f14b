/**
 * The agent's store-and-forward queue of records. Survives power loss. Knows nothing of MQTT.
 *
 *   sources ─append→ [oldest … newest] ─read/ack→ uplink
 *
 * A group commit makes one frame per stream, in one synced write. The frame is cut there once and
 * keeps its (epoch, sequence) until it is acknowledged.
 */
import type { Epoch, Frame, FrameSequence } from "../../protocol/frame.ts";
import { HeadwaterError } from "../../runtime/errors.ts";

/** A source's own place, stored in the same synced write as its records: a file offset, a packet id, a time. */
export interface Mark {
  /** Unique in the agent, such as `serial/board`. */
  readonly source: string;
  /** At most 4 KiB. The last one given wins; an empty one removes the mark. */
  readonly value: Uint8Array;
}

/** Of one record. */
export const MAX_PAYLOAD_BYTES = 1_048_576;

export interface BufferRecord {
  readonly stream: string;
  readonly partitionKey: string;
  /** When the record was made, µs since 1970 UTC. */
  readonly timeUs: number;
  /** 1 to MAX_PAYLOAD_BYTES; not to be written to afterwards. */
  readonly payload: Uint8Array;
  readonly mark?: Mark;
}

/** The place of a frame among all that wait. */
export interface FramePlace {
  readonly epoch: Epoch;
  readonly sequence: FrameSequence;
}

/** The place of a frame among those of its stream. */
export interface StreamPlace extends FramePlace {
  readonly stream: string;
}

export interface BufferUsage {
  /** Also those that were acknowledged ahead of others. */
  readonly waitingRecords: number;
  readonly waitingBytes: number;
  readonly maxBytes: number;
  /** When the oldest waiting frame was stored, µs; undefined when none waits. */
  readonly oldestUs: number | undefined;
  readonly droppedRecords: number;
  /** What is stored now is of this one. */
  readonly currentEpoch: Epoch;
  /** Epochs of which frames may wait, the current one among them. */
  readonly openEpochs: number;
}

export interface RecordBuffer {
  /**
   * Resolves once the records are on disk, in the frames that their group commit made.
   * All given in one call go into the same commit, in their order.
   * @throws BufferFullError when they do not fit; nothing was stored.
   */
  append(records: readonly BufferRecord[]): Promise<void>;
  /**
   * Stores what a source has to tell of a loss. A full buffer, or one on a short disk, has a little room left
   * for this, whatever its policy; nothing waits for more.
   * @returns whether there was room; false when these took of that little, and what comes next should be gathered
   * @throws BufferFullError when that is used up, too; nothing was stored
   */
  report(records: readonly BufferRecord[]): Promise<boolean>;
  /** True when `append` of these would throw BufferFullError now, so that a source can decide without a wait. */
  refuses(records: readonly BufferRecord[]): boolean;
  /** The last stored mark of a source, also of an earlier start. */
  mark(source: string): Promise<Uint8Array | undefined>;
  /** The names of all marks that begin with `prefix`, sorted; at most 100,000. */
  marks(prefix: string): Promise<string[]>;
  /** Stores marks without records, with the next group commit. Resolves once they are on disk. */
  setMarks(marks: readonly Mark[]): Promise<void>;
  /** Frames behind `after`, oldest first, at most `maxBytes` but at least one; [] when none waits. Removes nothing. */
  read(after: FramePlace | undefined, maxBytes: number): Promise<Frame[]>;
  /** Resolves when a frame waits behind `after`, or `signal` aborts. */
  waiting(after: FramePlace | undefined, signal: AbortSignal): Promise<void>;
  /** Forgets the frames of `epoch` up to and including `last`. Safe to repeat. */
  ack(epoch: Epoch, last: FrameSequence): Promise<void>;
  /**
   * The gateway has the frames of one stream up to this one, though frames of others before it wait.
   * They are still read, and wait to be forgotten with those; dropping them is no loss. Not on disk:
   * after a restart they are frames like all others, which the gateway knows.
   */
  ackAhead(place: StreamPlace): void;
  /** Whether `ackAhead` was told so. */
  isAhead(place: StreamPlace): boolean;
  /**
   * What is stored from now on is of a new epoch, and may be sent beside what is of earlier ones.
   * Resolves when it is durable that there is one; a crash before its first frame leaves it empty.
   */
  beginEpoch(): Promise<Epoch>;
  /** Earlier epochs of which no frame is left, and that were not yet declared so to the gateway. */
  drainedEpochs(): Promise<Epoch[]>;
  /** The gateway knows that `epoch` is drained. Safe to repeat. */
  forgetEpoch(epoch: Epoch): Promise<void>;
  usage(): BufferUsage;
  /** Commits what waits for its group, then closes. */
  close(): Promise<void>;
}

/** Room returns once the uplink acks, so callers may retry. */
export class BufferFullError extends HeadwaterError {
  constructor(usedBytes: number, maxBytes: number) {
    super("BUFFER_FULL", {
      retryable: true,
      message: `buffer holds ${usedBytes} of ${maxBytes} bytes`,
      hint: "check the uplink, or raise buffer.maxBytes in agent.yaml",
    });
  }
}

/** Asking again does not help; nothing was stored. */
export class RecordInvalidError extends HeadwaterError {
  constructor(reason: string) {
    super("RECORD_INVALID", { message: `record: ${reason}` });
  }
}

/** The disk refused a write; what it left there is unknown. The buffer takes nothing more until it is opened again. */
export class BufferFailedError extends HeadwaterError {
  constructor(folder: string, cause: unknown) {
    super("BUFFER_FAILED", {
      message: `${folder}: a write failed: ${cause instanceof Error ? cause.message : String(cause)}`,
      hint: "check the disk and its free space; the agent must be started again",
      cause,
    });
  }
}

/** Part of the buffer could not be read back. What could was kept; the damaged folder is set aside. */
export class BufferDamagedError extends HeadwaterError {
  constructor(folder: string, detail: string, cause?: unknown) {
    super("BUFFER_DAMAGED", {
      message: `${folder}: ${detail}`,
      hint: "check the disk; the damaged folder was kept beside the new one",
      cause,
    });
  }
}
