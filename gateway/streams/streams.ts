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
import type { Offset, ReshardStep, ShardDescription, ShardId } from "./shard-description.ts";

export { forEachUserRecord } from "./kpl-aggregate.ts";
export * from "./limits.ts";
export { md5Words as keyHashWords } from "./md5.ts";
export { digitsOf, SEQUENCE_NUMBER_DIGITS, SequenceDigits, writeFourDigits } from "./sequence-digits.ts";
export {
  BadSequenceNumberError,
  formatSequenceNumber,
  parseSequenceNumber,
  type SequenceParts,
} from "./sequence-number.ts";
export type * from "./shard-description.ts";
export { MAX_HASH, partitionHash } from "./shard-map.ts";
export { ShardNews } from "./shard-news.ts";
export * from "./stream-errors.ts";
export { lookForUnread, type UnreadShards } from "./unread-shards.ts";
export { forEachUserRecordInTurns } from "./user-record-turns.ts";

/** `on-demand`: shards are split and merged by the gateway itself, from measured traffic. */
export type StreamMode = "provisioned" | "on-demand";
/** `aws`: the API holds clients to the rates that AWS allows a shard. */
export type RateLimits = "none" | "aws";

export interface StreamSpec {
  readonly name: string;
  /** Open shards that share the 128-bit hash range equally. */
  readonly shards: number;
  /** How long records are kept. */
  readonly retentionHours: number;
  /** `provisioned` unless given. */
  readonly mode?: StreamMode;
  /** `none` unless given. */
  readonly limits?: RateLimits;
  /** Of one record's data and key; 1 MiB unless given. */
  readonly maxRecordBytes?: number;
  readonly tags?: Tags;
}

export type Tags = Readonly<Record<string, string>>;

/** What is new; or made from what there is when it is written, which another gateway may just have changed. What it throws ends it. */
export type Change<T extends Tags | number> = T | ((before: T) => T);
export type TagChange = Change<Tags>;

export function changed<T extends Tags | number>(before: T, change: Change<T>): T {
  return typeof change === "function" ? change(before) : change;
}

/** What of a stream may be changed; what is left out stays. */
export type StreamChange = Partial<Pick<StreamSpec, "mode" | "limits" | "maxRecordBytes">> & {
  readonly retentionHours?: Change<number>;
  readonly tags?: TagChange;
};

/** What a stream is, without its shards: cheap to ask for. */
export interface StreamSettings extends Required<StreamSpec> {
  readonly createdMs: number;
  /** Random, new when a stream of the same name is made again. */
  readonly streamId: string;
}

export interface StreamDescription extends StreamSettings {
  /** Rising by index: the open ones, and the closed ones of which records are still kept or whose closing is younger than the retention. */
  readonly shardList: readonly ShardDescription[];
  /** Epochs and clients whose last frames are remembered. */
  readonly producers: number;
  /** Of the log, that could not be read back since the start; a store that cannot tell leaves it out. */
  readonly damagedBytes?: number;
  /**
   * Why the last append was refused that could not be written, unless something was stored since, or it is half a minute ago; or
   * that the disk of what is being written does not answer.
   */
  readonly refusing?: string | undefined;
}

export interface PutEntry {
  readonly partitionKey: string;
  /** Overrides the MD5 of the partition key; 0n to 2^128 - 1. */
  readonly explicitHash?: bigint;
  readonly data: Uint8Array;
}

/** Many records as columns, so that none needs an object of its own. Read within the call only: their memory may be used again. */
export interface PutColumns {
  readonly count: number;
  /** The partition key of each. */
  readonly keys: readonly string[];
  /** The explicit hash of each, where any has one. */
  readonly hashes: ReadonlyArray<bigint | undefined> | undefined;
  /** The MD5 of each key as four words, the first weighing most, where they are known and no record has an explicit hash. */
  readonly hashWords?: Uint32Array | undefined;
  /** All payloads one behind the other; payload i ends at `ends[i]`, where payload i + 1 begins. */
  readonly data: Buffer;
  readonly ends: Uint32Array;
}

/** Where the records of `PutColumns` went, in their order. */
export interface PlacedColumns {
  readonly arrivalMs: number;
  /** Index of the shard of each. */
  readonly shards: Uint32Array;
  readonly offsets: Float64Array;
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

/** Publishes of plain MQTT clients in the order in which they came, as columns: none needs an object of its own. */
export interface PublishColumns {
  readonly count: number;
  readonly clientIds: readonly string[];
  /** 0 where there is none, as in PlainPublish. */
  readonly packetIds: readonly number[];
  readonly partitionKeys: readonly string[];
  readonly mayRepeat: readonly boolean[];
  /** When they came. They come in one turn of the event loop, or nearly. */
  readonly timeUs: number;
  /** All payloads one behind the other; payload i ends at `ends[i]`, where payload i + 1 begins. */
  readonly data: Buffer;
  readonly ends: Uint32Array;
}

/** What one append left in one shard. Its runs are views of the log's bytes; do not write to them. */
export interface LogPart {
  readonly first: Offset;
  readonly count: number;
  readonly arrivalMs: number;
  readonly runs: readonly Run[];
  /** The same records as the bytes of a batch, where the store has them so: `BatchWalk` reads them without an object for each. */
  readonly batch?: Uint8Array;
}

export interface ReadResult {
  /** In order of offset. The first may begin before the position asked for: skip to `from`. */
  readonly parts: readonly LogPart[];
  /** The position to read from next. */
  readonly next: Offset;
  /** Age of the last record given, and 1 at least whatever the clock says, while others wait behind it; 0 at the tip. */
  readonly behindMs: number;
  /** Offsets between the position asked for and the trim horizon: retention took them first. */
  readonly trimmed: number;
  /** How many records these held, as far as the store knows; as many as offsets where it is not told. */
  readonly trimmedRecords?: number;
  /** `next` is the end of a closed shard: nothing will ever come there. */
  readonly ended: boolean;
  /** Nobody looks at the parts or views of them any more. Once at most; who never calls it leaves them to the collector. */
  release?(): void;
}

export type StartingPoint =
  | { readonly at: "trim-horizon" }
  | { readonly at: "latest" }
  | { readonly at: "offset"; readonly offset: Offset }
  /** The first record that arrived at or after it. */
  | { readonly at: "time"; readonly arrivalMs: number };

/** A client of enhanced fan-out, registered by name. */
export interface RegisteredReader {
  readonly name: string;
  readonly createdMs: number;
  readonly tags: Tags;
}

/** A named reader of a whole stream: it alone holds the leases and may move the checkpoints. */
export interface Consumer {
  readonly stream: string;
  readonly name: string;
  /**
   * Those that may be read now. A child of a split or a merge joins them when all its parents are
   * checkpointed to their ends, so that the records of a key keep their order; a parent that is
   * checkpointed to its end leaves.
   */
  readonly shards: readonly ShardId[];
  /** Aborted once the lease is lost: the consumer was closed or taken over, or the stream deleted. */
  readonly lost: AbortSignal;
  /** Resolves when `shards` is no longer what it was when this was called, on abort, and when the lease is lost. */
  changed(signal: AbortSignal): Promise<void>;
  /** The checkpointed positions of `shards`; the trim horizon where there is none yet. */
  positions(): ReadonlyMap<ShardId, Offset>;
  /**
   * Resolves when they are on disk. Shards that are not named keep their positions; those that
   * have expired meanwhile are passed over.
   * @throws LeaseLostError, BadCheckpointError when one would go back or beyond the newest record
   */
  checkpoint(positions: ReadonlyMap<ShardId, Offset>): Promise<void>;
  /** Where gateways share the store: what one holder leaves to the next, which may be another gateway's. */
  readonly handover?: Handover;
  /** Gives the leases back. */
  close(): Promise<void>;
}

/** Between two looks of a stage whether whoever holds its lease is still there; each takes about a second by itself. */
export const STAND_BY_MS = 1_000;

/** What is kept with the checkpoints, under the same lease: who lost it writes neither. */
export interface Handover {
  /** JSON; undefined while none was kept. */
  readonly note: unknown;
  /**
   * Resolves when the note is kept and the checkpoints have moved: both or neither. Also with the note that is there
   * it is written, so that it tells that the lease was held after the call.
   * @throws LeaseLostError, BadCheckpointError
   */
  keep(note: unknown, positions?: ReadonlyMap<ShardId, Offset>): Promise<void>;
  /** As they were kept last; undefined while none were. @throws HandoverDamagedError */
  keptBytes(): Promise<Buffer | undefined>;
  /** As `keep`, for what is too large for a note, which is written with each sign of life. @param pieces one behind the other */
  keepBytes(pieces: readonly Uint8Array[], positions?: ReadonlyMap<ShardId, Offset>): Promise<void>;
}

export interface ConsumerOptions {
  /**
   * Takes the leases from whoever holds them: its running checkpoint ends, its `lost` is aborted,
   * and its later checkpoints are refused.
   */
  readonly takeOver?: boolean;
}

/** Is given those that there are when it is written, by whatever gateway. What it throws ends it. */
export type ReadersCheck = (readers: readonly RegisteredReader[]) => void;

/** A shard for a registered reader; a client id of MQTT. */
export type ClaimKind = "push" | "mqtt";

export interface Streams {
  /** Where the store is on other machines: why it cannot be reached now, if so. */
  readonly unreachable?: string | undefined;
  /** @throws StreamExistsError, StreamLimitError */
  createStream(spec: StreamSpec): Promise<StreamDescription>;
  /** Its data is gone when this resolves. @throws StreamNotFoundError */
  deleteStream(name: string, check?: ReadersCheck): Promise<void>;
  /** Sorted by name. */
  listStreams(): string[];
  /** @throws StreamNotFoundError */
  describe(name: string): StreamDescription;
  /** The same object until something of it changes; costs the same however many shards there are. @throws StreamNotFoundError */
  settings(name: string): StreamSettings;
  /**
   * One shard, by its index; costs the same however many there are. It is a live view: what may
   * change is as it is when it is looked at. @throws StreamNotFoundError, ShardNotFoundError
   */
  shard(name: string, index: number): ShardDescription;
  /**
   * What a shard was split or merged into, rising by index; none while it is open, or where they have expired. Costs the
   * same however many shards there are. @throws StreamNotFoundError
   */
  children(name: string, shardId: ShardId): ShardDescription[];
  /** When the stream's newest record arrived, as far as is known; where the clock was set back since, that is yet to come. @throws StreamNotFoundError */
  lastArrivalMs(name: string): number;
  /** Resolves when it is on disk and holds. @throws StreamNotFoundError */
  updateStream(name: string, change: StreamChange): Promise<StreamDescription>;

  /**
   * Closes an open shard and opens two in its place, the second from `startingHash` on. What was
   * appended before stays in the parent; no append is refused or reordered meanwhile. Sequence
   * numbers of the children are above all of the parent's.
   * @throws StreamNotFoundError, ShardNotFoundError, BadReshardError
   */
  splitShard(name: string, shardId: ShardId, startingHash: bigint): Promise<void>;
  /** Closes two open shards whose hash ranges touch, and opens one in their place. */
  mergeShards(name: string, shardId: ShardId, adjacentShardId: ShardId): Promise<void>;
  /**
   * Many splits and merges as one change, which costs about as much as one of them: all hold, or none does. There are never more
   * open shards on the way than there may be.
   * @param steps one at least; each is about the shards that those before it left
   * @throws StreamNotFoundError, BadReshardError
   */
  reshard(name: string, steps: readonly ReshardStep[]): Promise<void>;

  /** @throws StreamNotFoundError, ReaderExistsError */
  registerReader(stream: string, name: string, tags: Tags, check?: ReadersCheck): Promise<RegisteredReader>;
  /** @throws ReaderNotFoundError */
  updateReader(stream: string, name: string, tags: TagChange): Promise<RegisteredReader>;
  /** @throws ReaderNotFoundError */
  deregisterReader(stream: string, name: string): Promise<void>;
  /** Sorted by name. @throws StreamNotFoundError */
  registeredReaders(stream: string): readonly RegisteredReader[];

  /** All or none of the entries are stored. In the order of `entries`. @throws StreamNotFoundError, LogFullError */
  append(name: string, entries: readonly PutEntry[]): Promise<Placed[]>;
  /** As `append`, in columns. */
  appendColumns(name: string, columns: PutColumns): Promise<PlacedColumns>;
  /**
   * Stores a frame once, whole. Calls are stored in the order in which they were made. A jump in
   * the sequence is accepted, so once a frame was refused no later one of its epoch may be handed
   * in before it: the refused one would be taken for known when it comes again. Its bytes are copied
   * in the call.
   * @throws StreamNotFoundError, LogFullError (retryable)
   */
  appendFrame(frame: Frame): Promise<AppendOutcome>;
  /** Stores a publish once, as far as the last 64 of its client tell. */
  appendPublish(name: string, publish: PlainPublish): Promise<AppendOutcome>;
  /**
   * As `appendPublish` for each, one after the other; resolves when all are on disk, but for those in whose place is why
   * not: what refuses one client's may be no concern of the others. When it rejects, some may be stored: they are known
   * when they come again. What is handed in is copied in the call.
   */
  appendPublishes(name: string, publishes: PublishColumns): Promise<readonly (AppendOutcome | Error)[]>;
  /** True when `appendPublish` of this would find it known, were `mayRepeat` set. @throws StreamNotFoundError */
  recognises(name: string, publish: Omit<PlainPublish, "mayRepeat">): boolean;
  /** True when any stream remembers a publish with this packet id of the client. */
  remembersPacket(clientId: string, packetId: number): boolean;
  /** The client ended its session in peace: it will send nothing again, on any stream. Resolves when on disk. */
  forgetClient(clientId: string): Promise<void>;
  /**
   * Another gateway hears the client now. What it handed in here, has not left in peace and is not stored yet is stored no more, and told as "duplicate",
   * which nobody may acknowledge: the client sends it again there, and may have ended that session in peace since, after which it would be taken for new.
   */
  leaveClient?(clientId: string): void;
  /** The agent declared the epoch drained: no frame of it will come again, on any stream. Resolves when on disk. */
  forgetEpoch(device: string, epoch: Epoch): Promise<void>;

  /** @throws StreamNotFoundError, ShardNotFoundError */
  position(name: string, shardId: ShardId, start: StartingPoint): Promise<Offset>;
  /** At most `maxBytes`, but at least one part when there is one. Reads only what is on disk. */
  read(name: string, shardId: ShardId, from: Offset, maxBytes: number): Promise<ReadResult>;
  /** Resolves as soon as the shard holds a record at or after `from`, is closed, or `signal` aborts. */
  appended(name: string, shardId: ShardId, from: Offset, signal: AbortSignal): Promise<void>;
  /**
   * How many records stand from `from` on and before `to`: their difference where this is not told. A store that
   * leaves numbers out may only guess at those of long ago. @throws StreamNotFoundError, ShardNotFoundError
   */
  recordsBetween?(name: string, shardId: ShardId, from: Offset, to: Offset): number;
  /** @throws LeaseHeldError while another consumer of this name is open, unless it is taken over. */
  openConsumer(stream: string, name: string, options?: ConsumerOptions): Promise<Consumer>;
  /** For the console: every consumer's checkpoints, open or not. */
  consumers(
    stream: string,
  ): Promise<ReadonlyArray<{ name: string; positions: ReadonlyMap<ShardId, Offset> }>>;
  /**
   * No new record comes to stand before these positions. For a stage that keeps in files of its own how far it
   * has read: were the log's end lost, new records would be taken for those that it had. Call it before
   * anything is appended. Shards that are no more are passed over. @throws StreamNotFoundError
   */
  leaveOut(stream: string, holder: string, positions: ReadonlyMap<ShardId, Offset>): void;

  /**
   * Where gateways share the store: tells the others that this one does from now on what one of them alone is to do, such as to
   * push a shard to a registered reader, or to hear an MQTT client. A word, no lease: it may be lost with a connection to the cluster.
   * @returns to be called when this gateway does it no more
   */
  claim?(kind: ClaimKind, name: string): () => void;
  /** @param heard called with what another gateway claims, when this one's own claim of it, if any, was made before. Once for each kind. */
  onClaim?(kind: ClaimKind, heard: (name: string) => void): void;
  /**
   * Called when the gateway begins to close, before its stages do: where the store may wait long for an answer, it
   * waits for some seconds only from now on, as a stage in the midst of a read cannot end before.
   */
  hurry?(): void;
  close(): Promise<void>;
}

/** As the store tells it, or as the offsets do. */
export function recordsBetween(
  streams: Streams,
  name: string,
  shardId: ShardId,
  from: Offset,
  to: Offset,
): number {
  return streams.recordsBetween?.(name, shardId, from, to) ?? Math.max(0, to - from);
}
