/**
 * The shards of one stream over time. Splits and merges are messages of the stream's own log, so
 * every gateway routes a message by the shards that were open at its place, whatever map its writer had.
 */
import type { HeadwaterError } from "../../../../../runtime/errors.ts";
import { type HashRange, MAX_HASH, ShardMap, type ShardRange } from "../../../shard-map.ts";
import { BadReshardError, type ReshardStep, ShardNotFoundError } from "../../../streams.ts";
import { planReshard } from "../../reshard-plan.ts";
import type { HashedRun } from "./entry.ts";

/** As it stands in JSON, in the map messages and in the metadata. */
export interface ShardRecord {
  readonly index: number;
  readonly shardId: string;
  /** Hex, inclusive. */
  readonly hashFrom: string;
  readonly hashTo: string;
  readonly createdMs: number;
  readonly parents: readonly string[];
  /** Sequence of the message that opened it, 0 for the first shards; it takes what comes behind. */
  readonly openedAt: number;
  /** Sequence of the message that closed it; it holds what came before. */
  readonly closedAt?: number;
  readonly closedMs?: number;
}

/** What a map message says: all shards after it. Its own sequence stands as -1. */
export interface MapContent {
  readonly version: number;
  readonly shards: readonly ShardRecord[];
}

export function mapIn({ payload }: { readonly payload: Uint8Array }): MapContent {
  return JSON.parse(Buffer.from(payload).toString()) as MapContent;
}

export class ShardHistory {
  readonly stream: string;
  #content: MapContent;
  #byId: ReadonlyMap<string, ShardRecord> = new Map();
  #byIndex: ReadonlyMap<number, ShardRecord> = new Map();
  #children: ReadonlyMap<string, readonly ShardRecord[]> = new Map();
  /** Sequence of the newest map message known; 0 when none is. */
  lastMapAt = 0;
  openShards = 0;
  /** By index. */
  #ranges: ReadonlyMap<number, ShardRange> = new Map();
  /** Rising by the place where each map begins. */
  #maps: Array<{ from: number; map: ShardMap }> = [];

  constructor(stream: string, content: MapContent) {
    this.stream = stream;
    this.#content = content;
    this.#rebuild();
  }

  get content(): MapContent {
    return this.#content;
  }

  get shards(): readonly ShardRecord[] {
    return this.#content.shards;
  }

  /** Sequence of the last message on the maps' subject, whether that map counts or not; 0 when none is kept. */
  mapSeen(sequence: number): void {
    this.lastMapAt = sequence;
  }

  /**
   * Takes a map over when it is newer than what is known.
   * @param arrivedMs no message before it arrived later; needless where it was taken over before, and settled
   */
  adopt(content: MapContent, sequence: number, arrivedMs = 0): boolean {
    this.lastMapAt = Math.max(this.lastMapAt, sequence);
    if (content.version <= this.#content.version) return false;
    this.#content = settle(content, sequence, arrivedMs);
    this.#rebuild();
    return true;
  }

  #rebuild(): void {
    this.#byId = new Map(this.shards.map((shard) => [shard.shardId, shard]));
    this.#byIndex = new Map(this.shards.map((shard) => [shard.index, shard]));
    this.#children = childrenIn(this.shards);
    this.openShards = this.shards.filter(({ closedAt }) => closedAt === undefined).length;
    const places = new Set<number>();
    for (const { openedAt, closedAt } of this.shards) {
      places.add(openedAt);
      if (closedAt !== undefined) places.add(closedAt);
    }
    // There may be a map for each shard, which has thousands of ranges: they are read and sorted once, and all maps share them.
    const ranged = this.shards.map((shard) => {
      const { index, openedAt, closedAt = Infinity } = shard;
      return { index, openedAt, closedAt, range: this.#ranges.get(index) ?? rangeOf(shard) };
    });
    this.#ranges = new Map(ranged.map(({ index, range }) => [index, range]));
    ranged.sort((a, b) => (a.range.hashFrom < b.range.hashFrom ? -1 : 1));
    // What was open at a place stays so: only what is new is looked at.
    const known = new Map(this.#maps.map((one) => [one.from, one]));
    this.#maps = [];
    for (const from of [...places].sort((a, b) => a - b)) {
      const same = known.get(from);
      if (same !== undefined) {
        this.#maps.push(same);
        continue;
      }
      const there = ranged.filter(({ openedAt, closedAt }) => openedAt <= from && closedAt > from);
      const open = there.map(({ range }) => range);
      // Shards that expired were forgotten; what lies before is not kept either.
      if (coversAll(open)) this.#maps.push({ from, map: new ShardMap(open, "joined") });
    }
  }

  /** The index of the shard that holds this run of the message at `sequence`. */
  shardOfRun(run: HashedRun, map: ShardMap): number {
    return run.hash === undefined ? map.shardOfKey(run.key) : map.shardOfHash(run.hash);
  }

  /** Those that were open at `sequence`. */
  mapAt(sequence: number): ShardMap {
    for (let i = this.#maps.length - 1; i >= 0; i--) {
      if (this.#maps[i]!.from < sequence) return this.#maps[i]!.map;
    }
    return this.#maps[0]!.map;
  }

  get current(): ShardMap {
    return this.#maps.at(-1)!.map;
  }

  has(shardId: string): boolean {
    return this.#byId.has(shardId);
  }

  at(index: number): ShardRecord | undefined {
    return this.#byIndex.get(index);
  }

  /** What it was split or merged into, rising by index. */
  childrenOf(shardId: string): readonly ShardRecord[] {
    return this.#children.get(shardId) ?? [];
  }

  /** Whether it was one of this stream's, and is forgotten. */
  hasForgotten(shardId: string): boolean {
    return indexIn(shardId) < this.#next && !this.#byId.has(shardId);
  }

  /** Of one that may be forgotten. @throws ShardNotFoundError when it was never one of this stream's */
  indexOf(shardId: string): number {
    return this.hasForgotten(shardId) ? indexIn(shardId) : this.shard(shardId).index;
  }

  /** The index of the next shard. The newest one is open, and so never forgotten. */
  get #next(): number {
    return this.shards.at(-1)!.index + 1;
  }

  /** @throws ShardNotFoundError */
  shard(shardId: string): ShardRecord {
    const shard = this.#byId.get(shardId);
    if (shard === undefined) throw new ShardNotFoundError(this.stream, shardId);
    return shard;
  }

  /**
   * @param isExpired those shards are forgotten with this
   * @throws ShardNotFoundError, BadReshardError
   */
  split(shardId: string, startingHash: bigint, nowMs: number, isExpired = keepAll): MapContent {
    const { hashFrom, hashTo } = rangeOf(this.#open(shardId));
    if (startingHash <= hashFrom || startingHash > hashTo) {
      throw this.#bad(`${startingHash} does not split ${shardId} (${hashFrom} to ${hashTo})`);
    }
    return this.reshard([{ do: "split", at: startingHash }], nowMs, isExpired);
  }

  /** As `split`. */
  merge(shardId: string, adjacentShardId: string, nowMs: number, isExpired = keepAll): MapContent {
    const parents = [this.#open(shardId), this.#open(adjacentShardId)];
    const [low, high] = parents.map(rangeOf).sort((a, b) => (a.hashFrom < b.hashFrom ? -1 : 1));
    if (low!.hashTo + 1n !== high!.hashFrom) {
      throw this.#bad(`the hash ranges of ${shardId} and ${adjacentShardId} do not touch`);
    }
    return this.reshard([{ do: "merge", at: high!.hashFrom }], nowMs, isExpired);
  }

  /** @throws BadReshardError */
  reshard(steps: readonly ReshardStep[], nowMs: number, isExpired = keepAll): MapContent {
    const { made, closed } = planReshard(this.stream, this.current, steps, this.#next);
    const shards = new Map<number, ShardRecord>();
    for (const shard of this.shards) if (!isExpired(shard)) shards.set(shard.index, shard);
    for (const { index, parents: indexes, ...range } of made) {
      const parents = indexes.map((parent) => shards.get(parent)!);
      // A second above its parents', as sequence numbers begin with it and must rise from them.
      const above = Math.max(...parents.map(({ createdMs }) => Math.floor(createdMs / 1000) * 1000 + 1000));
      const parentIds = parents.map(({ shardId }) => shardId);
      const record = shardRecord(index, range, Math.max(nowMs, above));
      shards.set(index, { ...record, parents: parentIds, openedAt: -1 });
    }
    for (const index of closed) shards.set(index, { ...shards.get(index)!, closedAt: -1, closedMs: nowMs });
    return { version: this.#content.version + 1, shards: [...shards.values()] };
  }

  #open(shardId: string): ShardRecord {
    const shard = this.shard(shardId);
    if (shard.closedAt !== undefined) throw this.#bad(`${shardId} is closed`);
    return shard;
  }

  #bad(reason: string): HeadwaterError {
    return new BadReshardError(this.stream, reason);
  }
}

function childrenIn(shards: readonly ShardRecord[]): Map<string, ShardRecord[]> {
  const children = new Map<string, ShardRecord[]>();
  for (const shard of shards) {
    for (const parent of shard.parents) {
      const known = children.get(parent);
      if (known === undefined) children.set(parent, [shard]);
      else known.push(shard);
    }
  }
  return children;
}

/** Infinity where it is no shard's id. */
function indexIn(shardId: string): number {
  return Number(/^shardId-(\d{12})$/.exec(shardId)?.[1] ?? Infinity);
}

const keepAll = (_: ShardRecord): boolean => false;

export function shardRecord(index: number, range: HashRange, createdMs: number): ShardRecord {
  return {
    index,
    shardId: `shardId-${String(index).padStart(12, "0")}`,
    hashFrom: range.hashFrom.toString(16),
    hashTo: range.hashTo.toString(16),
    createdMs,
    parents: [],
    openedAt: 0,
  };
}

export function rangeOf(shard: ShardRecord): ShardRange {
  const { index, hashFrom, hashTo } = shard;
  return { index, hashFrom: BigInt(`0x${hashFrom}`), hashTo: BigInt(`0x${hashTo}`) };
}

/** A writer cannot know the sequence of the message that it writes, nor what comes before it meanwhile or by a clock that is ahead. */
function settle(content: MapContent, sequence: number, arrivedMs: number): MapContent {
  const shards = content.shards.map((shard) => ({
    ...shard,
    openedAt: shard.openedAt === -1 ? sequence : shard.openedAt,
    ...(shard.closedAt === -1 && {
      closedAt: sequence,
      closedMs: Math.max(shard.closedMs ?? 0, arrivedMs),
    }),
  }));
  return { version: content.version, shards };
}

/** @param ranges rising */
function coversAll(ranges: readonly ShardRange[]): boolean {
  let next = 0n;
  for (const range of ranges) {
    if (range.hashFrom !== next) return false;
    next = range.hashTo + 1n;
  }
  return next === MAX_HASH + 1n;
}
