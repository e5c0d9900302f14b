/**
 * Streams on this machine's own disk: the default store.
 *
 *   format.json     version of this layout; another is refused
 *   streams.json    which streams there must be (metadata.ts)
 *   meta/           LevelDB: streams, shards, consumers, leases, checkpoints
 *   logs/{id}/      one log per stream, in segments (segment.ts)
 *   spares/         files for coming segments (recycled-segments.ts); gone when it is closed
 */
import { randomBytes } from "node:crypto";
import { mkdir, rm } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import type { Epoch, Frame } from "../../../protocol/frame.ts";
import { BadNameError, DEVICE_NAME, STREAM_NAME } from "../../../protocol/topics.ts";
import type { Clock } from "../../../runtime/clock.ts";
import { syncFolder } from "../../../runtime/durable.ts";
import { describeError } from "../../../runtime/errors.ts";
import type { Log } from "../../../runtime/log.ts";
import type { Metrics } from "../../../runtime/metrics.ts";
import {
  type AppendOutcome,
  type Consumer,
  type ConsumerOptions,
  type Offset,
  type Placed,
  type PlacedColumns,
  type PlainPublish,
  type PublishColumns,
  type PutColumns,
  type PutEntry,
  type ReadResult,
  type RegisteredReader,
  type ShardDescription,
  type ShardId,
  type StartingPoint,
  type StreamChange,
  type StreamDescription,
  StreamExistsError,
  StreamNotFoundError,
  type StreamSettings,
  type StreamSpec,
  type Streams,
  StreamsClosedError,
} from "../streams.ts";
import { checkFormat, raiseFormat } from "./data-format.ts";
import { LocalStream } from "./local-stream.ts";
import { type LogMeters, makeLogMeters } from "./log-meters.ts";
import { Metadata, MetadataDamagedError, type StoredStream, type StreamRecord } from "./metadata.ts";
import { RecentChunks } from "./recent-chunks.ts";
import { RecycledSegments } from "./recycled-segments.ts";
import { HOLD_MS, RetentionGuard } from "./retention-guard.ts";
import { type Disk, realDisk } from "./segment-file.ts";
import { firstShards } from "./shard-table.ts";
import { checkSpec, StreamDefinition } from "./stream-definition.ts";
import { DEFAULT_SEGMENT_BYTES, MAX_WAITING_BYTES, StreamLog, type StreamLogOptions } from "./stream-log.ts";

/** What readers of all streams read last and others may want next. */
const RECENT_BYTES = 32 * 1_048_576;
const RETENTION_EVERY_MS = 60_000;

export interface LocalStreamsOptions {
  /** The folder of the streams alone; made when it is not there. */
  readonly dir: string;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
  /** A segment is closed when it has grown beyond this. */
  readonly segmentBytes?: number;
  /** What may wait for the disk, in one stream; beyond it appends are refused with LogBusyError. */
  readonly maxWaitingBytes?: number;
  readonly disk?: Disk;
  /**
   * What logs with traffic write over: segments that retention removed (`removed`, unless given),
   * also files filled with zeros for it (`filled`), or nothing (`never`).
   */
  readonly recycleSegments?: "never" | "removed" | "filled";
}

/** The streams, and what only a store on a disk can be asked for. */
export interface LocalStreams extends Streams {
  /** Removes what is older than each stream keeps. Also runs by itself, once a minute. */
  enforceRetention(): Promise<void>;
}

/** @throws StreamFormatError, MetadataDamagedError, LogMissingError; HeadwaterError STREAMS_LOCKED */
export async function openLocalStreams(options: LocalStreamsOptions): Promise<LocalStreams> {
  await mkdir(join(options.dir, "logs"), { recursive: true, mode: 0o700 });
  await syncFolder(dirname(resolve(options.dir)));
  await checkFormat(options.dir);
  const metadata = await Metadata.open(options.dir);
  const streams = new DiskStreams(options, metadata);
  try {
    await streams.open();
  } catch (error) {
    await streams.close();
    throw error;
  }
  return streams;
}

class DiskStreams implements LocalStreams {
  readonly #options: LocalStreamsOptions;
  readonly #metadata: Metadata;
  readonly #meters: LogMeters;
  readonly #streams = new Map<string, LocalStream>();
  /** Names of streams that are being made. */
  readonly #reserved = new Set<string>();
  readonly #guard: RetentionGuard;
  #retentionTimer: NodeJS.Timeout | undefined;
  #retention: Promise<void> = Promise.resolve();
  readonly #spares: RecycledSegments | undefined;
  readonly #recent = new RecentChunks(RECENT_BYTES);
  #closing: Promise<void> | undefined;

  constructor(options: LocalStreamsOptions, metadata: Metadata) {
    this.#options = options;
    this.#metadata = metadata;
    this.#meters = makeLogMeters(options.metrics);
    if (options.recycleSegments !== "never") {
      const bytes = options.segmentBytes ?? DEFAULT_SEGMENT_BYTES;
      this.#spares = new RecycledSegments(
        join(options.dir, "spares"),
        bytes,
        options.recycleSegments === "filled",
      );
    }
    this.#guard = new RetentionGuard(options.clock);
  }

  async open(): Promise<void> {
    await raiseFormat(this.#options.dir);
    await this.#spares?.start();
    for (const streamId of this.#metadata.unfinished()) await this.#erase(streamId);
    await this.#metadata.dropLeases();
    for (const stored of await this.#metadata.activeStreams()) {
      const { record } = stored;
      const log = await StreamLog.open(this.#logOptions(record));
      const stream = await this.#assemble(stored, log);
      this.#streams.set(record.name, stream);
      this.#refuseUnknownShards(stream);
      this.#protectCheckpoints(stream, await stream.consumers.records());
    }
    this.#retentionTimer = setInterval(() => {
      this.enforceRetention().catch((error: unknown) => {
        this.#options.log.error({ error: describeError(error) }, "retention failed");
      });
    }, RETENTION_EVERY_MS);
    this.#retentionTimer.unref();
  }

  async #assemble(stored: StoredStream, log: StreamLog): Promise<LocalStream> {
    const readers = await this.#metadata.readers(stored.record.streamId);
    const definition = new StreamDefinition(stored, readers, log, this.#metadata);
    return new LocalStream(definition, log, this.#metadata, this.#meters, this.#options.clock);
  }

  /** Metadata that went back to before a split or a merge would give the children's indexes out twice. */
  #refuseUnknownShards({ definition: { record }, log }: LocalStream): void {
    for (const segment of log.segments) {
      for (const index of segment.shards.keys()) {
        if (index < record.nextShard) continue;
        throw new MetadataDamagedError(
          this.#options.dir,
          `the log of stream ${record.name} holds records of shard ${index}, which meta/ does not know`,
        );
      }
    }
  }

  /** Where a log ends before a checkpoint, records are lost; new ones must not be taken for read. */
  #protectCheckpoints(
    stream: LocalStream,
    consumers: ReadonlyArray<{ name: string; positions: Readonly<Record<string, number>> }>,
  ): void {
    for (const { name, positions } of consumers) {
      for (const [shardId, position] of Object.entries(positions)) {
        const shard = stream.definition.shards.find(shardId);
        if (shard === undefined || position <= shard.latest) continue;
        const { latest } = shard;
        const fields = { stream: stream.name, shardId, consumer: name, position, latest };
        this.#options.log.error(fields, "the log ends before a checkpoint; the offsets between are left out");
        stream.log.skipTo(shard.index, position);
      }
    }
  }

  async createStream(spec: StreamSpec): Promise<StreamDescription> {
    this.#refuseWhenClosed();
    const { name } = spec;
    if (!STREAM_NAME.test(name)) throw new BadNameError("stream", name);
    checkSpec(spec);
    if (this.#streams.has(name) || this.#reserved.has(name)) throw new StreamExistsError(name);
    this.#reserved.add(name);
    try {
      return await this.#make(spec);
    } finally {
      this.#reserved.delete(name);
    }
  }

  async #make({ name, shards: count, retentionHours, ...more }: StreamSpec): Promise<StreamDescription> {
    const createdMs = this.#nowMs();
    const { mode, limits, maxRecordBytes, tags } = more;
    const shards = firstShards(count, createdMs);
    const record: StreamRecord = {
      name,
      streamId: randomBytes(16).toString("hex"),
      createdMs,
      retentionHours,
      ...(mode !== undefined && { mode }),
      ...(limits !== undefined && { limits }),
      ...(maxRecordBytes !== undefined && { maxRecordBytes }),
      ...(tags !== undefined && { tags: { ...tags } }),
      nextShard: count,
      shardCount: count,
    };
    // A crash before the last of these leaves it "creating"; the next start removes the folder.
    await this.#metadata.beginStream(record.streamId, name);
    try {
      await mkdir(this.#folderOf(record.streamId));
      await syncFolder(join(this.#options.dir, "logs"));
      const log = await StreamLog.create(this.#logOptions(record));
      await this.#metadata.activateStream(record, shards);
      const stream = await this.#assemble({ record, shards }, log);
      this.#streams.set(name, stream);
      return stream.describe();
    } catch (error) {
      // What stands in the way of this too is left to the next start.
      await this.#erase(record.streamId).catch(() => undefined);
      throw error;
    }
  }

  async deleteStream(name: string): Promise<void> {
    const stream = this.#get(name);
    this.#streams.delete(name);
    this.#reserved.add(name);
    try {
      // Once this is on disk the stream is gone; the next start ends what a crash interrupts.
      await this.#metadata.condemnStream(stream.definition.record.streamId).catch((error: unknown) => {
        this.#streams.set(name, stream);
        throw error;
      });
      await stream.close();
      await this.#retention;
      await this.#erase(stream.definition.record.streamId);
    } finally {
      this.#reserved.delete(name);
    }
  }

  async #erase(streamId: string): Promise<void> {
    await rm(this.#folderOf(streamId), { recursive: true, force: true });
    await syncFolder(join(this.#options.dir, "logs"));
    await this.#metadata.removeStream(streamId);
  }

  listStreams(): string[] {
    return [...this.#streams.keys()].sort();
  }

  describe(name: string): StreamDescription {
    return this.#get(name).describe();
  }

  settings(name: string): StreamSettings {
    return this.#get(name).definition.settings;
  }

  shard(name: string, index: number): ShardDescription {
    return this.#get(name).definition.shards.at(index);
  }

  async updateStream(name: string, change: StreamChange): Promise<StreamDescription> {
    const stream = this.#get(name);
    await stream.definition.update(change);
    return stream.describe();
  }

  async splitShard(name: string, shardId: ShardId, startingHash: bigint): Promise<void> {
    return this.#get(name).splitShard(shardId, startingHash);
  }

  async mergeShards(name: string, shardId: ShardId, adjacentShardId: ShardId): Promise<void> {
    return this.#get(name).mergeShards(shardId, adjacentShardId);
  }

  async registerReader(
    stream: string,
    name: string,
    tags: RegisteredReader["tags"],
  ): Promise<RegisteredReader> {
    return this.#get(stream).definition.registerReader(name, tags, this.#nowMs());
  }

  async updateReader(
    stream: string,
    name: string,
    tags: RegisteredReader["tags"],
  ): Promise<RegisteredReader> {
    return this.#get(stream).definition.updateReader(name, tags);
  }

  async deregisterReader(stream: string, name: string): Promise<void> {
    return this.#get(stream).definition.deregisterReader(name);
  }

  registeredReaders(stream: string): readonly RegisteredReader[] {
    return this.#get(stream).definition.registeredReaders();
  }

  // These are async so that what they throw is a rejection; nothing is awaited before the entry
  // has its place in the log, so the order of calls is the order of storing.
  async append(name: string, entries: readonly PutEntry[]): Promise<Placed[]> {
    return this.#get(name).append(entries);
  }

  async appendColumns(name: string, columns: PutColumns): Promise<PlacedColumns> {
    return this.#get(name).appendColumns(columns);
  }

  async appendFrame(frame: Frame): Promise<AppendOutcome> {
    if (!DEVICE_NAME.test(frame.device)) throw new BadNameError("device", frame.device);
    return this.#get(frame.stream).appendFrame(frame);
  }

  async appendPublish(name: string, publish: PlainPublish): Promise<AppendOutcome> {
    return this.#get(name).appendPublish(publish);
  }

  async appendPublishes(name: string, publishes: PublishColumns): Promise<readonly AppendOutcome[]> {
    return this.#get(name).appendPublishes(publishes);
  }

  recognises(name: string, publish: Omit<PlainPublish, "mayRepeat">): boolean {
    return this.#get(name).recognises(publish);
  }

  remembersPacket(clientId: string, packetId: number): boolean {
    return [...this.#streams.values()].some((stream) => stream.remembersPacket(clientId, packetId));
  }

  async forgetClient(clientId: string): Promise<void> {
    this.#refuseWhenClosed();
    await Promise.all([...this.#streams.values()].map((stream) => stream.forgetClient(clientId)));
  }

  async forgetEpoch(device: string, epoch: Epoch): Promise<void> {
    this.#refuseWhenClosed();
    await Promise.all([...this.#streams.values()].map((stream) => stream.forgetEpoch(device, epoch)));
  }

  async position(name: string, shardId: ShardId, start: StartingPoint): Promise<Offset> {
    return this.#get(name).position(shardId, start);
  }

  async read(name: string, shardId: ShardId, from: Offset, maxBytes: number): Promise<ReadResult> {
    return this.#get(name).read(shardId, from, maxBytes);
  }

  async appended(name: string, shardId: ShardId, from: Offset, signal: AbortSignal): Promise<void> {
    return this.#get(name).appended(shardId, from, signal);
  }

  async openConsumer(stream: string, name: string, options: ConsumerOptions = {}): Promise<Consumer> {
    return this.#get(stream).consumers.open(name, options, this.#nowMs());
  }

  async consumers(
    stream: string,
  ): Promise<ReadonlyArray<{ name: string; positions: ReadonlyMap<ShardId, Offset> }>> {
    const records = await this.#get(stream).consumers.records();
    return records.map(({ name, positions }) => ({ name, positions: new Map(Object.entries(positions)) }));
  }

  enforceRetention(): Promise<void> {
    const run = this.#retention.catch(() => undefined).then(() => this.#removeOld());
    this.#retention = run.catch(() => undefined);
    return run;
  }

  async #removeOld(): Promise<void> {
    const { hold, jumpedMs } = this.#guard.look();
    if (jumpedMs !== undefined) {
      this.#meters.retentionHolds.inc();
      const fields = { aheadHours: jumpedMs / 3_600_000, heldHours: HOLD_MS / 3_600_000 };
      this.#options.log.error(fields, "the wall clock jumped ahead; retention removes nothing for now");
    }
    if (hold) return;
    for (const stream of [...this.#streams.values()]) {
      const cutoffMs = this.#nowMs() - stream.definition.record.retentionHours * 3_600_000;
      await stream.log.removeBefore(cutoffMs);
      await stream.expireShards(cutoffMs).catch((error: unknown) => {
        if (!(error instanceof StreamNotFoundError)) throw error;
      });
    }
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    clearInterval(this.#retentionTimer);
    await this.#retention;
    for (const stream of this.#streams.values()) await stream.close();
    await this.#spares?.close();
    await this.#metadata.close();
  }

  #get(name: string): LocalStream {
    this.#refuseWhenClosed();
    const stream = this.#streams.get(name);
    if (stream === undefined) throw new StreamNotFoundError(name);
    return stream;
  }

  #refuseWhenClosed(): void {
    if (this.#closing !== undefined) throw new StreamsClosedError();
  }

  #nowMs(): number {
    return Math.floor(this.#options.clock.nowUs() / 1000);
  }

  #folderOf(streamId: string): string {
    return join(this.#options.dir, "logs", streamId);
  }

  #logOptions({ name, streamId }: StreamRecord): StreamLogOptions {
    const { clock, log, segmentBytes, maxWaitingBytes, disk } = this.#options;
    return {
      name,
      streamId,
      folder: this.#folderOf(streamId),
      segmentBytes: segmentBytes ?? DEFAULT_SEGMENT_BYTES,
      maxWaitingBytes: maxWaitingBytes ?? MAX_WAITING_BYTES,
      disk: disk ?? realDisk,
      spares: this.#spares,
      recent: this.#recent,
      meters: this.#meters,
      nowMs: () => this.#nowMs(),
      monotonicMs: () => clock.monotonicMs(),
      report: (level, fields, message) => log[level](fields, message),
    };
  }
}
