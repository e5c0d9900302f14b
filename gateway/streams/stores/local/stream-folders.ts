/**
 * The streams of the local store as they lie on the disk, each in a folder of its own: how one is
 * made, opened and erased. What a crash leaves of making or erasing, the next start ends.
 *
 *   make    "creating" in the metadata → folder, first segment → "active"
 *   erase   "deleting" in the metadata, or on a full disk beside the folder (condemned-streams.ts) → folder gone → forgotten
 *
 * Whatever is not "active" at a start is erased: a stream in the making was promised to nobody, and
 * one that is being deleted was given up by all.
 */
import { randomBytes } from "node:crypto";
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "../../../../runtime/clock.ts";
import { syncFolder } from "../../../../runtime/durable.ts";
import { describeError } from "../../../../runtime/errors.ts";
import type { Log } from "../../../../runtime/log.ts";
import { DatabaseWriteError } from "../../../../runtime/synced-level.ts";
import type { Offset, ShardId, StreamSpec } from "../../streams.ts";
import type { OwnSeconds } from "../own-seconds.ts";
import { CondemnedStreams } from "./condemned-streams.ts";
import { LocalStream } from "./local-stream.ts";
import type { LogMeters } from "./log/log-meters.ts";
import { type Disk, realDisk } from "./log/segment-file.ts";
import {
  DEFAULT_SEGMENT_BYTES,
  MAX_ALL_WAITING_BYTES,
  MAX_WAITING_BYTES,
  StreamLog,
  type StreamLogOptions,
} from "./log/stream-log.ts";
import type { AllWaiting } from "./log/waiting-groups.ts";
import { type Metadata, MetadataDamagedError, type StoredStream, type StreamRecord } from "./metadata.ts";
import { RecentChunks } from "./segments/recent-chunks.ts";
import { RecycledSegments } from "./segments/recycled-segments.ts";
import { firstShards } from "./shard-table.ts";
import { StreamDefinition } from "./stream-definition.ts";

/** What readers of all streams read last and others may want next; as much again of what was written last. */
const RECENT_BYTES = 24 * 1_048_576;

export interface StreamFoldersOptions {
  /** The store's folder; `logs/` is in it. */
  readonly dir: string;
  readonly clock: Clock;
  readonly log: Log;
  /** A segment is closed when it has grown beyond this. */
  readonly segmentBytes?: number;
  /** What may wait for the disk, in one stream; beyond it appends are refused with LogBusyError. */
  readonly maxWaitingBytes?: number;
  /** The same in all streams together. */
  readonly maxAllWaitingBytes?: number;
  readonly disk?: Disk;
  /**
   * What logs with traffic write over: segments that retention removed (`removed`, unless given),
   * also files filled with zeros for it (`filled`), or nothing (`never`).
   */
  readonly recycleSegments?: "never" | "removed" | "filled";
}

export class StreamFolders {
  readonly condemned: CondemnedStreams;
  readonly #options: StreamFoldersOptions;
  readonly #metadata: Metadata;
  readonly #meters: LogMeters;
  readonly #seconds: OwnSeconds;
  readonly #spares: RecycledSegments | undefined;
  readonly #recent = new RecentChunks(RECENT_BYTES);
  readonly #allWaiting: AllWaiting;

  constructor(options: StreamFoldersOptions, metadata: Metadata, meters: LogMeters, seconds: OwnSeconds) {
    this.#options = options;
    this.#allWaiting = { maxBytes: options.maxAllWaitingBytes ?? MAX_ALL_WAITING_BYTES, bytes: 0 };
    this.#metadata = metadata;
    this.condemned = new CondemnedStreams(options, metadata);
    this.#meters = meters;
    this.#seconds = seconds;
    const { dir, segmentBytes = DEFAULT_SEGMENT_BYTES, recycleSegments } = options;
    if (recycleSegments !== "never") {
      this.#spares = new RecycledSegments(join(dir, "spares"), segmentBytes, recycleSegments === "filled");
    }
  }

  /** Ends what a crash interrupted. @returns the streams that there are */
  async start(): Promise<StoredStream[]> {
    await this.#spares?.start();
    for (const streamId of await this.condemned.start()) {
      const fields = { stream: this.#metadata.nameOf(streamId), streamId };
      this.#options.log.warn(fields, "a stream is erased whose making, or deletion, had begun and not ended");
      await this.erase(streamId);
    }
    // Metadata that cannot be written yet knows them still.
    const known = await this.#metadata.activeStreams();
    return known.filter(({ record }) => !this.condemned.isMarked(record.streamId));
  }

  /** @throws LogMissingError, MetadataDamagedError */
  async open(stored: StoredStream): Promise<LocalStream> {
    const { record } = stored;
    const log = await StreamLog.open(this.#logOptions(record));
    try {
      this.#refuseUnknownShards(record, log);
      // A shard of which nothing is left: whoever holds a place in it must not find another record there.
      for (const { index } of stored.shards) if (log.next(index) === 0) log.skipTo(index, log.lostRecords);
      const stream = await this.#assemble(stored, log);
      await this.#protectCheckpoints(stream);
      return stream;
    } catch (error) {
      await log.close();
      throw error;
    }
  }

  /**
   * In a new folder, with its first shards. What it leaves when it fails is removed, by the next start if not now; where
   * nobody knows whether the disk has it as "active", its folder is kept whole: a crash leaves it removed or empty.
   */
  async make({ name, shards: count, retentionHours, ...more }: StreamSpec): Promise<LocalStream> {
    const createdMs = this.#seconds.dateStream(name);
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
    let log: StreamLog | undefined;
    try {
      await this.#makeFolder(record.streamId);
      log = await StreamLog.create(this.#logOptions(record));
      const stream = await this.#assemble({ record, shards }, log);
      // Last of all: were it refused behind this, the next start might have two of its name.
      await this.#metadata.activateStream(record, shards);
      return stream;
    } catch (error) {
      // Nothing is in it.
      await log?.close().catch(() => undefined);
      await this.erase(record.streamId);
      throw error;
    }
  }

  async #makeFolder(streamId: string): Promise<void> {
    try {
      await mkdir(this.#folderOf(streamId));
      await syncFolder(join(this.#options.dir, "logs"));
    } catch (error) {
      throw new DatabaseWriteError(this.#options.dir, error);
    }
  }

  /**
   * Of a stream that is closed. What says that it is to go is on disk before anything of it is removed, or nothing is,
   * and says so to the last: a crash before leaves it to the next start, and so does a disk that refuses any of this.
   */
  async erase(streamId: string): Promise<void> {
    try {
      if (!this.condemned.isMarked(streamId)) await this.#metadata.condemnStream(streamId);
      await rm(this.#folderOf(streamId), { recursive: true, force: true });
      await syncFolder(join(this.#options.dir, "logs"));
      await this.#metadata.removeStream(streamId);
      await this.condemned.forget(streamId);
    } catch (error) {
      const isOfDisk =
        error instanceof DatabaseWriteError || (error as NodeJS.ErrnoException).syscall !== undefined;
      if (!isOfDisk) throw error;
      const fields = { streamId, error: describeError(error) };
      this.#options.log.warn(
        fields,
        "what a deleted or refused stream left in logs/ is left to the next start",
      );
    }
  }

  /** Once all streams are closed. Safe to call twice. */
  async close(): Promise<void> {
    await this.condemned.close();
    await this.#spares?.close();
  }

  async #assemble(stored: StoredStream, log: StreamLog): Promise<LocalStream> {
    const readers = await this.#metadata.readers(stored.record.streamId);
    const definition = new StreamDefinition(stored, readers, log, this.#metadata, this.#seconds);
    return new LocalStream(definition, log, this.#metadata, this.#meters, this.#options.clock);
  }

  /** Metadata that went back to before a split or a merge would give the children's indexes out twice. */
  #refuseUnknownShards(record: StreamRecord, log: StreamLog): void {
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

  async #protectCheckpoints(stream: LocalStream): Promise<void> {
    for (const { name, positions } of await stream.consumers.records()) {
      this.leaveOut(stream, name, new Map(Object.entries(positions)));
    }
  }

  /** Where a log ends before a checkpoint, records are lost; new ones must not be taken for read. */
  leaveOut(stream: LocalStream, consumer: string, positions: ReadonlyMap<ShardId, Offset>): void {
    for (const [shardId, position] of positions) {
      const shard = stream.definition.shards.find(shardId);
      if (shard === undefined || position <= shard.latest) continue;
      const { latest } = shard;
      const fields = { stream: stream.name, shardId, consumer, position, latest };
      this.#options.log.error(fields, "the log ends before a checkpoint; the offsets between are left out");
      stream.log.skipTo(shard.index, position);
    }
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
      allWaiting: this.#allWaiting,
      disk: disk ?? realDisk,
      spares: this.#spares,
      recent: this.#recent,
      meters: this.#meters,
      nowMs: () => Math.floor(clock.nowUs() / 1000),
      monotonicMs: () => clock.monotonicMs(),
      report: (level, fields, message) => log[level](fields, message),
    };
  }
}
