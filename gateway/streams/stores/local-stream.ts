/** One open stream of the local store: its log, its shards, its consumers. */
import type { Epoch, Frame } from "../../../protocol/frame.ts";
import type { Clock } from "../../../runtime/clock.ts";
import { ShardMap } from "../shard-map.ts";
import {
  type AppendOutcome,
  type Consumer,
  type Offset,
  type Placed,
  type PlainPublish,
  type PutEntry,
  type ReadResult,
  type ShardDescription,
  type ShardId,
  ShardNotFoundError,
  type StartingPoint,
  type StreamDescription,
  StreamNotFoundError,
} from "../streams.ts";
import { LogConsumer } from "./log-consumer.ts";
import { ENTRY_KIND, IDENTITY_BYTES, type Producer } from "./log-entry.ts";
import type { LogMeters } from "./log-meters.ts";
import type { ShardRecord, StreamRecord } from "./metadata.ts";
import { publishIdentity, routeEntries, routeFrame, routePublish, shortClientId } from "./routing.ts";
import type { RoutedPart, StreamLog } from "./stream-log.ts";

/** An entry that forgets a client names no publish. */
const NO_IDENTITY = "\0".repeat(IDENTITY_BYTES);

export class LocalStream {
  readonly record: StreamRecord;
  readonly log: StreamLog;
  /** undefined while one is being opened. */
  readonly consumers = new Map<string, LogConsumer | undefined>();
  readonly #shards: ShardMap;
  readonly #indexes: ReadonlyMap<ShardId, number>;
  readonly #meters: LogMeters;
  readonly #clock: Clock;
  #closed = false;

  constructor(record: StreamRecord, log: StreamLog, meters: LogMeters, clock: Clock) {
    this.record = record;
    this.log = log;
    this.#meters = meters;
    this.#clock = clock;
    this.#shards = new ShardMap(record.shards.map((shard) => ({ index: shard.index, ...hashRange(shard) })));
    this.#indexes = new Map(record.shards.map(({ shardId, index }) => [shardId, index]));
  }

  /** @throws ShardNotFoundError */
  shardIndex(shardId: ShardId): number {
    const index = this.#indexes.get(shardId);
    if (index === undefined) throw new ShardNotFoundError(this.record.name, shardId);
    return index;
  }

  describe(): StreamDescription {
    const { name, streamId, createdMs, retentionHours, shards } = this.record;
    const shardList = shards.map((shard) => this.#describeShard(shard));
    const producers = this.log.producers.size;
    return { name, shards: shards.length, retentionHours, createdMs, streamId, shardList, producers };
  }

  #describeShard(shard: ShardRecord): ShardDescription {
    const { index, shardId, createdMs } = shard;
    let storedBytes = 0;
    for (const segment of this.log.segments) storedBytes += segment.shards.get(index)?.bytes ?? 0;
    return {
      shardId,
      index,
      createdMs,
      ...hashRange(shard),
      trimHorizon: this.#trimHorizon(index),
      latest: this.log.next(index),
      storedBytes,
      appendedRecords: this.log.next(index),
    };
  }

  append(entries: readonly PutEntry[]): Promise<Placed[]> {
    return new Promise((resolve, reject) => {
      if (entries.length === 0) return resolve([]);
      const { parts, places } = routeEntries(entries, this.#shards, this.#clock.nowUs());
      let placed: Placed[] = [];
      const waiter = { done: () => resolve(placed), failed: reject };
      const stored = this.log.append(ENTRY_KIND.records, undefined, parts, waiter);
      const { arrivalMs } = stored;
      placed = places.map(({ part, index }) => {
        const { shard, first } = stored.parts[part]!;
        return { shardId: this.record.shards[shard]!.shardId, offset: first + index, arrivalMs };
      });
    });
  }

  appendFrame(frame: Frame): Promise<AppendOutcome> {
    const { device, epoch, epochStart, sequence } = frame;
    const verdict = this.log.producers.judgeFrame(device, epoch, sequence);
    if (verdict !== "new") return this.#repeated(verdict === "duplicate-of-waiting");
    const producer: Producer = { kind: "frame", device, epoch, epochStart, sequence };
    return this.#store(producer, routeFrame(frame, this.#shards));
  }

  appendPublish(publish: PlainPublish): Promise<AppendOutcome> {
    const routed = [routePublish(publish, this.#shards)];
    if (publish.packetId === 0) return this.#store(undefined, routed);
    const clientId = shortClientId(publish.clientId);
    const identity = publishIdentity(publish);
    if (publish.mayRepeat) {
      const verdict = this.log.producers.judgePublish(clientId, identity);
      if (verdict !== "new") return this.#repeated(verdict === "duplicate-of-waiting");
    }
    return this.#store({ kind: "publish", clientId, identity }, routed);
  }

  recognises(publish: Omit<PlainPublish, "mayRepeat">): boolean {
    const clientId = shortClientId(publish.clientId);
    return this.log.producers.judgePublish(clientId, publishIdentity(publish)) !== "new";
  }

  remembersPacket(clientId: string, packetId: number): boolean {
    return this.log.producers.remembersPacket(shortClientId(clientId), packetId);
  }

  /** Also what still waits for the disk is forgotten: at once, and in the log, which keeps the order of calls. */
  forgetClient(clientId: string): Promise<void> {
    const known = shortClientId(clientId);
    if (!this.log.producers.knowsClient(known)) return Promise.resolve();
    this.log.producers.endSession(known);
    return this.#forget({ kind: "publish", clientId: known, identity: NO_IDENTITY });
  }

  #store(producer: Producer | undefined, parts: readonly RoutedPart[]): Promise<AppendOutcome> {
    return new Promise((resolve, reject) => {
      this.log.append(ENTRY_KIND.records, producer, parts, { done: () => resolve("stored"), failed: reject });
    });
  }

  /** What still waits for the disk is not acknowledged before it is there. */
  #repeated(waits: boolean): Promise<AppendOutcome> {
    this.#meters.duplicates.inc({ stream: this.record.name });
    if (!waits) return Promise.resolve("duplicate");
    return new Promise((resolve, reject) => {
      this.log.barrier({ done: () => resolve("duplicate"), failed: reject });
    });
  }

  forgetEpoch(device: string, epoch: Epoch): Promise<void> {
    if (!this.log.producers.knowsEpoch(device, epoch)) return Promise.resolve();
    const producer: Producer = { kind: "frame", device, epoch, epochStart: 0, sequence: 0n };
    return this.#forget(producer);
  }

  #forget(producer: Producer): Promise<void> {
    return new Promise((resolve, reject) => {
      this.log.append(ENTRY_KIND.forget, producer, [], { done: resolve, failed: reject });
    });
  }

  async position(shardId: ShardId, start: StartingPoint): Promise<Offset> {
    const shard = this.shardIndex(shardId);
    const latest = this.log.next(shard);
    if (start.at === "latest") return latest;
    if (start.at === "trim-horizon") return this.#trimHorizon(shard);
    if (start.at === "offset") return start.offset;
    return this.log.reader.offsetAtTime(shard, start.arrivalMs, latest);
  }

  async read(shardId: ShardId, from: Offset, maxBytes: number): Promise<ReadResult> {
    const shard = this.shardIndex(shardId);
    const latest = this.log.next(shard);
    const horizon = this.#trimHorizon(shard);
    const trimmed = Math.max(0, horizon - from);
    const at = Math.max(from, horizon);
    if (at >= latest) return { parts: [], next: at, behindMs: 0, trimmed };
    let found: Awaited<ReturnType<StreamLog["reader"]["read"]>>;
    try {
      found = await this.log.reader.read(shard, at, latest, maxBytes);
    } catch (error) {
      // The stream was deleted under the reader.
      if (this.#closed) throw new StreamNotFoundError(this.record.name);
      throw error;
    }
    const { parts, next } = found;
    const arrivalMs = parts.at(-1)?.arrivalMs;
    const nowMs = this.#clock.nowUs() / 1000;
    const behindMs =
      next >= this.log.next(shard) || arrivalMs === undefined
        ? 0
        : Math.max(0, Math.floor(nowMs - arrivalMs));
    return { parts, next, behindMs, trimmed };
  }

  openConsumer(
    name: string,
    positions: ReadonlyMap<ShardId, Offset>,
    save: (positions: ReadonlyMap<ShardId, Offset>) => Promise<void>,
    release: () => Promise<void>,
  ): Consumer {
    if (this.#closed) throw new StreamNotFoundError(this.record.name);
    const host = {
      stream: this.record.name,
      shards: this.record.shards.map(({ shardId }) => shardId),
      trimHorizon: (shardId: ShardId) => this.#trimHorizon(this.shardIndex(shardId)),
      latest: (shardId: ShardId) => this.log.next(this.shardIndex(shardId)),
      save,
      release,
    };
    const consumer = new LogConsumer(name, host, positions);
    this.consumers.set(name, consumer);
    return consumer;
  }

  #trimHorizon(shard: number): Offset {
    return this.log.reader.horizon(shard) ?? this.log.next(shard);
  }

  /** Takes the leases back, then closes the log. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const consumer of this.consumers.values()) await consumer?.lose();
    await this.log.close();
  }
}

function hashRange(shard: ShardRecord): { hashFrom: bigint; hashTo: bigint } {
  return { hashFrom: BigInt(`0x${shard.hashFrom}`), hashTo: BigInt(`0x${shard.hashTo}`) };
}
