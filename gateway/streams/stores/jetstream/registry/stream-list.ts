/**
 * What all streams are: one document on the cluster, and this gateway's copy of it. A stream stands
 * in it before its JetStream stream is made and until that is removed, so whatever a killed gateway
 * left undone can be found here.
 */
import {
  type RateLimits,
  type ReadersCheck,
  type RegisteredReader,
  StreamExistsError,
  type StreamMode,
} from "../../../streams.ts";
import type { OwnSeconds } from "../../own-seconds.ts";
import type { Document, Documents } from "../cluster/documents.ts";
import { JetStreamUnfitError } from "../cluster/jet-streams.ts";
import type { MapContent } from "../log/shard-history.ts";

const KEY = "streams";
const VERSION = 1;

export interface StreamRecord {
  readonly name: string;
  /** 32 hex digits; names the JetStream stream. */
  readonly streamId: string;
  readonly createdMs: number;
  readonly retentionHours: number;
  readonly mode: StreamMode;
  readonly limits: RateLimits;
  readonly maxRecordBytes: number;
  readonly tags: Readonly<Record<string, string>>;
  readonly readers: readonly RegisteredReader[];
  /** Kept here too, as retention takes the log's own map messages. */
  readonly map: MapContent;
}

export type StreamRecords = Readonly<Record<string, StreamRecord>>;

interface ListDocument {
  readonly version: number;
  readonly streams: StreamRecords;
  /** Named, but their JetStream streams may not be there yet. */
  readonly coming: StreamRecords;
  /** Ids of streams that were deleted, whose data may be there yet. */
  readonly going: readonly string[];
}

const EMPTY = bare({ version: VERSION, streams: {}, coming: {}, going: [] });

/** Without what every object has: a stream may be called `constructor`. */
function bare({ version, streams, coming, going }: ListDocument): ListDocument {
  const own = (records: StreamRecords): StreamRecords => Object.assign(Object.create(null), records);
  return { version, streams: own(streams), coming: own(coming), going };
}

export class StreamList {
  readonly #documents: Documents;
  readonly #seconds: OwnSeconds;
  #list: ListDocument = EMPTY;
  #revision = -1;

  constructor(documents: Documents, seconds: OwnSeconds) {
    this.#documents = documents;
    this.#seconds = seconds;
  }

  /** Those that are there. */
  get records(): StreamRecords {
    return this.#list.streams;
  }

  /** Those that somebody is making, or was when he was killed. */
  get coming(): readonly StreamRecord[] {
    return Object.values(this.#list.coming);
  }

  /** Ids of those that somebody is removing, or was when he was killed. */
  get going(): readonly string[] {
    return this.#list.going;
  }

  /** Whether a stream is there or coming. */
  has(name: string): boolean {
    return this.#list.streams[name] !== undefined || this.#list.coming[name] !== undefined;
  }

  /**
   * Ids of all that are there, coming or going, by a list that nothing is newer than: it is written again. What was only read may be
   * older, or nothing, as the word of a leader that has just been chosen and lags behind its own log.
   */
  async confirmedIds(): Promise<Set<string>> {
    return idsIn(await this.#update((list) => list));
  }

  /** The same of what was read last. */
  get ids(): Set<string> {
    return idsIn(this.#list);
  }

  async refresh(): Promise<void> {
    // Of streams with thousands of shards it has megabytes, and is looked at once a second.
    if (this.#revision > 0 && !(await this.#documents.hasChanged(KEY, this.#revision))) return;
    this.#take(await this.#documents.get<ListDocument>(KEY));
  }

  #take({ revision, value }: Document<ListDocument>): void {
    if (revision <= this.#revision) return;
    const list = value ?? EMPTY;
    if (list.version !== VERSION) {
      const hint = "start the version that wrote it, or give the gateway another NATS account";
      throw new JetStreamUnfitError(`the cluster's list of streams has version ${list.version}`, hint);
    }
    this.#revision = revision;
    const newer = bare(list);
    this.#noteGone(newer);
    this.#list = newer;
  }

  /** What this gateway or another has deleted since the last look, so that what is made anew under its name is dated behind it. */
  #noteGone(newer: ListDocument): void {
    for (const { name, streamId, map, readers } of recordsIn(this.#list)) {
      const there = newer.streams[name] ?? newer.coming[name];
      if (there?.streamId !== streamId) {
        this.#seconds.streamGone(name, map.shards, readers);
        continue;
      }
      const left = new Map(there.readers.map((reader) => [reader.name, reader.createdMs]));
      for (const reader of readers) {
        if (left.get(reader.name) !== reader.createdMs) this.#seconds.readerGone(name, reader);
      }
    }
  }

  /**
   * Repeats `change` until no other gateway came between; undefined leaves the list. What it throws ends it.
   * @returns the list as it was written or left: who would read it again may be given an older one
   */
  async #update(change: (list: ListDocument) => ListDocument | undefined): Promise<ListDocument> {
    const judged = (list: ListDocument | undefined) => {
      const newer = bare(list ?? EMPTY);
      this.#noteGone(newer);
      return change(newer);
    };
    const there = await this.#documents.update<ListDocument>(KEY, judged, this.#revision);
    this.#take(there);
    return bare(there.value ?? EMPTY);
  }

  /**
   * Names a stream that is about to be made.
   * @param make called once it is known what of that name is gone; again when another gateway came between
   * @throws StreamExistsError
   */
  async announce(name: string, streamId: string, make: () => StreamRecord): Promise<StreamRecord> {
    const { streams, coming } = await this.#update((list) => {
      const there = list.streams[name] ?? list.coming[name];
      // Our own, when the answer to it was lost.
      if (there?.streamId === streamId) return undefined;
      if (there !== undefined) throw new StreamExistsError(name);
      return { ...list, coming: { ...list.coming, [name]: make() } };
    });
    // Another gateway may have finished it, where the answer was long in coming.
    return (coming[name] ?? streams[name])!;
  }

  /** Its JetStream stream is there. @returns false when it was deleted or given up meanwhile */
  async arrived({ name, streamId }: StreamRecord): Promise<boolean> {
    const { streams } = await this.#update((list) => {
      const { [name]: record, ...coming } = list.coming;
      if (record?.streamId !== streamId) return undefined;
      return { ...list, coming, streams: { ...list.streams, [name]: record } };
    });
    return streams[name]?.streamId === streamId;
  }

  /** It is not made after all. @returns false when another gateway has made it meanwhile, or it was deleted */
  async giveUp({ name, streamId }: StreamRecord): Promise<boolean> {
    const { going } = await this.#update((list) => {
      const { [name]: record, ...coming } = list.coming;
      if (record?.streamId !== streamId) return undefined;
      return { ...list, coming, going: [...list.going, streamId] };
    });
    return going.includes(streamId);
  }

  /** From now on it is gone for all; its data is still to be removed. */
  async depart(name: string, streamId: string, check?: ReadersCheck): Promise<void> {
    await this.#update((list) => {
      const there = list.streams[name] ?? list.coming[name];
      if (there?.streamId !== streamId) return undefined;
      check?.(there.readers);
      const { [name]: _, ...streams } = list.streams;
      const { [name]: __, ...coming } = list.coming;
      return { ...list, streams, coming, going: [...list.going, streamId] };
    });
  }

  /** Nothing of it is left. */
  async departed(streamId: string): Promise<void> {
    await this.#update((list) => {
      if (!list.going.includes(streamId)) return undefined;
      return { ...list, going: list.going.filter((one) => one !== streamId) };
    });
  }

  /** @param change not called where the stream is gone or is another of this name */
  async updateStream(
    name: string,
    streamId: string,
    change: (record: StreamRecord) => StreamRecord,
  ): Promise<void> {
    await this.#update((list) => {
      const record = list.streams[name];
      if (record?.streamId !== streamId) return undefined;
      const changed = change(record);
      if (changed === record) return undefined;
      return { ...list, streams: { ...list.streams, [name]: changed } };
    });
  }
}

function idsIn(list: ListDocument): Set<string> {
  return new Set([...list.going, ...recordsIn(list).map(({ streamId }) => streamId)]);
}

function recordsIn({ streams, coming }: ListDocument): StreamRecord[] {
  return [...Object.values(streams), ...Object.values(coming)];
}
