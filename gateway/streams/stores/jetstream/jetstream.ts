/**
 * Streams on a NATS JetStream cluster: several gateways in front of it serve the same streams.
 *
 *   {prefix}-{streamId}   one JetStream stream per stream; subjects {prefix}.d.{streamId}.…
 *     r                     records of puts            f.{epoch}   frames of one epoch
 *     map                   splits and merges          p.{client}  publishes of one plain client
 *   {prefix}-documents    what the streams are; leases and checkpoints
 *   {prefix}.n.…          one gateway tells the others what grew or changed (not stored)
 *
 * What is acknowledged is on a quorum of the nodes. nats-server syncs its files by its own interval,
 * not before it answers: docs/guide/jetstream.md says what that means.
 */
import { randomBytes } from "node:crypto";
import type { Epoch, Frame } from "../../../../protocol/frame.ts";
import { BadNameError, DEVICE_NAME, STREAM_NAME } from "../../../../protocol/topics.ts";
import type { Clock } from "../../../../runtime/clock.ts";
import { describeError, HeadwaterError } from "../../../../runtime/errors.ts";
import type { Log } from "../../../../runtime/log.ts";
import type { Metrics } from "../../../../runtime/metrics.ts";
import { equalRanges } from "../../shard-map.ts";
import {
  type AppendOutcome,
  type Consumer,
  type ConsumerOptions,
  DEFAULT_MAX_RECORD_BYTES,
  LeaseHeldError,
  type Offset,
  type Placed,
  type PlacedColumns,
  type PlainPublish,
  type PutColumns,
  type PutEntry,
  ReaderExistsError,
  ReaderNotFoundError,
  type ReadResult,
  type RegisteredReader,
  type ShardDescription,
  type ShardId,
  ShardNotFoundError,
  type StartingPoint,
  type StreamChange,
  type StreamDescription,
  StreamExistsError,
  StreamNotFoundError,
  type StreamSettings,
  type StreamSpec,
  type Streams,
  StreamsClosedError,
} from "../../streams.ts";
import { Documents } from "./documents.ts";
import { JetStreamStream } from "./jetstream-stream.ts";
import { type ConsumerRecord, type LeasedConsumer, openLeasedConsumer } from "./leased-consumer.ts";
import { DUPLICATE_WINDOW_NS, Link } from "./link.ts";
import { type MapContent, shardRecord } from "./shard-history.ts";
import { StreamList, type StreamRecord } from "./stream-list.ts";

const MAX_SHARDS = 4_096;
const REFRESH_MS = 1_000;
const HOUR_NS = 3_600 * 1_000_000_000;

export interface JetStreamStreamsOptions {
  /** `host:port` or `nats://host:port` of some of the nodes; they tell of the others. */
  readonly servers: readonly string[];
  /** On how many nodes each stream is kept: 1, 3 or 5. */
  readonly replicas: number;
  /** Of all names on the cluster; `headwater` unless given. Gateways with the same see the same streams. */
  readonly prefix?: string;
  /** A NATS credentials file. */
  readonly credentialsFile?: string;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
}

/** @throws JetStreamUnfitError */
export async function openJetStreamStreams(options: JetStreamStreamsOptions): Promise<Streams> {
  const link = await Link.open(options);
  const streams = new ClusterStreams(options, link);
  try {
    await streams.start();
  } catch (error) {
    await streams.close();
    throw error;
  }
  return streams;
}

class ClusterStreams implements Streams {
  readonly #options: JetStreamStreamsOptions;
  readonly #prefix: string;
  readonly #link: Link;
  readonly #documents: Documents;
  readonly #list: StreamList;
  readonly #streams = new Map<string, JetStreamStream>();
  readonly #settings = new Map<string, { record: StreamRecord; settings: StreamSettings }>();
  readonly #consumers = new Map<string, LeasedConsumer | undefined>();
  readonly #duplicates;
  #timer: NodeJS.Timeout | undefined;
  #syncing: Promise<void> = Promise.resolve();
  #closing: Promise<void> | undefined;

  constructor(options: JetStreamStreamsOptions, link: Link) {
    this.#options = options;
    this.#prefix = options.prefix ?? "headwater";
    this.#link = link;
    this.#documents = new Documents(link, this.#prefix);
    this.#list = new StreamList(this.#documents);
    this.#duplicates = options.metrics.counter(
      "headwater_jetstream_duplicates_total",
      "Frames and publishes that came again and were not stored again",
      ["stream"],
    );
  }

  async start(): Promise<void> {
    await this.#documents.start(this.#options.replicas);
    await this.#sync();
    this.#link.hear(`${this.#prefix}.n.>`, (subject, text) => this.#heard(subject, text));
    this.#timer = setInterval(() => this.#syncSoon(), REFRESH_MS);
    this.#timer.unref();
  }

  #heard(subject: string, text: string): void {
    const token = subject.slice(this.#prefix.length + 3);
    if (token === "streams") this.#syncSoon();
    for (const stream of this.#streams.values()) {
      if (stream.streamId === token) stream.tail.learn(Number(text));
    }
  }

  #syncSoon(): void {
    this.#sync().catch((error: unknown) => {
      if (this.#closing !== undefined) return;
      this.#options.log.error({ error: describeError(error) }, "asking what streams there are failed");
    });
  }

  /** One after the other, so that no stream is opened twice. */
  #sync(): Promise<void> {
    const done = this.#syncing.catch(() => undefined).then(() => this.#follow());
    this.#syncing = done;
    return done;
  }

  async #follow(): Promise<void> {
    if (this.#closing !== undefined) return;
    await this.#list.refresh();
    const { records } = this.#list;
    for (const [name, stream] of this.#streams) {
      if (records[name]?.streamId === stream.streamId) continue;
      this.#streams.delete(name);
      this.#settings.delete(name);
      await this.#endConsumers(name);
      await stream.close();
    }
    for (const record of Object.values(records)) {
      const known = this.#streams.get(record.name);
      if (known !== undefined) {
        known.tail.history.adopt(record.map, 0);
        continue;
      }
      const stream = this.#makeStream(record);
      try {
        await stream.start();
        this.#streams.set(record.name, stream);
      } catch (error) {
        // Another gateway deletes it just now, or made it and its leader is not chosen yet.
        if (!(error instanceof StreamNotFoundError)) throw error;
      }
    }
  }

  #makeStream(record: StreamRecord): JetStreamStream {
    const { name, streamId, map } = record;
    return new JetStreamStream({
      link: this.#link,
      clock: this.#options.clock,
      log: this.#options.log,
      name,
      streamId,
      map,
      stream: this.#streamOf(streamId),
      subject: `${this.#prefix}.d.${streamId}`,
      tellSubject: `${this.#prefix}.n.${streamId}`,
      onMap: (content) => this.#keepMap(name, streamId, content),
    });
  }

  /** Any gateway that sees a map keeps it, so that it does not hang on the one that made it. */
  #keepMap(name: string, streamId: string, map: MapContent): void {
    this.#list
      .updateStream(name, streamId, (record) =>
        record.map.version < map.version ? { ...record, map } : record,
      )
      .catch((error: unknown) => {
        if (this.#closing !== undefined) return;
        this.#options.log.error({ stream: name, error: describeError(error) }, "a shard map was not kept");
      });
  }

  #streamOf(streamId: string): string {
    return `${this.#prefix}-${streamId}`;
  }

  #tellAll(): void {
    this.#link.tell(`${this.#prefix}.n.streams`, "");
  }

  async createStream(spec: StreamSpec): Promise<StreamDescription> {
    this.#refuseWhenClosed();
    const { name, shards, retentionHours } = spec;
    if (!STREAM_NAME.test(name)) throw new BadNameError("stream", name);
    if (!Number.isInteger(shards) || shards < 1 || shards > MAX_SHARDS) {
      throw badStream(name, `${shards} shards`, `give 1 to ${MAX_SHARDS}`);
    }
    checkSettings(name, spec);
    await this.#sync();
    if (this.#list.records[name] !== undefined) throw new StreamExistsError(name);
    const record = this.#newRecord(spec);
    // A crash behind this leaves an empty JetStream stream that nobody knows: it costs no room.
    await this.#link.makeStream({
      name: this.#streamOf(record.streamId),
      subjects: [`${this.#prefix}.d.${record.streamId}.>`],
      num_replicas: this.#options.replicas,
      max_age: retentionHours * HOUR_NS,
      duplicate_window: Math.min(DUPLICATE_WINDOW_NS, retentionHours * HOUR_NS),
      allow_direct: true,
    });
    try {
      await this.#list.update((records) => {
        if (records[name] !== undefined) throw new StreamExistsError(name);
        return { ...records, [name]: record };
      });
    } catch (error) {
      await this.#link.removeStream(this.#streamOf(record.streamId));
      throw error;
    }
    await this.#sync();
    this.#tellAll();
    return this.describe(name);
  }

  #newRecord(spec: StreamSpec): StreamRecord {
    const createdMs = Math.floor(this.#options.clock.nowUs() / 1000);
    return {
      name: spec.name,
      streamId: randomBytes(16).toString("hex"),
      createdMs,
      retentionHours: spec.retentionHours,
      mode: spec.mode ?? "provisioned",
      limits: spec.limits ?? "none",
      maxRecordBytes: spec.maxRecordBytes ?? DEFAULT_MAX_RECORD_BYTES,
      tags: spec.tags ?? {},
      readers: [],
      map: {
        version: 1,
        shards: equalRanges(spec.shards).map((range, index) => shardRecord(index, range, createdMs)),
      },
    };
  }

  async deleteStream(name: string): Promise<void> {
    const { streamId } = this.#get(name);
    // Once this is stored the stream is gone; a crash behind it leaves data that nobody can read.
    await this.#list.updateStream(name, streamId, () => undefined);
    await this.#sync();
    this.#tellAll();
    await this.#link.removeStream(this.#streamOf(streamId));
    await this.#documents.drop(`c.${streamId}`);
  }

  async #endConsumers(name: string): Promise<void> {
    for (const [key, consumer] of this.#consumers) {
      if (key.startsWith(`${name}/`)) await consumer?.lose();
    }
  }

  listStreams(): string[] {
    return [...this.#streams.keys()].sort();
  }

  describe(name: string): StreamDescription {
    const stream = this.#get(name);
    const settings = this.settings(name);
    const shardList = stream.describeShards(settings.retentionHours * 3_600_000);
    return { ...settings, shardList, producers: stream.tail.producers.size };
  }

  settings(name: string): StreamSettings {
    const { history } = this.#get(name).tail;
    const record = this.#list.records[name];
    if (record === undefined) throw new StreamNotFoundError(name);
    const shards = history.shards.filter(({ closedAt }) => closedAt === undefined).length;
    const known = this.#settings.get(name);
    if (known?.record === record && known.settings.shards === shards) return known.settings;
    const { readers: _, map: __, ...facts } = record;
    const settings = { ...facts, shards };
    this.#settings.set(name, { record, settings });
    return settings;
  }

  shard(name: string, index: number): ShardDescription {
    const shard = this.#get(name).describeShard(index);
    if (shard === undefined) throw new ShardNotFoundError(name, String(index));
    return shard;
  }

  async updateStream(name: string, change: StreamChange): Promise<StreamDescription> {
    const { streamId } = this.#get(name);
    checkSettings(name, change);
    if (change.retentionHours !== undefined) {
      const maxAge = change.retentionHours * HOUR_NS;
      await this.#link.updateStream(this.#streamOf(streamId), {
        max_age: maxAge,
        duplicate_window: Math.min(DUPLICATE_WINDOW_NS, maxAge),
      });
    }
    await this.#list.updateStream(name, streamId, (record) => ({ ...record, ...change }));
    this.#tellAll();
    return this.describe(name);
  }

  async splitShard(name: string, shardId: ShardId, startingHash: bigint): Promise<void> {
    const stream = this.#get(name);
    await stream.reshard(() => stream.tail.history.split(shardId, startingHash, this.#nowMs()));
    await this.#mapKept(name, stream);
  }

  async mergeShards(name: string, shardId: ShardId, adjacentShardId: ShardId): Promise<void> {
    const stream = this.#get(name);
    await stream.reshard(() => stream.tail.history.merge(shardId, adjacentShardId, this.#nowMs()));
    await this.#mapKept(name, stream);
  }

  async #mapKept(name: string, stream: JetStreamStream): Promise<void> {
    const map = stream.tail.history.content;
    await this.#list.updateStream(name, stream.streamId, (record) =>
      record.map.version < map.version ? { ...record, map } : record,
    );
    this.#tellAll();
  }

  async registerReader(
    stream: string,
    name: string,
    tags: Readonly<Record<string, string>>,
  ): Promise<RegisteredReader> {
    const reader = { name, createdMs: this.#nowMs(), tags };
    await this.#changeReaders(stream, (readers) => {
      if (readers.some((one) => one.name === name)) throw new ReaderExistsError(stream, name);
      return [...readers, reader];
    });
    return reader;
  }

  async updateReader(
    stream: string,
    name: string,
    tags: Readonly<Record<string, string>>,
  ): Promise<RegisteredReader> {
    await this.#changeReaders(stream, (readers) => {
      if (!readers.some((one) => one.name === name)) throw new ReaderNotFoundError(stream, name);
      return readers.map((one) => (one.name === name ? { ...one, tags } : one));
    });
    const reader = this.registeredReaders(stream).find((one) => one.name === name);
    if (reader === undefined) throw new ReaderNotFoundError(stream, name);
    return reader;
  }

  async deregisterReader(stream: string, name: string): Promise<void> {
    await this.#changeReaders(stream, (readers) => {
      if (!readers.some((one) => one.name === name)) throw new ReaderNotFoundError(stream, name);
      return readers.filter((one) => one.name !== name);
    });
  }

  async #changeReaders(
    name: string,
    change: (readers: readonly RegisteredReader[]) => readonly RegisteredReader[],
  ): Promise<void> {
    const { streamId } = this.#get(name);
    await this.#list.updateStream(name, streamId, (record) => ({
      ...record,
      readers: change(record.readers),
    }));
    this.#tellAll();
  }

  registeredReaders(stream: string): readonly RegisteredReader[] {
    this.#get(stream);
    const readers = this.#list.records[stream]?.readers ?? [];
    return [...readers].sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  // These are async so that what they throw is a rejection; nothing is awaited before the call has
  // its place in its lane, so the order of calls is the order of storing.
  async append(name: string, entries: readonly PutEntry[]): Promise<Placed[]> {
    return this.#get(name).append(entries);
  }

  async appendColumns(name: string, columns: PutColumns): Promise<PlacedColumns> {
    const { count, keys, hashes, data, ends } = columns;
    const stream = this.#get(name);
    const entries = Array.from({ length: count }, (_, i): PutEntry => {
      const explicitHash = hashes?.[i];
      return {
        partitionKey: keys[i]!,
        data: data.subarray(i === 0 ? 0 : ends[i - 1], ends[i]),
        ...(explicitHash !== undefined && { explicitHash }),
      };
    });
    const placed = await stream.append(entries);
    const indexes = new Map(stream.tail.history.shards.map(({ shardId, index }) => [shardId, index]));
    return {
      arrivalMs: placed[0]?.arrivalMs ?? this.#nowMs(),
      shards: Uint32Array.from(placed, ({ shardId }) => indexes.get(shardId)!),
      offsets: Float64Array.from(placed, ({ offset }) => offset),
    };
  }

  async appendFrame(frame: Frame): Promise<AppendOutcome> {
    if (!DEVICE_NAME.test(frame.device)) throw new BadNameError("device", frame.device);
    return this.#counted(frame.stream, this.#get(frame.stream).appendFrame(frame));
  }

  async appendPublish(name: string, publish: PlainPublish): Promise<AppendOutcome> {
    return this.#counted(name, this.#get(name).appendPublish(publish));
  }

  async #counted(stream: string, appended: Promise<AppendOutcome>): Promise<AppendOutcome> {
    const outcome = await appended;
    if (outcome === "duplicate") this.#duplicates.inc({ stream });
    return outcome;
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

  async openConsumer(name: string, consumer: string, options: ConsumerOptions = {}): Promise<Consumer> {
    const stream = this.#get(name);
    const local = `${name}/${consumer}`;
    if (this.#consumers.has(local)) {
      if (options.takeOver !== true) throw new LeaseHeldError(name, consumer);
      await this.#consumers.get(local)?.lose();
    }
    this.#consumers.set(local, undefined);
    let opened: LeasedConsumer | undefined;
    try {
      opened = await openLeasedConsumer({
        documents: this.#documents,
        tail: stream.tail,
        clock: this.#options.clock,
        log: this.#options.log,
        stream: name,
        name: consumer,
        key: `c.${stream.streamId}.${Buffer.from(consumer).toString("base64url")}`,
        owner: this.#link.id,
        signal: this.#link.signal,
        takeOver: options.takeOver === true,
        released: () => {
          if (this.#consumers.get(local) === opened) this.#consumers.delete(local);
        },
      });
      this.#consumers.set(local, opened);
      return opened;
    } finally {
      if (opened === undefined) this.#consumers.delete(local);
    }
  }

  async consumers(
    stream: string,
  ): Promise<ReadonlyArray<{ name: string; positions: ReadonlyMap<ShardId, Offset> }>> {
    const { streamId } = this.#get(stream);
    const keys = await this.#documents.keys(`c.${streamId}`);
    const found = await Promise.all(
      keys.map((key) => this.#documents.get<ConsumerRecord>(`c.${streamId}.${key}`)),
    );
    return found
      .flatMap(({ value }) => (value === undefined ? [] : [value]))
      .map(({ name, positions }) => ({ name, positions: new Map(Object.entries(positions)) }))
      .sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  #get(name: string): JetStreamStream {
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

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  /** Hands the leases over, so that another gateway goes on at once. */
  async #close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#syncing.catch(() => undefined);
    await Promise.all([...this.#consumers.values()].map((consumer) => consumer?.close()));
    await Promise.all([...this.#streams.values()].map((stream) => stream.close()));
    await this.#link.close();
  }
}

function checkSettings(name: string, { retentionHours, maxRecordBytes }: StreamChange): void {
  if (retentionHours !== undefined && !(retentionHours > 0)) {
    throw badStream(name, `kept for ${retentionHours} hours`, "give a retention above 0");
  }
  if (maxRecordBytes !== undefined && !(Number.isInteger(maxRecordBytes) && maxRecordBytes > 0)) {
    throw badStream(name, `records of ${maxRecordBytes} bytes`, "give a whole number above 0");
  }
}

function badStream(name: string, what: string, hint: string): HeadwaterError {
  return new HeadwaterError("BAD_STREAM", { message: `stream ${name}: ${what}`, hint });
}
