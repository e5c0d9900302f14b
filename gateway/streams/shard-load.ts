/** How busy the open shards of one stream are, measured by looking at them from time to time. */
import { futileSplits, type Load, type ShardLoad, utilisationOf } from "./on-demand-policy.ts";
import type { Offset, ShardDescription, ShardId } from "./streams.ts";

/** A shard is hot by its mean over this long. */
const RECENT_MS = 10_000;
/** It is cold when it was so for this long. */
const LONG_MS = 15 * 60_000;
const HIGH_MS = 60_000;
/** A shard whose highest utilisation is this low has no hot key any more. */
const FORGOTTEN_BELOW = 0.3;

interface Sample {
  readonly atMs: number;
  /** Since it was first looked at. */
  readonly records: number;
  readonly bytes: number;
}

interface Measured {
  readonly sinceMs: number;
  samples: Sample[];
  /** The highest utilisation of each of the last minutes. */
  highs: { readonly sinceMs: number; high: number }[];
  appendedRecords: number;
  appendedBytes: number | undefined;
  storedBytes: number;
  trimHorizon: Offset;
  futileSplits: number;
}

interface Split {
  readonly futileSplits: number;
  readonly children: readonly [ShardId, ShardId];
}

export class StreamLoad {
  readonly #shards = new Map<ShardId, Measured>();
  /** Those whose children are not measured yet. */
  #splits: Split[] = [];

  /** @param nowMs monotonic. @returns the open shards as they are now */
  measure(nowMs: number, shardList: readonly ShardDescription[]): ShardLoad[] {
    const open = shardList.filter((shard) => shard.closedMs === undefined);
    const known = new Set(open.map(({ shardId }) => shardId));
    this.#noteSplits(known, open);
    for (const shardId of this.#shards.keys()) if (!known.has(shardId)) this.#shards.delete(shardId);
    for (const shard of open) this.#look(shard, nowMs);
    this.#judgeSplits(nowMs);
    return open.map(({ shardId, hashFrom, hashTo }) => {
      const measured = this.#shards.get(shardId)!;
      const high = nowMs - measured.sinceMs < LONG_MS ? undefined : highest(measured);
      // What made the splits futile is over; in a mere pause of it they would begin again.
      if (high !== undefined && high < FORGOTTEN_BELOW) measured.futileSplits = 0;
      return {
        shardId,
        hashFrom,
        hashTo,
        recent: recentLoad(measured, nowMs),
        highest: high,
        futileSplits: measured.futileSplits,
      };
    });
  }

  #look(shard: ShardDescription, nowMs: number): void {
    const { shardId, appendedRecords, appendedBytes, storedBytes, trimHorizon } = shard;
    const before = this.#shards.get(shardId);
    if (before === undefined) {
      const samples = [{ atMs: nowMs, records: 0, bytes: 0 }];
      const seen = { appendedRecords, appendedBytes, storedBytes, trimHorizon };
      this.#shards.set(shardId, { sinceMs: nowMs, samples, highs: [], ...seen, futileSplits: 0 });
      return;
    }
    const last = before.samples.at(-1)!;
    const records = Math.max(0, appendedRecords - before.appendedRecords);
    const bytes =
      appendedBytes === undefined || before.appendedBytes === undefined
        ? grownBytes(before, shard, records)
        : Math.max(0, appendedBytes - before.appendedBytes);
    before.samples.push({ atMs: nowMs, records: last.records + records, bytes: last.bytes + bytes });
    // The oldest is as old as the window, or just older.
    while (before.samples.length > 2 && nowMs - before.samples[1]!.atMs >= RECENT_MS) before.samples.shift();
    Object.assign(before, { appendedRecords, appendedBytes, storedBytes, trimHorizon });
    this.#noteHigh(before, nowMs);
  }

  #noteHigh(shard: Measured, nowMs: number): void {
    const recent = recentLoad(shard, nowMs);
    if (recent === undefined) return;
    const utilisation = utilisationOf(recent);
    const newest = shard.highs.at(-1);
    if (newest === undefined || nowMs - newest.sinceMs >= HIGH_MS) {
      shard.highs.push({ sinceMs: nowMs, high: utilisation });
      shard.highs = shard.highs.filter(({ sinceMs }) => nowMs - sinceMs < LONG_MS + HIGH_MS);
    } else newest.high = Math.max(newest.high, utilisation);
  }

  /** By whomever a shard was split, its children know what led to it. */
  #noteSplits(known: ReadonlySet<ShardId>, open: readonly ShardDescription[]): void {
    const children = new Map<ShardId, ShardId[]>();
    for (const { shardId, parents } of open) {
      if (parents.length !== 1 || this.#shards.has(shardId)) continue;
      const siblings = children.get(parents[0]!) ?? [];
      siblings.push(shardId);
      children.set(parents[0]!, siblings);
    }
    for (const [parent, [one, other]] of children) {
      const measured = this.#shards.get(parent);
      if (measured === undefined || known.has(parent) || one === undefined || other === undefined) continue;
      this.#splits.push({ futileSplits: measured.futileSplits, children: [one, other] });
    }
  }

  #judgeSplits(nowMs: number): void {
    this.#splits = this.#splits.filter((split) => {
      const [one, other] = split.children.map((shardId) => this.#shards.get(shardId));
      if (one === undefined || other === undefined) return false;
      const loads = [recentLoad(one, nowMs), recentLoad(other, nowMs)] as const;
      if (loads[0] === undefined || loads[1] === undefined) return true;
      const found = futileSplits(split.futileSplits, loads[0], loads[1]);
      one.futileSplits = found.one;
      other.futileSplits = found.other;
      return false;
    });
  }
}

/** Where retention took something meanwhile, what came is put at the size of what was there. */
function grownBytes(before: Measured, shard: ShardDescription, records: number): number {
  const grown = shard.storedBytes - before.storedBytes;
  const mean = before.storedBytes / Math.max(1, before.appendedRecords - before.trimHorizon);
  return shard.trimHorizon === before.trimHorizon && grown >= 0 ? grown : records * mean;
}

/** Undefined until it was looked at for a whole window. */
function recentLoad(shard: Measured, nowMs: number): Load | undefined {
  if (nowMs - shard.sinceMs < RECENT_MS) return undefined;
  const first = shard.samples[0]!;
  const last = shard.samples.at(-1)!;
  const seconds = (last.atMs - first.atMs) / 1_000;
  if (seconds <= 0) return undefined;
  return {
    bytesPerSecond: (last.bytes - first.bytes) / seconds,
    recordsPerSecond: (last.records - first.records) / seconds,
  };
}

function highest(shard: Measured): number | undefined {
  if (shard.highs.length === 0) return undefined;
  return shard.highs.reduce((most, { high }) => Math.max(most, high), 0);
}
