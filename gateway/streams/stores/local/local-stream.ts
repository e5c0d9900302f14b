/** One open stream of the local store: what is appended, what is read, and what it is. */
import type { Epoch, Frame } from "../../../../protocol/frame.ts";
import type { Clock } from "../../../../runtime/clock.ts";
import {
  type AppendOutcome,
  type Offset,
  type Placed,
  type PlacedColumns,
  type PlainPublish,
  type PublishColumns,
  type PutColumns,
  type PutEntry,
  type ReadResult,
  type ReshardStep,
  type ShardId,
  type StartingPoint,
  type StreamDescription,
  StreamNotFoundError,
} from "../../streams.ts";
import { ENTRY_KIND, IDENTITY_BYTES, type Producer, type RoutedPart } from "../log-entry.ts";
import { publishIdentity } from "../publish-identity.ts";
import { routeEntries, routeFrame, routePublish, shortClientId } from "../routing.ts";
import { LocalConsumers } from "./local-consumers.ts";
import type { LogMeters } from "./log/log-meters.ts";
import type { StreamLog } from "./log/stream-log.ts";
import type { Metadata } from "./metadata.ts";
import { appendPublishes } from "./publish-entries.ts";
import { routeColumns } from "./route-columns.ts";
import type { LocalShard } from "./shard-table.ts";
import type { StreamDefinition } from "./stream-definition.ts";

/** An entry that forgets a client names no publish. */
const NO_IDENTITY = "\0".repeat(IDENTITY_BYTES);
const NEVER = new AbortController().signal;

export class LocalStream {
  readonly definition: StreamDefinition;
  readonly log: StreamLog;
  readonly consumers: LocalConsumers;
  readonly #meters: LogMeters;
  readonly #clock: Clock;
  #closed = false;

  constructor(
    definition: StreamDefinition,
    log: StreamLog,
    metadata: Metadata,
    meters: LogMeters,
    clock: Clock,
  ) {
    this.definition = definition;
    this.log = log;
    this.consumers = new LocalConsumers(definition.record, definition.shards, metadata);
    this.#meters = meters;
    this.#clock = clock;
  }

  get name(): string {
    return this.definition.record.name;
  }

  /** Two passes: over the segments and over the shards, however many there are of either. */
  describe(): StreamDescription {
    const kept = new Map<number, { horizon: Offset; bytes: number; newestMs: number }>();
    for (const segment of this.log.segments) {
      for (const [index, { first, bytes, newestMs }] of segment.shards) {
        const known = kept.get(index);
        if (known === undefined) kept.set(index, { horizon: first, bytes, newestMs });
        else {
          known.bytes += bytes;
          known.newestMs = newestMs;
        }
      }
    }
    const shardList = Array.from(this.definition.shards.all(), (shard) => {
      const { shardId, index, hashFrom, hashTo, createdMs, parents, latest } = shard;
      const { horizon = latest, bytes = 0, newestMs = 0 } = kept.get(index) ?? {};
      return {
        shardId,
        index,
        hashFrom,
        hashTo,
        createdMs,
        parents,
        closedMs: shard.closedAfter(newestMs),
        trimHorizon: horizon,
        latest,
        storedBytes: bytes,
        appendedRecords: latest,
      };
    });
    const { producers, damagedBytes, refusing } = this.log;
    return { ...this.definition.settings, shardList, producers: producers.size, damagedBytes, refusing };
  }

  /** Appends that come in before the switch go to the parent, as do those that wait for the disk. */
  async splitShard(shardId: ShardId, startingHash: bigint): Promise<void> {
    this.#ending(await this.definition.split(shardId, startingHash, this.#nowMs()));
  }

  async mergeShards(shardId: ShardId, adjacentShardId: ShardId): Promise<void> {
    this.#ending(await this.definition.merge(shardId, adjacentShardId, this.#nowMs()));
  }

  async reshard(steps: readonly ReshardStep[]): Promise<void> {
    this.#ending(await this.definition.reshard(steps, this.#nowMs()));
  }

  /**
   * Readers and consumers hear of the end of a shard once nothing of it waits for the disk. Consumers of all at once, as
   * each looks at all shards then.
   */
  #ending(closed: readonly number[]): void {
    for (const index of closed) this.log.wake(index);
    const ended = closed.map((index) =>
      this.log.appended(index, Number.POSITIVE_INFINITY, NEVER, () => this.log.settled(index)),
    );
    void Promise.all(ended).then(() => this.consumers.refresh());
  }

  /** Shards that were closed before `cutoffMs` and are empty. */
  async expireShards(cutoffMs: number, nowMs: number): Promise<void> {
    if (await this.definition.expire(cutoffMs, nowMs)) this.consumers.refresh();
  }

  append(entries: readonly PutEntry[]): Promise<Placed[]> {
    return new Promise((resolve, reject) => {
      if (entries.length === 0) return resolve([]);
      const { parts, places } = routeEntries(entries, this.definition.shards.routes, this.#clock.nowUs());
      let placed: Placed[] = [];
      const waiter = { done: () => resolve(placed), failed: reject };
      const stored = this.log.append(ENTRY_KIND.records, undefined, parts, waiter);
      const { arrivalMs } = stored;
      placed = places.map(({ part, index }) => {
        const { shard, first } = stored.parts[part]!;
        return { shardId: this.definition.shards.at(shard).shardId, offset: first + index, arrivalMs };
      });
    });
  }

  appendColumns(columns: PutColumns): Promise<PlacedColumns> {
    return new Promise((resolve, reject) => {
      const { count } = columns;
      const shards = new Uint32Array(count);
      const offsets = new Float64Array(count);
      if (count === 0) return resolve({ arrivalMs: this.#nowMs(), shards, offsets });
      const routes = this.definition.shards.routes;
      const { parts, partOf, indexIn } = routeColumns(columns, routes, this.#clock.nowUs());
      let arrivalMs = 0;
      const waiter = { done: () => resolve({ arrivalMs, shards, offsets }), failed: reject };
      const stored = this.log.append(ENTRY_KIND.records, undefined, parts, waiter);
      arrivalMs = stored.arrivalMs;
      for (let i = 0; i < count; i++) {
        const { shard, first } = stored.parts[partOf[i]!]!;
        shards[i] = shard;
        offsets[i] = first + indexIn[i]!;
      }
    });
  }

  appendFrame(frame: Frame): Promise<AppendOutcome> {
    const { device, epoch, epochStart, sequence } = frame;
    const verdict = this.log.producers.judgeFrame(device, epoch, sequence);
    if (verdict !== "new") return this.#repeated(verdict === "duplicate-of-waiting");
    const producer: Producer = { kind: "frame", device, epoch, epochStart, sequence };
    return this.#store(producer, routeFrame(frame, this.definition.shards.routes));
  }

  appendPublish(publish: PlainPublish): Promise<AppendOutcome> {
    const routed = [routePublish(publish, this.definition.shards.routes)];
    if (publish.packetId === 0) return this.#store(undefined, routed);
    const clientId = shortClientId(publish.clientId);
    const identity = publishIdentity(publish);
    if (publish.mayRepeat) {
      const verdict = this.log.producers.judgePublish(clientId, identity);
      if (verdict !== "new") return this.#repeated(verdict === "duplicate-of-waiting");
    }
    return this.#store({ kind: "publish", clientId, identity }, routed);
  }

  appendPublishes(publishes: PublishColumns): Promise<readonly AppendOutcome[]> {
    return appendPublishes(publishes, this.log, this.definition.shards.routes, (count) =>
      this.#meters.duplicates.inc({ stream: this.name }, count),
    );
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
    this.#meters.duplicates.inc({ stream: this.name });
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
    const shard = this.definition.shards.get(shardId);
    if (start.at === "latest") return shard.latest;
    if (start.at === "trim-horizon") return shard.trimHorizon;
    if (start.at === "offset") return start.offset;
    return this.log.reader.offsetAtTime(shard.index, start.arrivalMs, shard.latest);
  }

  async read(shardId: ShardId, from: Offset, maxBytes: number): Promise<ReadResult> {
    const shard = this.definition.shards.get(shardId);
    const { latest, trimHorizon } = shard;
    const at = Math.max(from, trimHorizon);
    if (at >= latest)
      return { parts: [], next: at, behindMs: 0, trimmed: at - from, ended: hasEnded(shard, at) };
    let found: Awaited<ReturnType<StreamLog["reader"]["read"]>>;
    try {
      found = await this.log.reader.read(shard.index, at, latest, maxBytes);
    } catch (error) {
      // The stream was deleted under the reader.
      if (this.#closed) throw new StreamNotFoundError(this.name);
      throw error;
    }
    const { parts, next, release } = found;
    const nowMs = this.#nowMs();
    const behindMs = next >= shard.latest ? 0 : Math.max(1, nowMs - (parts.at(-1)?.arrivalMs ?? nowMs));
    // Retention may have taken during the read what it was to begin with.
    const begin = Math.max(at, Math.min(parts[0]?.first ?? next, shard.trimHorizon));
    // Asked for anew: it may have been closed during the read.
    const ended = hasEnded(this.definition.shards.find(shardId), next);
    return { parts, next, behindMs, trimmed: begin - from, ended, release };
  }

  /** Also resolves when the shard has its end, or has expired. */
  appended(shardId: ShardId, from: Offset, signal: AbortSignal): Promise<void> {
    const { shards } = this.definition;
    const ended = (): boolean => {
      const shard = shards.find(shardId);
      return shard === undefined || shard.end !== undefined;
    };
    return this.log.appended(shards.get(shardId).index, from, signal, ended);
  }

  /** Takes the leases back, then closes the log. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.definition.close();
    await this.consumers.close();
    await this.log.close();
  }

  #nowMs(): number {
    return Math.floor(this.#clock.nowUs() / 1000);
  }
}

/** An expired shard has ended, too. */
function hasEnded(shard: LocalShard | undefined, next: Offset): boolean {
  if (shard === undefined) return true;
  return shard.end !== undefined && next >= shard.end;
}
