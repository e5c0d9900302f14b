/**
 * Streams on a NATS JetStream cluster: several gateways in front of it serve the same streams.
 *
 *   {prefix}-{streamId}   one JetStream stream per stream; subjects {prefix}.d.{streamId}.…
 *     g.{gateway}           records of puts            f.{epoch}   frames of one epoch
 *     map                   splits and merges          p.{client}  publishes of one plain client
 *   {prefix}-documents    what the streams are; leases and checkpoints
 *   {prefix}.n.…          one gateway tells the others what grew or changed (not stored)
 *
 * What is acknowledged is on a quorum of the nodes. nats-server syncs its files by its own interval,
 * not before it answers: docs/guide/jetstream.md says what that means.
 */
import type { Epoch, Frame } from "../../../../protocol/frame.ts";
import { BadNameError, DEVICE_NAME, STREAM_NAME } from "../../../../protocol/topics.ts";
import type { Clock } from "../../../../runtime/clock.ts";
import type { Log } from "../../../../runtime/log.ts";
import type { Metrics } from "../../../../runtime/metrics.ts";
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
  ShardNotFoundError,
  type StartingPoint,
  type StreamChange,
  type StreamDescription,
  StreamNotFoundError,
  type StreamSettings,
  type StreamSpec,
  type Streams,
  StreamsClosedError,
  type TagChange,
} from "../../streams.ts";
import { checkSpec } from "../check-spec.ts";
import { Claims } from "./cluster/claims.ts";
import { Documents } from "./cluster/documents.ts";
import { Link } from "./cluster/link.ts";
import { Silence } from "./cluster/silence.ts";
import { Consumers } from "./consumers/consumers.ts";
import { copiesMayDiffer } from "./log/acknowledged.ts";
import { columnsOf, entriesOf, publishesOf } from "./log/columns.ts";
import type { JetStreamStream } from "./log/jetstream-stream.ts";
import type { MapContent, ShardRecord } from "./log/shard-history.ts";
import { changeSettings } from "./registry/changed-settings.ts";
import { RegisteredReaders } from "./registry/registered-readers.ts";
import type { StreamRecord } from "./registry/stream-list.ts";
import { StreamRegistry } from "./registry/stream-registry.ts";

/** What waits for an answer of the cluster when the gateway closes gets so long. */
const CLOSE_WITHIN_MS = 5_000;

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
  readonly #link: Link;
  readonly #documents: Documents;
  readonly #silence: Silence;
  readonly #registry: StreamRegistry;
  readonly #settings = new Map<string, { record: StreamRecord; settings: StreamSettings }>();
  readonly #readers: RegisteredReaders;
  readonly #consumers: Consumers;
  readonly #claims: Claims;
  readonly #duplicates;
  #closing: Promise<void> | undefined;

  constructor(options: JetStreamStreamsOptions, link: Link) {
    const { replicas, clock, log, metrics, prefix = "headwater" } = options;
    this.#options = options;
    this.#link = link;
    this.#documents = new Documents(link, prefix);
    this.#silence = new Silence({ clock, log, metrics });
    const parts = { link, documents: this.#documents, clock, log };
    this.#consumers = new Consumers(parts);
    this.#claims = new Claims(link, clock, prefix);
    const gone = async (stream: JetStreamStream): Promise<void> => {
      this.#settings.delete(stream.name);
      await this.#consumers.lose(stream);
    };
    this.#registry = new StreamRegistry({ ...parts, silence: this.#silence, prefix, replicas, gone });
    this.#readers = new RegisteredReaders(this.#registry);
    this.#duplicates = metrics.counter(
      "headwater_jetstream_duplicates_total",
      "Frames and publishes that came again and were not stored again",
      ["stream"],
    );
  }

  async start(): Promise<void> {
    const { replicas, log } = this.#options;
    const { server, version } = this.#link;
    if (replicas > 1 && copiesMayDiffer(version)) {
      const what =
        "when a node of this version hangs, is cut off or killed, and comes back, acknowledged records may be lost";
      log.warn({ server, version }, `${what}; use nats-server 2.10.27 (docs/guide/jetstream.md)`);
    }
    await this.#documents.start(replicas);
    await this.#registry.start();
  }

  get unreachable(): string | undefined {
    return this.#silence.why;
  }

  async createStream(spec: StreamSpec): Promise<StreamDescription> {
    this.#refuseWhenClosed();
    const { name } = spec;
    if (!STREAM_NAME.test(name)) throw new BadNameError("stream", name);
    checkSpec(spec);
    await this.#registry.make(spec);
    return this.describe(name);
  }

  async deleteStream(name: string, check?: ReadersCheck): Promise<void> {
    await this.#registry.delete(name, this.#get(name).streamId, check);
  }

  listStreams(): string[] {
    return [...this.#registry.streams.keys()].filter((name) => this.#registry.find(name)).sort();
  }

  describe(name: string): StreamDescription {
    const stream = this.#get(name);
    const settings = this.settings(name);
    const shardList = stream.describeShards(settings.retentionHours * 3_600_000);
    const { tail, refusing } = stream;
    return { ...settings, shardList, producers: tail.producers.size, refusing };
  }

  settings(name: string): StreamSettings {
    const shards = this.#get(name).tail.history.openShards;
    const record = this.#registry.list.records[name];
    if (record === undefined) throw new StreamNotFoundError(name);
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

  children(name: string, shardId: ShardId): ShardDescription[] {
    return this.#get(name).describeChildren(shardId, this.settings(name).retentionHours * 3_600_000);
  }

  lastArrivalMs(name: string): number {
    return this.#get(name).lastArrivalMs;
  }

  async updateStream(name: string, change: StreamChange): Promise<StreamDescription> {
    await changeSettings(this.#registry, this.#get(name), change, () => this.settings(name));
    return this.describe(name);
  }

  async splitShard(name: string, shardId: ShardId, startingHash: bigint): Promise<void> {
    const { history } = this.#get(name).tail;
    await this.#reshard(name, (isExpired) => history.split(shardId, startingHash, this.#nowMs(), isExpired));
  }

  async mergeShards(name: string, shardId: ShardId, adjacentShardId: ShardId): Promise<void> {
    const { history } = this.#get(name).tail;
    await this.#reshard(name, (isExpired) =>
      history.merge(shardId, adjacentShardId, this.#nowMs(), isExpired),
    );
  }

  async reshard(name: string, steps: readonly ReshardStep[]): Promise<void> {
    const { history } = this.#get(name).tail;
    await this.#reshard(name, (isExpired) => history.reshard(steps, this.#nowMs(), isExpired));
  }

  async #reshard(
    name: string,
    change: (isExpired: (shard: ShardRecord) => boolean) => MapContent,
  ): Promise<void> {
    const stream = this.#get(name);
    const retentionMs = this.settings(name).retentionHours * 3_600_000;
    await stream.reshard(() => change(stream.isExpired(retentionMs)));
    await this.#registry.keepMap(name, stream.streamId, stream.tail.history.content);
    this.#registry.tellAll();
  }

  async registerReader(
    stream: string,
    name: string,
    tags: Readonly<Record<string, string>>,
    check?: ReadersCheck,
  ): Promise<RegisteredReader> {
    this.#get(stream);
    return this.#readers.register(stream, name, tags, check);
  }

  async updateReader(stream: string, name: string, tags: TagChange): Promise<RegisteredReader> {
    this.#get(stream);
    return this.#readers.update(stream, name, tags);
  }

  async deregisterReader(stream: string, name: string): Promise<void> {
    this.#get(stream);
    await this.#readers.deregister(stream, name);
  }

  registeredReaders(stream: string): readonly RegisteredReader[] {
    this.#get(stream);
    return this.#readers.list(stream);
  }

  // These are async so that what they throw is a rejection; nothing is awaited before the call has
  // its place in its lane, so the order of calls is the order of storing.
  async append(name: string, entries: readonly PutEntry[]): Promise<Placed[]> {
    return this.#get(name).append(entries);
  }

  async appendColumns(name: string, columns: PutColumns): Promise<PlacedColumns> {
    const stream = this.#get(name);
    const placed = await stream.append(entriesOf(columns));
    return columnsOf(placed, this.#nowMs(), (shardId) => stream.tail.history.indexOf(shardId));
  }

  async appendFrame(frame: Frame): Promise<AppendOutcome> {
    if (!DEVICE_NAME.test(frame.device)) throw new BadNameError("device", frame.device);
    return this.#counted(frame.stream, this.#get(frame.stream).appendFrame(frame));
  }

  async appendPublish(name: string, publish: PlainPublish): Promise<AppendOutcome> {
    return this.#counted(name, this.#get(name).appendPublish(publish));
  }

  /** Every client has its own lane to the cluster, so nothing is gained by keeping them together, and each has an outcome of its own. */
  async appendPublishes(
    name: string,
    publishes: PublishColumns,
  ): Promise<readonly (AppendOutcome | Error)[]> {
    this.#get(name);
    const appended = publishesOf(publishes).map((publish) => this.appendPublish(name, publish));
    const outcomes = await Promise.allSettled(appended);
    return outcomes.map((outcome) => (outcome.status === "fulfilled" ? outcome.value : outcome.reason));
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
    return [...this.#registry.streams.values()].some((stream) => stream.remembersPacket(clientId, packetId));
  }

  async forgetClient(clientId: string): Promise<void> {
    this.#refuseWhenClosed();
    await Promise.all([...this.#registry.streams.values()].map((stream) => stream.forgetClient(clientId)));
  }

  leaveClient(clientId: string): void {
    for (const stream of this.#registry.streams.values()) stream.leaveClient(clientId);
  }

  async forgetEpoch(device: string, epoch: Epoch): Promise<void> {
    this.#refuseWhenClosed();
    const streams = [...this.#registry.streams.values()];
    await Promise.all(streams.map((stream) => stream.forgetEpoch(device, epoch)));
  }

  async position(name: string, shardId: ShardId, start: StartingPoint): Promise<Offset> {
    return this.#get(name).reader.position(shardId, start);
  }

  async read(name: string, shardId: ShardId, from: Offset, maxBytes: number): Promise<ReadResult> {
    return this.#get(name).reader.read(shardId, from, maxBytes);
  }

  async appended(name: string, shardId: ShardId, from: Offset, signal: AbortSignal): Promise<void> {
    return this.#get(name).reader.appended(shardId, from, signal);
  }

  async openConsumer(name: string, consumer: string, options: ConsumerOptions = {}): Promise<Consumer> {
    return this.#consumers.open(name, this.#get(name), consumer, options.takeOver === true);
  }

  async consumers(
    stream: string,
  ): Promise<ReadonlyArray<{ name: string; positions: ReadonlyMap<ShardId, Offset> }>> {
    return this.#consumers.list(this.#get(stream));
  }

  recordsBetween(name: string, shardId: ShardId, from: Offset, to: Offset): number {
    const { tail, reader } = this.#get(name);
    return reader.recordsBetween(tail.history.indexOf(shardId), from, to);
  }

  /** Places are the cluster's sequence numbers: it gives none out twice. */
  leaveOut(): void {}

  #get(name: string): JetStreamStream {
    this.#refuseWhenClosed();
    const stream = this.#registry.find(name);
    if (stream === undefined) throw new StreamNotFoundError(name);
    return stream;
  }

  #refuseWhenClosed(): void {
    if (this.#closing !== undefined) throw new StreamsClosedError();
  }

  #nowMs(): number {
    return Math.floor(this.#options.clock.nowUs() / 1000);
  }

  claim(kind: string, name: string): () => void {
    return this.#claims.make(kind, name);
  }

  onClaim(kind: string, heard: (name: string) => void): void {
    this.#claims.hear(kind, heard);
  }

  hurry(): void {
    this.#link.hurry();
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  /** Hands the leases over, so that another gateway goes on at once. */
  async #close(): Promise<void> {
    // Without an answer of the cluster for so long, what waits fails instead of holding everybody up.
    const late = setTimeout(() => this.#link.abort(), CLOSE_WITHIN_MS);
    await this.#registry.close();
    await this.#consumers.close();
    await this.#registry.closeStreams();
    clearTimeout(late);
    await this.#link.close();
  }
}
