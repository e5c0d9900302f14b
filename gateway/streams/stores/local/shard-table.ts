/**
 * The shards of one local stream: which there are, which are open, which came from which. It plans
 * what a split, a merge or an expiry changes, and applies it once that is on disk.
 */
import { equalRanges, ShardMap, type ShardRange } from "../../shard-map.ts";
import {
  BadReshardError,
  type Offset,
  type ReshardStep,
  type ShardDescription,
  type ShardId,
  ShardNotFoundError,
} from "../../streams.ts";
import { planReshard } from "../reshard-plan.ts";
import type { StreamLog } from "./log/stream-log.ts";
import type { ShardRecord } from "./metadata.ts";

const ID_PREFIX = "shardId-";

/** What a reshard or an expiry writes into the metadata, and then into the table. */
export interface ShardChange {
  readonly put: readonly ShardRecord[];
  readonly removed: readonly number[];
  /** Where records go then; as before unless given. */
  readonly routes?: ShardMap;
}

/** A live view: positions and sizes are those of the log when they are asked for. */
export class LocalShard implements ShardDescription {
  readonly record: ShardRecord;
  readonly hashFrom: bigint;
  readonly hashTo: bigint;
  readonly parents: readonly ShardId[];
  readonly #log: StreamLog;

  constructor(record: ShardRecord, log: StreamLog) {
    this.record = record;
    this.hashFrom = BigInt(`0x${record.hashFrom}`);
    this.hashTo = BigInt(`0x${record.hashTo}`);
    this.parents = (record.parents ?? []).map(shardIdOf);
    this.#log = log;
  }

  get shardId(): ShardId {
    return this.record.shardId;
  }

  get index(): number {
    return this.record.index;
  }

  get createdMs(): number {
    return this.record.createdMs;
  }

  get closedMs(): number | undefined {
    return this.isOpen ? undefined : this.closedAfter(this.#log.reader.newestMs(this.index));
  }

  /**
   * When it was closed. That is written down before the switch, and records may come to it meanwhile, or have come
   * while the clock was ahead: of those the log tells.
   * @param newestMs when the newest of its records on disk arrived; 0 when none is kept
   */
  closedAfter(newestMs: number): number | undefined {
    if (this.isOpen) return undefined;
    const waitingMs = this.#log.settled(this.index) ? 0 : this.#log.arrivalMs;
    return Math.max(this.record.closedMs!, newestMs, waitingMs);
  }

  get isOpen(): boolean {
    return this.record.closedMs === undefined;
  }

  get trimHorizon(): Offset {
    return this.#log.reader.horizon(this.index) ?? this.latest;
  }

  get latest(): Offset {
    return this.#log.next(this.index);
  }

  get storedBytes(): number {
    let bytes = 0;
    for (const segment of this.#log.segments) bytes += segment.shards.get(this.index)?.bytes ?? 0;
    return bytes;
  }

  get appendedRecords(): number {
    return this.latest;
  }

  /**
   * Where it ends; undefined while it is open, or while records that were appended before it was
   * closed still wait for the disk.
   */
  get end(): Offset | undefined {
    return !this.isOpen && this.#log.settled(this.index) ? this.latest : undefined;
  }
}

export class ShardTable {
  readonly #stream: string;
  readonly #log: StreamLog;
  /** Rising by index, so parents stand before their children. */
  readonly #byIndex = new Map<number, LocalShard>();
  readonly #byId = new Map<ShardId, LocalShard>();
  /** Of each shard that was split or merged: the indexes of those that took its place and have not expired. */
  readonly #children = new Map<ShardId, number[]>();
  #routes: ShardMap;
  /** The highest index: there is always an open shard behind those that expire. */
  #newest = -1;

  constructor(stream: string, log: StreamLog, records: readonly ShardRecord[]) {
    this.#stream = stream;
    this.#log = log;
    for (const record of records) this.#put(record);
    this.#routes = new ShardMap([...this.#byIndex.values()].filter(isOpen));
  }

  /** Where records go now. */
  get routes(): ShardMap {
    return this.#routes;
  }

  get openCount(): number {
    return this.#routes.size;
  }

  /** Rising by index. */
  all(): IterableIterator<LocalShard> {
    return this.#byIndex.values();
  }

  find(shardId: ShardId): LocalShard | undefined {
    return this.#byId.get(shardId);
  }

  /** What it was split or merged into, rising by index. */
  childrenOf(shardId: ShardId): LocalShard[] {
    return (this.#children.get(shardId) ?? []).map((index) => this.at(index));
  }

  /** Whether it was there once. */
  hasExpired(shardId: ShardId): boolean {
    const index = Number(shardId.slice(ID_PREFIX.length));
    return shardId === shardIdOf(index) && index < this.#newest && !this.#byIndex.has(index);
  }

  /** @throws ShardNotFoundError */
  get(shardId: ShardId): LocalShard {
    const shard = this.#byId.get(shardId);
    if (shard === undefined) throw new ShardNotFoundError(this.#stream, shardId);
    return shard;
  }

  /** @throws ShardNotFoundError */
  at(index: number): LocalShard {
    const shard = this.#byIndex.get(index);
    if (shard === undefined) throw new ShardNotFoundError(this.#stream, shardIdOf(index));
    return shard;
  }

  /** @throws ShardNotFoundError, BadReshardError */
  planSplit(shardId: ShardId, startingHash: bigint, nextShard: number, nowMs: number): ShardChange {
    const parent = this.#open(shardId);
    if (startingHash <= parent.hashFrom || startingHash > parent.hashTo) {
      throw this.#bad(`${startingHash} does not lie behind the first hash of ${shardId}, within its range`);
    }
    return this.planReshard([{ do: "split", at: startingHash }], nextShard, nowMs);
  }

  /** @throws ShardNotFoundError, BadReshardError */
  planMerge(shardId: ShardId, adjacentShardId: ShardId, nextShard: number, nowMs: number): ShardChange {
    const pair = [this.#open(shardId), this.#open(adjacentShardId)];
    const [low, high] = byRange(pair) as [LocalShard, LocalShard];
    if (low.hashTo + 1n !== high.hashFrom) {
      throw this.#bad(`the hash ranges of ${shardId} and ${adjacentShardId} do not touch`);
    }
    return this.planReshard([{ do: "merge", at: high.hashFrom }], nextShard, nowMs);
  }

  /** @throws BadReshardError */
  planReshard(steps: readonly ReshardStep[], nextShard: number, nowMs: number): ShardChange {
    const { made, closed, map } = planReshard(this.#stream, this.#routes, steps, nextShard);
    const put = new Map<number, ShardRecord>();
    for (const index of closed) if (index < nextShard) put.set(index, this.at(index).record);
    for (const { index, parents, ...range } of made) {
      const createdMs = createdAfter(
        parents.map((parent) => put.get(parent)!),
        nowMs,
      );
      put.set(index, shardRecord(index, range, createdMs, parents));
    }
    for (const index of closed) put.set(index, { ...put.get(index)!, closedMs: nowMs });
    return { put: [...put.values()], removed: [], routes: map };
  }

  /**
   * Closed before `cutoffMs`, or by a clock that was ahead, and nothing of them is kept; nor of those they
   * came from, which a consumer may have to read before their children, nor of those they were merged with:
   * without one of two that were merged, a list of the shards of an earlier moment would leave its hashes out.
   */
  planExpiry(cutoffMs: number, nowMs: number): ShardChange {
    const removed = new Set<number>();
    for (const { index, record, end } of this.#byIndex.values()) {
      const { closedMs } = record;
      if (closedMs === undefined || end === undefined) continue;
      if (closedMs >= cutoffMs && closedMs <= nowMs) continue;
      if (this.#log.reader.horizon(index) === undefined) removed.add(index);
    }
    if (removed.size === 0) return { put: [], removed: [] };
    // What stays lets its children stay, and whatever it was merged with.
    const staying = [...this.#byIndex.values()].filter(({ index }) => !removed.has(index));
    for (let shard = staying.pop(); shard !== undefined; shard = staying.pop()) {
      for (const { index, record } of this.childrenOf(shard.shardId)) {
        for (const relative of [index, ...(record.parents ?? [])]) {
          if (removed.delete(relative)) staying.push(this.at(relative));
        }
      }
    }
    return { put: [], removed: [...removed] };
  }

  /** One synchronous step: an append goes by the shards before it or by those behind it. */
  apply({ put, removed, routes = this.#routes }: ShardChange): void {
    for (const index of removed) this.#remove(this.at(index));
    for (const record of put) this.#put(record);
    this.#routes = routes;
  }

  #remove({ index, shardId, parents }: LocalShard): void {
    this.#byId.delete(shardId);
    this.#byIndex.delete(index);
    for (const parent of parents) {
      const others = this.#children.get(parent)!.filter((child) => child !== index);
      if (others.length > 0) this.#children.set(parent, others);
      else this.#children.delete(parent);
    }
  }

  #put(record: ShardRecord): LocalShard {
    const shard = new LocalShard(record, this.#log);
    if (!this.#byIndex.has(record.index)) {
      for (const parent of shard.parents) {
        this.#children.set(parent, [...(this.#children.get(parent) ?? []), record.index]);
      }
    }
    this.#byIndex.set(record.index, shard);
    this.#newest = Math.max(this.#newest, record.index);
    this.#byId.set(record.shardId, shard);
    return shard;
  }

  #open(shardId: ShardId): LocalShard {
    const shard = this.get(shardId);
    if (!isOpen(shard)) throw this.#bad(`${shardId} is closed`);
    return shard;
  }

  #bad(reason: string): BadReshardError {
    return new BadReshardError(this.#stream, reason);
  }
}

/** The shards of a new stream. */
export function firstShards(count: number, createdMs: number): ShardRecord[] {
  return equalRanges(count).map((range, index) => shardRecord(index, range, createdMs));
}

export function shardIdOf(index: number): ShardId {
  return `${ID_PREFIX}${String(index).padStart(12, "0")}`;
}

function shardRecord(
  index: number,
  { hashFrom, hashTo }: Omit<ShardRange, "index">,
  createdMs: number,
  parents?: readonly number[],
): ShardRecord {
  return {
    index,
    shardId: shardIdOf(index),
    hashFrom: hashFrom.toString(16),
    hashTo: hashTo.toString(16),
    createdMs,
    ...(parents !== undefined && { parents }),
  };
}

/**
 * A sequence number begins with the second in which its shard was made. In a later one than its
 * parents', a child's numbers are above theirs.
 */
function createdAfter(parents: readonly ShardRecord[], nowMs: number): number {
  const newestMs = Math.max(...parents.map(({ createdMs }) => createdMs));
  return Math.max(nowMs, (Math.floor(newestMs / 1000) + 1) * 1000);
}

function isOpen(shard: LocalShard): boolean {
  return shard.isOpen;
}

function byRange(shards: readonly LocalShard[]): LocalShard[] {
  return [...shards].sort((a, b) => (a.hashFrom < b.hashFrom ? -1 : 1));
}
