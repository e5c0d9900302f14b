/**
 * Which streams there are, and the tails of all of them. A stream is made and removed in steps,
 * each of which may be the last one of a gateway:
 *
 *   make    named as coming → JetStream stream → named as there
 *   remove  named as going → JetStream stream removed → its consumers' documents removed → unnamed
 *
 * What is coming or going for longer than anybody alive needs, any gateway brings to its end.
 */
import { randomBytes } from "node:crypto";
import { pause } from "../../../../../runtime/backoff.ts";
import type { Clock } from "../../../../../runtime/clock.ts";
import { describeError } from "../../../../../runtime/errors.ts";
import type { Log } from "../../../../../runtime/log.ts";
import { equalRanges } from "../../../shard-map.ts";
import {
  DEFAULT_MAX_RECORD_BYTES,
  LogFullError,
  type ReadersCheck,
  StreamExistsError,
  StreamNotFoundError,
  type StreamSpec,
  StreamsClosedError,
} from "../../../streams.ts";
import { OwnSeconds } from "../../own-seconds.ts";
import type { Documents } from "../cluster/documents.ts";
import type { Link } from "../cluster/link.ts";
import type { Silence } from "../cluster/silence.ts";
import { JetStreamStream } from "../log/jetstream-stream.ts";
import { type MapContent, type ShardHistory, shardRecord } from "../log/shard-history.ts";
import { CacheRoom } from "../log/tail-entry.ts";
import { removeOrphans } from "./orphans.ts";
import { Retention, retentionConfig } from "./retention.ts";
import { StreamList, type StreamRecord } from "./stream-list.ts";
import { UnfinishedStreams } from "./unfinished-streams.ts";

const REFRESH_MS = 1_000;
const SETTLE_MS = 30_000;
const LOOK_EVERY_MS = 50;
const MISSING_TOLD_EVERY_MS = 30_000;

export interface StreamRegistryOptions {
  readonly link: Link;
  readonly documents: Documents;
  readonly silence: Silence;
  readonly prefix: string;
  readonly replicas: number;
  readonly clock: Clock;
  readonly log: Log;
  /** Called before a stream that is gone is let go. */
  readonly gone: (stream: JetStreamStream) => Promise<void>;
}

export class StreamRegistry {
  readonly seconds: OwnSeconds;
  readonly list: StreamList;
  readonly retention: Retention;
  readonly #options: StreamRegistryOptions;
  readonly #room = new CacheRoom();
  readonly #streams = new Map<string, JetStreamStream>();
  /** By id, from before they are ready, so that no word of them is missed. */
  readonly #byId = new Map<string, JetStreamStream>();
  readonly #unfinished: UnfinishedStreams;
  /** By id: what is being opened. One that gets no answer holds up no other. */
  readonly #opening = new Map<string, Promise<void>>();
  /** Ids of those that the list names and the cluster does not have → when that was said last. */
  readonly #missing = new Map<string, number>();
  /** Ids of those whose shard maps are being kept. */
  readonly #keeping = new Set<string>();
  #timer: NodeJS.Timeout | undefined;
  #ticking = false;
  #syncing: Promise<void> = Promise.resolve();
  /** Waits for its turn. */
  #nextSync: Promise<void> | undefined;
  #closed = false;

  constructor(options: StreamRegistryOptions) {
    this.#options = options;
    this.seconds = new OwnSeconds(options.clock);
    this.list = new StreamList(options.documents, this.seconds);
    this.retention = new Retention({ ...options, replicate: (stream) => this.#replicate(stream) });
    this.#unfinished = new UnfinishedStreams({
      ...options,
      make: (record) => this.#makeAnothers(record),
      remove: (streamId) => this.#remove(streamId),
    });
  }

  async start(): Promise<void> {
    const { link, prefix } = this.#options;
    // Nothing is fetched from then on: who waits for a message hears so, and the next try, which no pause puts off any more, is not made.
    const end = (): void => {
      for (const { tail } of this.#byId.values()) tail.close(new StreamsClosedError());
    };
    link.signal.addEventListener("abort", end, { once: true });
    // Before anything is asked, so that what happens meanwhile is heard.
    link.hear(`${prefix}.n.>`, (subject, text) => this.#heard(subject.slice(prefix.length + 3), text));
    await removeOrphans({ ...this.#options, list: this.list });
    await this.sync();
    await Promise.all(this.#opening.values());
    this.#replicate(this.#options.documents.stream);
    this.#timer = setInterval(() => this.#tick(), REFRESH_MS);
    this.#timer.unref();
  }

  get streams(): ReadonlyMap<string, JetStreamStream> {
    return this.#streams;
  }

  /** Undefined also where the list of streams says already that it is gone, or that another one has its name. */
  find(name: string): JetStreamStream | undefined {
    const stream = this.#streams.get(name);
    return this.list.records[name]?.streamId === stream?.streamId ? stream : undefined;
  }

  #heard(token: string, text: string): void {
    if (token === "streams") this.#inBackground(this.sync(), "asking what streams there are failed");
    else this.#byId.get(token)?.tail.hear(text);
  }

  #tick(): void {
    this.#options.silence.look();
    // Where the cluster does not answer, questions must not pile up.
    if (this.#ticking) return;
    this.#ticking = true;
    const synced = this.sync().finally(() => {
      this.#ticking = false;
    });
    this.#inBackground(synced, "asking what streams there are failed");
    for (const [name, stream] of this.#streams) {
      const record = this.list.records[name];
      if (record?.streamId !== stream.streamId) continue;
      this.retention.look(stream, record.retentionHours);
      const renewed = stream.renewProducers(record.retentionHours * 3_600_000);
      this.#inBackground(renewed, "a stream's producers were not renewed");
    }
  }

  #inBackground(work: Promise<unknown>, failed: string): void {
    work.catch((error: unknown) => {
      if (!this.#closed) this.#options.log.error({ error: describeError(error) }, failed);
    });
  }

  tellAll(): void {
    this.#options.link.tell(`${this.#options.prefix}.n.streams`, "");
  }

  /** Looks what streams there are. One after the other; who asks while another waits for its turn shares that. */
  sync(): Promise<void> {
    this.#nextSync ??= this.#syncing
      .catch(() => undefined)
      .then(() => {
        this.#nextSync = undefined;
        return this.#follow();
      });
    this.#syncing = this.#nextSync;
    return this.#nextSync;
  }

  async #follow(): Promise<void> {
    if (this.#closed) return;
    await this.list.refresh();
    this.#options.silence.answered();
    this.#unfinished.look(this.list.coming, this.list.going);
    const { records } = this.list;
    for (const [name, stream] of this.#streams) {
      // One of which the cluster lost messages is followed anew, from what is left.
      if (records[name]?.streamId === stream.streamId && !stream.tail.isLost) continue;
      this.#streams.delete(name);
      this.#byId.delete(stream.streamId);
      // The list may not have had its last split yet.
      this.seconds.streamGone(name, stream.tail.history.shards, []);
      // Ended first: a consumer that is being opened meanwhile sees by that that it is late, whatever holds the others up.
      const ended = stream.end();
      await this.#options.gone(stream);
      await ended;
    }
    for (const record of Object.values(records)) {
      const known = this.#streams.get(record.name);
      if (known !== undefined) this.#compareMaps(record, known.tail.history);
      else if (!this.#byId.has(record.streamId)) this.#begin(record);
    }
  }

  /**
   * Any gateway that knows of a newer map than the list keeps it there, so that this does not hang on the one that made it,
   * nor on a moment when nothing could be written: retention takes the log's own.
   */
  #compareMaps({ name, streamId, map }: StreamRecord, history: ShardHistory): void {
    history.adopt(map, 0);
    if (history.content.version <= map.version || this.#keeping.has(streamId)) return;
    this.#keeping.add(streamId);
    const kept = this.keepMap(name, streamId, history.content).finally(() => this.#keeping.delete(streamId));
    this.#inBackground(kept, "a shard map was not kept yet");
  }

  /** Follows a stream as soon as it is ready. One whose nodes give no answer is tried again and again. */
  #begin(record: StreamRecord): void {
    const { streamId } = record;
    const stream = this.#open(record);
    this.#byId.set(streamId, stream);
    const opened = this.#start(record, stream).finally(() => this.#opening.delete(streamId));
    this.#opening.set(streamId, opened);
  }

  /** Never rejects. */
  async #start({ name, streamId }: StreamRecord, stream: JetStreamStream): Promise<void> {
    try {
      await stream.start();
      this.#missing.delete(streamId);
      if (!this.#closed && this.list.records[name]?.streamId === streamId) {
        this.#streams.set(name, stream);
        this.#replicate(this.#streamOf(streamId));
        return;
      }
    } catch (error) {
      if (error instanceof StreamNotFoundError) this.#tellMissing(name, streamId);
      else if (!this.#closed) {
        this.#options.log.error({ name, error: describeError(error) }, "a stream was not opened yet");
      }
    }
    this.#byId.delete(streamId);
    await stream.end();
  }

  /** Another gateway deletes it just now, or made it and its leader is not chosen yet; or it was taken away by hand. */
  #tellMissing(name: string, streamId: string): void {
    const nowMs = this.#options.clock.monotonicMs();
    const sinceMs = this.#missing.get(streamId);
    if (sinceMs !== undefined && nowMs - sinceMs < MISSING_TOLD_EVERY_MS) return;
    this.#missing.set(streamId, nowMs);
    if (sinceMs === undefined) return;
    const stream = this.#streamOf(streamId);
    const hint = "restore it, or delete the stream";
    this.#options.log.error({ name, stream }, `the JetStream stream of a stream is not there; ${hint}`);
  }

  #open(record: StreamRecord): JetStreamStream {
    const { link, clock, log, prefix } = this.#options;
    const { name, streamId, map } = record;
    return new JetStreamStream({
      link,
      clock,
      log,
      name,
      streamId,
      map,
      room: this.#room,
      stream: this.#streamOf(streamId),
      subject: `${prefix}.d.${streamId}`,
      tellSubject: `${prefix}.n.${streamId}`,
    });
  }

  async keepMap(name: string, streamId: string, map: MapContent): Promise<void> {
    await this.list.updateStream(name, streamId, (record) =>
      record.map.version < map.version ? { ...record, map } : record,
    );
  }

  /** The config may name more replicas than it did when a stream was made. */
  #replicate(stream: string): void {
    const { link, replicas, log } = this.#options;
    if (replicas === 1) return;
    const replicated = link.streams.replicate(stream, replicas).then((isNew) => {
      if (isNew) log.info({ stream, replicas }, "kept on more nodes from now on, as the config says");
    });
    this.#inBackground(replicated, "a stream is kept on fewer nodes than the config says");
  }

  #streamOf(streamId: string): string {
    return `${this.#options.prefix}-${streamId}`;
  }

  /** Resolves when the stream is there and followed. @throws StreamExistsError */
  async make(spec: StreamSpec): Promise<void> {
    const streamId = randomBytes(16).toString("hex");
    let record: StreamRecord;
    try {
      record = await this.list.announce(spec.name, streamId, () => this.#newRecord(spec, streamId));
    } catch (error) {
      // Who hears that it exists can use it.
      if (error instanceof StreamExistsError) await this.#settled(spec.name);
      throw error;
    }
    try {
      await this.#makeJetStream(record);
    } catch (error) {
      // Another gateway brings to its end what takes long: by now it may hold records.
      if (await this.list.giveUp(record)) await this.#remove(record.streamId);
      throw error;
    }
    await this.#arrived(record);
    await this.#settled(spec.name);
    this.tellAll();
  }

  async #makeJetStream(record: StreamRecord): Promise<void> {
    await this.#options.link.streams.make({
      name: this.#streamOf(record.streamId),
      subjects: [`${this.#options.prefix}.d.${record.streamId}.>`],
      num_replicas: this.#options.replicas,
      ...retentionConfig(record.retentionHours),
      allow_direct: true,
    });
  }

  #newRecord(spec: StreamSpec, streamId: string): StreamRecord {
    const createdMs = this.seconds.dateStream(spec.name);
    return {
      name: spec.name,
      streamId,
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

  /** Resolves when a stream of this name is followed, or none is there or coming. */
  async #settled(name: string): Promise<void> {
    const { clock, link } = this.#options;
    const untilMs = clock.monotonicMs() + SETTLE_MS;
    for (;;) {
      await this.sync();
      await this.#opening.get(this.list.records[name]?.streamId ?? "");
      if (this.#streams.has(name) || !this.list.has(name)) return;
      if (this.#closed) throw new StreamsClosedError();
      if (clock.monotonicMs() > untilMs) throw new StreamNotFoundError(name);
      await pause(LOOK_EVERY_MS, link.signal);
    }
  }

  async delete(name: string, streamId: string, check?: ReadersCheck): Promise<void> {
    await this.list.depart(name, streamId, check).catch(async (error: unknown) => {
      if (!(error instanceof LogFullError)) throw error;
      // Nor is there room for saying that it is gone. What it holds is what nobody wants any more: `check` was asked before.
      const { prefix, link } = this.#options;
      await link.streams.purge(this.#streamOf(streamId), `${prefix}.d.${streamId}.>`);
      await this.list.depart(name, streamId);
    });
    await this.sync();
    this.tellAll();
    await this.#remove(streamId);
  }

  async #remove(streamId: string): Promise<void> {
    await this.#options.link.streams.remove(this.#streamOf(streamId));
    await this.#options.documents.drop(`c.${streamId}`);
    await this.list.departed(streamId);
  }

  async #makeAnothers(record: StreamRecord): Promise<void> {
    await this.#makeJetStream(record);
    await this.#arrived(record);
  }

  async #arrived(record: StreamRecord): Promise<void> {
    const wanted = await this.list.arrived(record);
    // It was deleted meanwhile: what was made here is an orphan.
    if (!wanted) await this.#options.link.streams.remove(this.#streamOf(record.streamId));
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearInterval(this.#timer);
    await this.#syncing.catch(() => undefined);
    await Promise.all([...this.#opening.values(), this.#unfinished.close(), this.retention.close()]);
  }

  async closeStreams(): Promise<void> {
    await Promise.all([...this.#streams.values()].map((stream) => stream.close()));
  }
}
