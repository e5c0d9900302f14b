/**
 * Streams on this machine's own disk: the default store.
 *
 *   format.json     version of this layout; another is refused
 *   streams.json    which streams there must be (metadata.ts)
 *   meta/           LevelDB: streams, shards, consumers, leases, checkpoints
 *   logs/{id}/      one log per stream, in segments (segment.ts)
 *   spares/         files for coming segments (recycled-segments.ts); gone when it is closed
 */
import { mkdir } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import type { Epoch, Frame } from "../../../../protocol/frame.ts";
import { BadNameError, DEVICE_NAME, STREAM_NAME } from "../../../../protocol/topics.ts";
import { syncFolder } from "../../../../runtime/durable.ts";
import type { Metrics } from "../../../../runtime/metrics.ts";
import { Turnstile } from "../../../../runtime/turnstile.ts";
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
  type ReadersCheck,
  type ReadResult,
  type RegisteredReader,
  type ReshardStep,
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
  type TagChange,
} from "../../streams.ts";
import { checkSpec } from "../check-spec.ts";
import { OwnSeconds } from "../own-seconds.ts";
import { checkFormat, raiseFormat } from "./data-format.ts";
import { DiskWatch } from "./disk-watch.ts";
import type { LocalStream } from "./local-stream.ts";
import { forgetStream, type LogMeters, makeLogMeters, watchLogs } from "./log/log-meters.ts";
import { Metadata } from "./metadata.ts";
import { Retention } from "./retention.ts";
import { StreamFolders, type StreamFoldersOptions } from "./stream-folders.ts";

/** Streams that are opened, or closed, at a time: each waits for the disk far longer than it works. */
const AT_ONCE = 8;

export interface LocalStreamsOptions extends StreamFoldersOptions {
  /** The folder of the streams alone; made when it is not there. */
  readonly dir: string;
  readonly metrics: Metrics;
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
  readonly #seconds: OwnSeconds;
  readonly #folders: StreamFolders;
  readonly #retention: Retention;
  readonly #diskWatch: DiskWatch;
  readonly #meters: LogMeters;
  readonly #streams = new Map<string, LocalStream>();
  /** Names of streams that are being made or deleted, and the work itself. */
  readonly #reserved = new Set<string>();
  readonly #changes = new Set<Promise<unknown>>();
  #closing: Promise<void> | undefined;

  constructor(options: LocalStreamsOptions, metadata: Metadata) {
    this.#options = options;
    this.#metadata = metadata;
    const { clock, log, metrics } = options;
    const meters = makeLogMeters(metrics);
    this.#meters = meters;
    watchLogs(metrics, this.#streams);
    this.#seconds = new OwnSeconds(clock);
    this.#folders = new StreamFolders(options, metadata, meters, this.#seconds);
    this.#retention = new Retention({ clock, log, meters, streams: this.#streams });
    this.#diskWatch = new DiskWatch(this.#streams);
  }

  async open(): Promise<void> {
    await raiseFormat(this.#options.dir);
    const streams = await this.#folders.start();
    await this.#metadata.dropLeases();
    let failed = false;
    await someAtATime(streams, async (stored) => {
      if (failed) return;
      try {
        this.#streams.set(stored.record.name, await this.#folders.open(stored));
      } catch (error) {
        failed = true;
        throw error;
      }
    });
    this.#retention.start();
    this.#diskWatch.start();
  }

  createStream(spec: StreamSpec): Promise<StreamDescription> {
    return this.#change(this.#create(spec));
  }

  async #create(spec: StreamSpec): Promise<StreamDescription> {
    this.#refuseWhenClosed();
    const { name } = spec;
    if (!STREAM_NAME.test(name)) throw new BadNameError("stream", name);
    checkSpec(spec);
    if (this.#streams.has(name) || this.#reserved.has(name)) throw new StreamExistsError(name);
    this.#reserved.add(name);
    try {
      const stream = await this.#folders.make(spec);
      this.#streams.set(name, stream);
      return stream.describe();
    } finally {
      this.#reserved.delete(name);
    }
  }

  deleteStream(name: string, check?: ReadersCheck): Promise<void> {
    return this.#change(this.#delete(name, check));
  }

  async #delete(name: string, check?: ReadersCheck): Promise<void> {
    const stream = this.#get(name);
    check?.(stream.definition.registeredReaders());
    const { streamId } = stream.definition.record;
    this.#streams.delete(name);
    this.#reserved.add(name);
    try {
      // Once this is on disk the stream is gone; the next start ends what a crash interrupts.
      await this.#folders.condemned.condemn(streamId).catch((error: unknown) => {
        this.#streams.set(name, stream);
        throw error;
      });
      await stream.close();
      await this.#retention.settled(stream);
      forgetStream(this.#meters, name);
      await this.#folders.erase(streamId);
    } finally {
      // With the shards and readers that were made while it was being deleted: there can be no more of them.
      const { shards } = stream.definition;
      this.#seconds.streamGone(name, shards.all(), stream.definition.registeredReaders());
      this.#reserved.delete(name);
    }
  }

  listStreams(): string[] {
    return [...this.#streams.keys()].sort();
  }

  describe(name: string): StreamDescription {
    const stream = this.#get(name);
    const doubt = this.#folders.condemned.doubtOf(stream.definition.record.streamId);
    const description = stream.describe();
    return doubt === undefined ? description : { ...description, refusing: doubt.message };
  }

  settings(name: string): StreamSettings {
    return this.#get(name).definition.settings;
  }

  shard(name: string, index: number): ShardDescription {
    return this.#get(name).definition.shards.at(index);
  }

  children(name: string, shardId: ShardId): ShardDescription[] {
    return this.#get(name).definition.shards.childrenOf(shardId);
  }

  lastArrivalMs(name: string): number {
    return this.#get(name).log.arrivalMs;
  }

  async updateStream(name: string, change: StreamChange): Promise<StreamDescription> {
    const stream = this.#getToWrite(name);
    await stream.definition.update(change);
    return stream.describe();
  }

  async splitShard(name: string, shardId: ShardId, startingHash: bigint): Promise<void> {
    return this.#getToWrite(name).splitShard(shardId, startingHash);
  }

  async mergeShards(name: string, shardId: ShardId, adjacentShardId: ShardId): Promise<void> {
    return this.#getToWrite(name).mergeShards(shardId, adjacentShardId);
  }

  async reshard(name: string, steps: readonly ReshardStep[]): Promise<void> {
    return this.#getToWrite(name).reshard(steps);
  }

  async registerReader(
    stream: string,
    name: string,
    tags: RegisteredReader["tags"],
    check?: ReadersCheck,
  ): Promise<RegisteredReader> {
    return this.#getToWrite(stream).definition.registerReader(name, tags, check);
  }

  async updateReader(stream: string, name: string, tags: TagChange): Promise<RegisteredReader> {
    return this.#getToWrite(stream).definition.updateReader(name, tags);
  }

  async deregisterReader(stream: string, name: string): Promise<void> {
    return this.#getToWrite(stream).definition.deregisterReader(name);
  }

  registeredReaders(stream: string): readonly RegisteredReader[] {
    return this.#get(stream).definition.registeredReaders();
  }

  // These are async so that what they throw is a rejection; nothing is awaited before the entry
  // has its place in the log, so the order of calls is the order of storing.
  async append(name: string, entries: readonly PutEntry[]): Promise<Placed[]> {
    return this.#getToWrite(name).append(entries);
  }

  async appendColumns(name: string, columns: PutColumns): Promise<PlacedColumns> {
    return this.#getToWrite(name).appendColumns(columns);
  }

  async appendFrame(frame: Frame): Promise<AppendOutcome> {
    if (!DEVICE_NAME.test(frame.device)) throw new BadNameError("device", frame.device);
    return this.#getToWrite(frame.stream).appendFrame(frame);
  }

  async appendPublish(name: string, publish: PlainPublish): Promise<AppendOutcome> {
    return this.#getToWrite(name).appendPublish(publish);
  }

  async appendPublishes(name: string, publishes: PublishColumns): Promise<readonly AppendOutcome[]> {
    return this.#getToWrite(name).appendPublishes(publishes);
  }

  recognises(name: string, publish: Omit<PlainPublish, "mayRepeat">): boolean {
    const stream = this.#get(name);
    // Whoever repeats it would be told that it is stored.
    if (this.#folders.condemned.doubtOf(stream.definition.record.streamId) !== undefined) return false;
    return stream.recognises(publish);
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

  // Subscribers at the tip call these two for each group; an async function around each costs as much as they do.
  read(name: string, shardId: ShardId, from: Offset, maxBytes: number): Promise<ReadResult> {
    try {
      return this.#get(name).read(shardId, from, maxBytes);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  appended(name: string, shardId: ShardId, from: Offset, signal: AbortSignal): Promise<void> {
    try {
      return this.#get(name).appended(shardId, from, signal);
    } catch (error) {
      return Promise.reject(error);
    }
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

  leaveOut(stream: string, holder: string, positions: ReadonlyMap<ShardId, Offset>): void {
    this.#folders.leaveOut(this.#get(stream), holder, positions);
  }

  enforceRetention(): Promise<void> {
    return this.#retention.enforce();
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  /** A close waits for it. */
  #change<T>(work: Promise<T>): Promise<T> {
    const done = work.finally(() => this.#changes.delete(done));
    this.#changes.add(done);
    return done;
  }

  async #close(): Promise<void> {
    await Promise.allSettled(this.#changes);
    await this.#retention.close();
    const streams = [...this.#streams.values()];
    await someAtATime(streams, (stream) => stream.close()).finally(() => this.#diskWatch.close());
    await this.#folders.close();
    await this.#metadata.close();
  }

  #get(name: string): LocalStream {
    this.#refuseWhenClosed();
    const stream = this.#streams.get(name);
    if (stream === undefined) throw new StreamNotFoundError(name);
    return stream;
  }

  /** Nothing is acknowledged that the next start may erase. */
  #getToWrite(name: string): LocalStream {
    const stream = this.#get(name);
    const doubt = this.#folders.condemned.doubtOf(stream.definition.record.streamId);
    if (doubt !== undefined) throw doubt;
    return stream;
  }

  #refuseWhenClosed(): void {
    if (this.#closing !== undefined) throw new StreamsClosedError();
  }

  #nowMs(): number {
    return Math.floor(this.#options.clock.nowUs() / 1000);
  }
}

/** Resolves, or rejects, when none is under way any more. */
async function someAtATime<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const turns = new Turnstile(AT_ONCE);
  const done = await Promise.allSettled(items.map((item) => turns.run(1, () => work(item))));
  const failed = done.find((one) => one.status === "rejected");
  if (failed !== undefined) throw failed.reason;
}
