/**
 * Streams on this machine's own disk: the default store.
 *
 *   format.json     version of this layout; another is refused
 *   streams.json    which streams there must be (metadata.ts)
 *   meta/           LevelDB: streams, shards, consumers, leases, checkpoints
 *   logs/{id}/      one log per stream, in segments (segment.ts)
 */
import { randomBytes } from "node:crypto";
import { mkdir, rm } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import type { Epoch, Frame } from "../../../protocol/frame.ts";
import { BadNameError, DEVICE_NAME, STREAM_NAME } from "../../../protocol/topics.ts";
import type { Clock } from "../../../runtime/clock.ts";
import { syncFolder } from "../../../runtime/durable.ts";
import { describeError, HeadwaterError } from "../../../runtime/errors.ts";
import type { Log } from "../../../runtime/log.ts";
import type { Metrics } from "../../../runtime/metrics.ts";
import { equalRanges } from "../shard-map.ts";
import {
  type AppendOutcome,
  type Consumer,
  LeaseHeldError,
  type Offset,
  type Placed,
  type PlainPublish,
  type PutEntry,
  type ReadResult,
  type ShardId,
  type StartingPoint,
  type StreamDescription,
  StreamExistsError,
  StreamNotFoundError,
  type StreamSpec,
  type Streams,
  StreamsClosedError,
} from "../streams.ts";
import { checkFormat } from "./data-format.ts";
import { LocalStream } from "./local-stream.ts";
import { type LogMeters, makeLogMeters } from "./log-meters.ts";
import { Metadata, type StreamRecord } from "./metadata.ts";
import { type Disk, realDisk } from "./segment-file.ts";
import { DEFAULT_SEGMENT_BYTES, MAX_WAITING_BYTES, StreamLog, type StreamLogOptions } from "./stream-log.ts";

const MAX_SHARDS = 4_096;
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
  #retentionTimer: NodeJS.Timeout | undefined;
  #retention: Promise<void> = Promise.resolve();
  #closing: Promise<void> | undefined;

  constructor(options: LocalStreamsOptions, metadata: Metadata) {
    this.#options = options;
    this.#metadata = metadata;
    this.#meters = makeLogMeters(options.metrics);
  }

  async open(): Promise<void> {
    for (const streamId of this.#metadata.unfinished()) await this.#erase(streamId);
    await this.#metadata.dropLeases();
    for (const record of await this.#metadata.activeStreams()) {
      const log = await StreamLog.open(this.#logOptions(record));
      const stream = new LocalStream(record, log, this.#meters, this.#options.clock);
      this.#streams.set(record.name, stream);
      this.#protectCheckpoints(stream, await this.#metadata.consumers(record.streamId));
    }
    this.#retentionTimer = setInterval(() => {
      this.enforceRetention().catch((error: unknown) => {
        this.#options.log.error({ error: describeError(error) }, "retention failed");
      });
    }, RETENTION_EVERY_MS);
    this.#retentionTimer.unref();
  }

  /** Where a log ends before a checkpoint, records are lost; new ones must not be taken for read. */
  #protectCheckpoints(
    stream: LocalStream,
    consumers: ReadonlyArray<{ name: string; positions: Readonly<Record<string, number>> }>,
  ): void {
    for (const { name, positions } of consumers) {
      for (const [shardId, position] of Object.entries(positions)) {
        const shard = stream.shardIndex(shardId);
        const latest = stream.log.next(shard);
        if (position <= latest) continue;
        const fields = { stream: stream.record.name, shardId, consumer: name, position, latest };
        this.#options.log.error(fields, "the log ends before a checkpoint; the offsets between are left out");
        stream.log.skipTo(shard, position);
      }
    }
  }

  async createStream(spec: StreamSpec): Promise<StreamDescription> {
    this.#refuseWhenClosed();
    const { name, shards, retentionHours } = spec;
    if (!STREAM_NAME.test(name)) throw new BadNameError("stream", name);
    if (!Number.isInteger(shards) || shards < 1 || shards > MAX_SHARDS || !(retentionHours > 0)) {
      throw new HeadwaterError("BAD_STREAM", {
        message: `stream ${name}: ${shards} shards kept for ${retentionHours} hours`,
        hint: `give 1 to ${MAX_SHARDS} shards and a retention above 0`,
      });
    }
    if (this.#streams.has(name) || this.#reserved.has(name)) throw new StreamExistsError(name);
    this.#reserved.add(name);
    try {
      return await this.#make(spec);
    } finally {
      this.#reserved.delete(name);
    }
  }

  async #make({ name, shards, retentionHours }: StreamSpec): Promise<StreamDescription> {
    const createdMs = this.#nowMs();
    const record: StreamRecord = {
      name,
      streamId: randomBytes(16).toString("hex"),
      createdMs,
      retentionHours,
      shards: equalRanges(shards).map(({ hashFrom, hashTo }, index) => ({
        index,
        shardId: `shardId-${String(index).padStart(12, "0")}`,
        hashFrom: hashFrom.toString(16),
        hashTo: hashTo.toString(16),
        createdMs,
      })),
    };
    // A crash before the last of these leaves it "creating"; the next start removes the folder.
    await this.#metadata.beginStream(record.streamId, name);
    try {
      await mkdir(this.#folderOf(record.streamId));
      await syncFolder(join(this.#options.dir, "logs"));
      const log = await StreamLog.create(this.#logOptions(record));
      await this.#metadata.activateStream(record);
      const stream = new LocalStream(record, log, this.#meters, this.#options.clock);
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
      await this.#metadata.condemnStream(stream.record.streamId).catch((error: unknown) => {
        this.#streams.set(name, stream);
        throw error;
      });
      await stream.close();
      await this.#retention;
      await this.#erase(stream.record.streamId);
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

  // These are async so that what they throw is a rejection; nothing is awaited before the entry
  // has its place in the log, so the order of calls is the order of storing.
  async append(name: string, entries: readonly PutEntry[]): Promise<Placed[]> {
    return this.#get(name).append(entries);
  }

  async appendFrame(frame: Frame): Promise<AppendOutcome> {
    if (!DEVICE_NAME.test(frame.device)) throw new BadNameError("device", frame.device);
    return this.#get(frame.stream).appendFrame(frame);
  }

  async appendPublish(name: string, publish: PlainPublish): Promise<AppendOutcome> {
    return this.#get(name).appendPublish(publish);
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
    const stream = this.#get(name);
    return stream.log.appended(stream.shardIndex(shardId), from, signal);
  }

  async openConsumer(streamName: string, name: string): Promise<Consumer> {
    const stream = this.#get(streamName);
    if (name.length === 0 || name.length > 256) throw new BadNameError("consumer", name);
    // The name is taken before anything is awaited, so that two calls cannot both get it.
    if (stream.consumers.has(name)) throw new LeaseHeldError(streamName, name);
    stream.consumers.set(name, undefined);
    const { streamId } = stream.record;
    const release = async (): Promise<void> => {
      stream.consumers.delete(name);
      await this.#metadata.removeLease(streamId, name);
    };
    try {
      await this.#metadata.putLease(streamId, { name, sinceMs: this.#nowMs() });
      const known = (await this.#metadata.consumers(streamId)).find((record) => record.name === name);
      const save = (positions: ReadonlyMap<ShardId, Offset>): Promise<void> =>
        this.#metadata.putConsumer(streamId, { name, positions: Object.fromEntries(positions) });
      if (known !== undefined) {
        return stream.openConsumer(name, new Map(Object.entries(known.positions)), save, release);
      }
      // Where it begins is written down: else what retention takes before its first checkpoint would go unnoticed.
      const first = new Map(stream.describe().shardList.map((shard) => [shard.shardId, shard.trimHorizon]));
      await save(first);
      return stream.openConsumer(name, first, save, release);
    } catch (error) {
      stream.consumers.delete(name);
      throw error;
    }
  }

  async consumers(
    streamName: string,
  ): Promise<ReadonlyArray<{ name: string; positions: ReadonlyMap<ShardId, Offset> }>> {
    const records = await this.#metadata.consumers(this.#get(streamName).record.streamId);
    return records.map(({ name, positions }) => ({ name, positions: new Map(Object.entries(positions)) }));
  }

  enforceRetention(): Promise<void> {
    const run = this.#retention
      .catch(() => undefined)
      .then(async () => {
        for (const { record, log } of [...this.#streams.values()]) {
          await log.removeBefore(this.#nowMs() - record.retentionHours * 3_600_000);
        }
      });
    this.#retention = run.catch(() => undefined);
    return run;
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    clearInterval(this.#retentionTimer);
    await this.#retention;
    for (const stream of this.#streams.values()) await stream.close();
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
      meters: this.#meters,
      nowMs: () => this.#nowMs(),
      monotonicMs: () => clock.monotonicMs(),
      report: (level, fields, message) => log[level](fields, message),
    };
  }
}
