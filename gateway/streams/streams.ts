/**
 * The stream log: sharded, durable, read by position. It knows nothing of MQTT, HTTP or AWS.
 *
 *   ingest, api ─append→ [trim horizon … latest] per shard ─read→ consumers: delivery, analytics, api
 *
 * Promises: what `append*` resolved is on disk (fdatasync); the records of one partition key keep
 * their order within a shard; a frame, or a publish, that comes again is recognised and not stored.
 */
import type { Epoch, Frame } from "../../protocol/frame.ts";
import type { Run } from "../../protocol/record-batch.ts";
import { HeadwaterError } from "../../runtime/errors.ts";

export {
  BadSequenceNumberError,
  formatSequenceNumber,
  parseSequenceNumber,
  type SequenceParts,
} from "./sequence-number.ts";
export { MAX_HASH, partitionHash } from "./shard-map.ts";

/** `shardId-` and twelve digits, as Kinesis writes it. */
export type ShardId = string;
/** Place of a record in its shard: 0 for the first, rising by 1, never reused. A position is the offset that is read next. */
export type Offset = number;

export interface StreamSpec {
  readonly name: string;
  /** Open shards that share the 128-bit hash range equally. */
  readonly shards: number;
  /** How long records are kept. */
  readonly retentionHours: number;
}

export interface ShardDescription {
  readonly shardId: ShardId;
  readonly index: number;
  /** Inclusive, 0n to 2^128 - 1. */
  readonly hashFrom: bigint;
  readonly hashTo: bigint;
  readonly createdMs: number;
  /** The oldest record still kept, and the place of the next one to come. */
  readonly trimHorizon: Offset;
  readonly latest: Offset;
  readonly storedBytes: number;
  readonly appendedRecords: number;
}

export interface StreamDescription extends StreamSpec {
  readonly createdMs: number;
  /** Random, new when a stream of the same name is made again. */
  readonly streamId: string;
  readonly shardList: readonly ShardDescription[];
  /** Epochs and clients whose last frames are remembered. */
  readonly producers: number;
}

export interface PutEntry {
  readonly partitionKey: string;
  /** Overrides the MD5 of the partition key; 0n to 2^128 - 1. */
  readonly explicitHash?: bigint;
  readonly data: Uint8Array;
}

/** Where a record went. `arrivalMs` is part of its sequence number. */
export interface Placed {
  readonly shardId: ShardId;
  readonly offset: Offset;
  readonly arrivalMs: number;
}

export type AppendOutcome = "stored" | "duplicate";

/** A publish of a plain MQTT client, which carries no sequence of its own. */
export interface PlainPublish {
  readonly clientId: string;
  /** 0 where there is none, as at QoS 0: such a publish never comes again and is not remembered. */
  readonly packetId: number;
  readonly partitionKey: string;
  readonly timeUs: number;
  readonly payload: Uint8Array;
  /** True while this may be a resend: the client has just reconnected and all it sent to this stream so far was known. */
  readonly mayRepeat: boolean;
}

/** What one append left in one shard. Its runs are views of the log's bytes; do not write to them. */
export interface LogPart {
  readonly first: Offset;
  readonly count: number;
  readonly arrivalMs: number;
  readonly runs: readonly Run[];
}

export interface ReadResult {
  /** In order of offset. The first may begin before the position asked for: skip to `from`. */
  readonly parts: readonly LogPart[];
  /** The position to read from next. */
  readonly next: Offset;
  /** Age of the last record given, while others wait behind it; 0 at the tip. */
  readonly behindMs: number;
  /** Offsets between the position asked for and the trim horizon: retention took them first. */
  readonly trimmed: number;
}

export type StartingPoint =
  | { readonly at: "trim-horizon" }
  | { readonly at: "latest" }
  | { readonly at: "offset"; readonly offset: Offset }
  /** The first record that arrived at or after it. */
  | { readonly at: "time"; readonly arrivalMs: number };

/** A named reader of a whole stream: it alone holds the leases and may move the checkpoints. */
export interface Consumer {
  readonly stream: string;
  readonly name: string;
  readonly shards: readonly ShardId[];
  /** The checkpointed positions; the trim horizon where there is none yet. */
  positions(): ReadonlyMap<ShardId, Offset>;
  /**
   * Resolves when they are on disk. Shards that are not named keep their positions.
   * @throws LeaseLostError, BadCheckpointError when one would go back or beyond the newest record
   */
  checkpoint(positions: ReadonlyMap<ShardId, Offset>): Promise<void>;
  /** Gives the leases back. */
  close(): Promise<void>;
}

export interface Streams {
  /** @throws StreamExistsError */
  createStream(spec: StreamSpec): Promise<StreamDescription>;
  /** Its data is gone when this resolves. @throws StreamNotFoundError */
  deleteStream(name: string): Promise<void>;
  /** Sorted by name. */
  listStreams(): string[];
  /** @throws StreamNotFoundError */
  describe(name: string): StreamDescription;

  /** All or none of the entries are stored. In the order of `entries`. @throws StreamNotFoundError, LogFullError */
  append(name: string, entries: readonly PutEntry[]): Promise<Placed[]>;
  /**
   * Stores a frame once, whole. Calls are stored in the order in which they were made. A jump in
   * the sequence is accepted, so once a frame was refused no later one of its epoch may be handed
   * in before it: the refused one would be taken for known when it comes again.
   * @throws StreamNotFoundError, LogFullError (retryable)
   */
  appendFrame(frame: Frame): Promise<AppendOutcome>;
  /** Stores a publish once, as far as the last 64 of its client tell. */
  appendPublish(name: string, publish: PlainPublish): Promise<AppendOutcome>;
  /** True when `appendPublish` of this would find it known, were `mayRepeat` set. @throws StreamNotFoundError */
  recognises(name: string, publish: Omit<PlainPublish, "mayRepeat">): boolean;
  /** True when any stream remembers a publish with this packet id of the client. */
  remembersPacket(clientId: string, packetId: number): boolean;
  /** The client ended its session in peace: it will send nothing again, on any stream. Resolves when on disk. */
  forgetClient(clientId: string): Promise<void>;
  /** The agent declared the epoch drained: no frame of it will come again, on any stream. Resolves when on disk. */
  forgetEpoch(device: string, epoch: Epoch): Promise<void>;

  /** @throws StreamNotFoundError, ShardNotFoundError */
  position(name: string, shardId: ShardId, start: StartingPoint): Promise<Offset>;
  /** At most `maxBytes`, but at least one part when there is one. Reads only what is on disk. */
  read(name: string, shardId: ShardId, from: Offset, maxBytes: number): Promise<ReadResult>;
  /** Resolves as soon as the shard holds a record at or after `from`, or `signal` aborts. */
  appended(name: string, shardId: ShardId, from: Offset, signal: AbortSignal): Promise<void>;
  /** @throws LeaseHeldError while another consumer of this name is open. */
  openConsumer(stream: string, name: string): Promise<Consumer>;
  /** For the console: every consumer's checkpoints, open or not. */
  consumers(
    stream: string,
  ): Promise<ReadonlyArray<{ name: string; positions: ReadonlyMap<ShardId, Offset> }>>;

  close(): Promise<void>;
}

export class StreamNotFoundError extends HeadwaterError {
  constructor(name: string) {
    super("STREAM_NOT_FOUND", {
      message: `there is no stream ${name}`,
      hint: "add it to streams: in gateway.yaml, or CreateStream",
    });
  }
}

export class StreamExistsError extends HeadwaterError {
  constructor(name: string) {
    super("STREAM_EXISTS", { message: `stream ${name} exists already` });
  }
}

export class ShardNotFoundError extends HeadwaterError {
  constructor(stream: string, shardId: string) {
    super("SHARD_NOT_FOUND", { message: `stream ${stream} has no shard ${shardId}` });
  }
}

/** Nothing was stored. Room returns with retention or a larger disk, so callers may retry. */
export class LogFullError extends HeadwaterError {
  constructor(stream: string, cause?: unknown) {
    super("LOG_FULL", {
      retryable: true,
      message: `stream ${stream} cannot be written: no space left`,
      hint: "free disk space, or lower retentionHours",
      cause,
    });
  }
}

export class LeaseHeldError extends HeadwaterError {
  constructor(stream: string, consumer: string) {
    super("LEASE_HELD", { retryable: true, message: `consumer ${consumer} of ${stream} is open already` });
  }
}

export class LeaseLostError extends HeadwaterError {
  constructor(stream: string, consumer: string) {
    super("LEASE_LOST", { message: `consumer ${consumer} of ${stream} no longer holds its leases` });
  }
}

/** A checkpoint would go backwards, or names what is not there. Nothing was stored. */
export class BadCheckpointError extends HeadwaterError {
  constructor(stream: string, consumer: string, reason: string) {
    super("BAD_CHECKPOINT", { message: `consumer ${consumer} of ${stream}: ${reason}` });
  }
}

/** An entry breaks a limit of the log itself: an empty or too long key, a hash out of range, too many bytes. */
export class BadEntryError extends HeadwaterError {
  constructor(reason: string) {
    super("BAD_ENTRY", { message: `record: ${reason}` });
  }
}

/** More waits for the disk than may. Nothing was stored; it clears as the disk catches up. */
export class LogBusyError extends HeadwaterError {
  constructor(stream: string, waitingBytes: number) {
    super("LOG_BUSY", {
      retryable: true,
      message: `stream ${stream} has ${waitingBytes} bytes waiting for the disk`,
      hint: "send slower, or use a faster disk",
    });
  }
}

/** The disk refused a write or a sync. Nothing of what waited was stored; the log repairs itself and accepts again. */
export class LogWriteError extends HeadwaterError {
  constructor(stream: string, cause: unknown) {
    super("LOG_WRITE_FAILED", {
      retryable: true,
      message: `stream ${stream} cannot be written: ${cause instanceof Error ? cause.message : String(cause)}`,
      hint: "check the disk and the kernel's log",
      cause,
    });
  }
}

/** The streams were closed while this waited, or before it came. */
export class StreamsClosedError extends HeadwaterError {
  constructor() {
    super("STREAMS_CLOSED", { message: "the stream log is closed" });
  }
}
