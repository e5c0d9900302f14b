/**
 * The newest readings of each sensor, for people who look. An index is made of a stream's tail when
 * somebody first asks, follows the stream while somebody does, and is dropped soon after. Nobody
 * looking costs nothing; a stream that is faster than the index is skipped through, never queued.
 *
 *   stream ─read from (newest − 1 h)→ JSON → numeric fields → key → last rows ─→ history, live
 */
import { pause } from "../../../runtime/backoff.ts";
import type { Clock } from "../../../runtime/clock.ts";
import {
  forEachUserRecord,
  type LogPart,
  type Offset,
  recordsBetween,
  type ShardId,
  StreamNotFoundError,
  type Streams,
} from "../../streams/streams.ts";
import { type Reading, readingOf } from "./reading.ts";
import { SensorRows, type SensorSummary } from "./sensor-rows.ts";

const HISTORY_MS = 3_600_000;
/** How far behind its newest record a stream is read at most. */
const MAX_TAIL_RECORDS = 100_000;
/** And how much of it is read at once, before what is nearer to the newest is read instead; of that half, and so on. */
const MAX_TAIL_BYTES = 64 * 1_048_576;
const READ_BYTES = 262_144;
const IDLE_MS = 60_000;
/** Records that come close together are read together. */
const GATHER_MS = 40;

/** In order of time. */
export interface RecentRows {
  readonly rows: readonly Reading[];
  /** Of those before it some may be missing: too much came to be read or kept. */
  readonly wholeFromUs?: number;
}

/** Called with new readings of a key; or with `undefined`, once and last, when the stream cannot be read any more. */
export type Follower = (readings: readonly Reading[] | undefined) => void;

export class RecentReadings {
  readonly #streams: Streams;
  readonly #clock: Clock;
  readonly #tails = new Map<string, StreamTail>();
  #sweeper: NodeJS.Timeout | undefined;

  constructor(streams: Streams, clock: Clock) {
    this.#streams = streams;
    this.#clock = clock;
  }

  /** Sorted by key. @throws StreamNotFoundError */
  async sensors(stream: string): Promise<SensorSummary[]> {
    const tail = await this.#tailOf(stream);
    return tail.summaries();
  }

  /** Of the last `seconds`. @throws StreamNotFoundError */
  async readings(stream: string, key: string, seconds: number): Promise<RecentRows> {
    const tail = await this.#tailOf(stream);
    const fromUs = this.#clock.nowUs() - seconds * 1_000_000;
    const rows = tail
      .rowsOf(key)
      .filter((row) => row.timeUs >= fromUs)
      .sort((a, b) => a.timeUs - b.timeUs);
    const wholeFromUs = tail.wholeFromUs(key);
    return wholeFromUs > fromUs ? { rows, wholeFromUs } : { rows };
  }

  /** Begins with what comes after this resolved. The answer ends it. @throws StreamNotFoundError */
  async follow(stream: string, key: string, follower: Follower): Promise<() => void> {
    const tail = await this.#tailOf(stream);
    return tail.follow(key, follower);
  }

  close(): void {
    clearInterval(this.#sweeper);
    for (const tail of this.#tails.values()) tail.close();
    this.#tails.clear();
  }

  async #tailOf(stream: string): Promise<StreamTail> {
    const { streamId } = this.#streams.describe(stream);
    let tail = this.#tails.get(stream);
    if (tail === undefined || tail.streamId !== streamId) {
      tail?.close();
      tail = new StreamTail(this.#streams, this.#clock, stream, streamId);
      this.#tails.set(stream, tail);
      this.#sweep();
    }
    tail.usedMs = this.#clock.monotonicMs();
    try {
      await tail.catchUp();
    } catch (error) {
      tail.close();
      // Meanwhile the stream may have been made anew.
      if (this.#tails.get(stream) === tail) this.#tails.delete(stream);
      throw error;
    }
    return tail;
  }

  #sweep(): void {
    this.#sweeper ??= setInterval(() => {
      const oldMs = this.#clock.monotonicMs() - IDLE_MS;
      for (const [stream, tail] of this.#tails) {
        if (tail.followed || tail.usedMs > oldMs) continue;
        tail.close();
        this.#tails.delete(stream);
      }
      if (this.#tails.size > 0) return;
      clearInterval(this.#sweeper);
      this.#sweeper = undefined;
    }, IDLE_MS / 4).unref();
  }
}

interface ShardTail {
  readonly shardId: ShardId;
  /** Undefined until the first catch-up has found where to begin. */
  next: Offset | undefined;
  reading: Promise<void> | undefined;
  /** It is closed and read to its end. */
  ended: boolean;
  /** It is being followed. */
  pumped: boolean;
  /** Some of it was passed over just before `next`. */
  skipped: boolean;
}

class StreamTail {
  readonly streamId: string;
  usedMs = 0;
  readonly #streams: Streams;
  readonly #clock: Clock;
  readonly #stream: string;
  /** Those that the stream knew when it was last looked: splits and merges make new ones. */
  readonly #shards = new Map<ShardId, ShardTail>();
  readonly #rows = new SensorRows();
  /** When what was read next behind the last gap had come; 0 while there is none. */
  #wholeFromMs = 0;
  readonly #followers = new Map<string, Set<Follower>>();
  #pump: AbortController | undefined;

  constructor(streams: Streams, clock: Clock, stream: string, streamId: string) {
    this.#streams = streams;
    this.#clock = clock;
    this.#stream = stream;
    this.streamId = streamId;
  }

  get followed(): boolean {
    return this.#followers.size > 0;
  }

  summaries(): SensorSummary[] {
    return this.#rows.summaries();
  }

  rowsOf(key: string): readonly Reading[] {
    return this.#rows.of(key);
  }

  /** 0 when all of the last hour is there. */
  wholeFromUs(key: string): number {
    return Math.max(this.#wholeFromMs * 1_000, this.#rows.droppedUs(key));
  }

  async catchUp(): Promise<void> {
    const closed = this.#lookForShards();
    // Parents come before their children, so that the last row of a key is its newest.
    for (const shard of this.#shards.values()) {
      if (closed.has(shard.shardId) && !shard.ended) await this.#catchUpShard(shard);
    }
    const open = [...this.#shards.values()].filter((shard) => !closed.has(shard.shardId));
    await Promise.all(open.map((shard) => this.#catchUpShard(shard)));
  }

  /** @returns those that are closed */
  #lookForShards(): Set<ShardId> {
    const { shardList } = this.#streams.describe(this.#stream);
    const known = new Set(shardList.map(({ shardId }) => shardId));
    for (const shardId of this.#shards.keys()) if (!known.has(shardId)) this.#shards.delete(shardId);
    const closed = new Set<ShardId>();
    for (const { shardId, closedMs } of shardList) {
      if (closedMs !== undefined) closed.add(shardId);
      if (this.#shards.has(shardId)) continue;
      const shard = {
        shardId,
        next: undefined,
        reading: undefined,
        ended: false,
        pumped: false,
        skipped: false,
      };
      this.#shards.set(shardId, shard);
    }
    return closed;
  }

  follow(key: string, follower: Follower): () => void {
    let followers = this.#followers.get(key);
    if (followers === undefined) {
      followers = new Set();
      this.#followers.set(key, followers);
    }
    followers.add(follower);
    this.#startPump();
    return () => {
      followers.delete(follower);
      if (followers.size === 0 && this.#followers.get(key) === followers) this.#followers.delete(key);
      if (!this.followed) this.#stopPump();
    };
  }

  /** Followers are told that no more will come. */
  close(): void {
    this.#stopPump();
    const followers = [...this.#followers.values()].flatMap((set) => [...set]);
    this.#followers.clear();
    for (const follower of followers) follower(undefined);
  }

  #startPump(): void {
    if (this.#pump !== undefined) return;
    const pump = new AbortController();
    this.#pump = pump;
    for (const shard of this.#shards.values()) shard.pumped = false;
    this.#pumpShards(pump);
  }

  #pumpShards(pump: AbortController): void {
    for (const shard of this.#shards.values()) {
      if (shard.pumped || shard.ended) continue;
      shard.pumped = true;
      this.#pumpShard(shard, pump).catch(() => {
        // The stream is gone or unreadable: whoever asks next hears why.
        if (this.#pump === pump) this.close();
      });
    }
  }

  #stopPump(): void {
    this.#pump?.abort();
    this.#pump = undefined;
  }

  async #pumpShard(shard: ShardTail, pump: AbortController): Promise<void> {
    const { signal } = pump;
    while (!signal.aborted) {
      if (shard.next === undefined) await this.#catchUpShard(shard);
      this.#checkStream();
      await this.#streams.appended(this.#stream, shard.shardId, shard.next!, signal);
      if (signal.aborted) return;
      await this.#catchUpShard(shard);
      if (shard.ended) {
        // It was split or merged: from here on its keys are those of its children.
        this.#lookForShards();
        this.#pumpShards(pump);
        return;
      }
      await pause(GATHER_MS, signal);
    }
  }

  #catchUpShard(shard: ShardTail): Promise<void> {
    shard.reading ??= this.#readOn(shard).finally(() => {
      shard.reading = undefined;
    });
    return shard.reading;
  }

  async #readOn(shard: ShardTail): Promise<void> {
    const { shardId } = shard;
    this.#checkStream();
    if (shard.next === undefined) {
      const arrivalMs = Math.max(0, Math.floor(this.#clock.nowUs() / 1000) - HISTORY_MS);
      const from = await this.#streams.position(this.#stream, shardId, { at: "time", arrivalMs });
      shard.next = from;
      this.#moveTo(shard, this.#withinBytes(shardId, from));
    }
    let maxBytes = MAX_TAIL_BYTES / this.#shards.size;
    let bytes = 0;
    let bytesFrom = shard.next;
    for (;;) {
      this.#checkStream();
      this.#moveTo(shard, this.#withinTail(shardId, shard.next));
      const next: Offset = shard.next;
      const read = await this.#streams.read(this.#stream, shardId, next, Math.min(READ_BYTES, maxBytes));
      const live = new Map<string, Reading[]>();
      for (const part of read.parts) {
        if (shard.skipped) this.#wholeFromMs = Math.max(this.#wholeFromMs, part.arrivalMs);
        shard.skipped = false;
        bytes += this.#takePart(part, next, live);
      }
      for (const [key, fresh] of live) {
        for (const follower of this.#followers.get(key) ?? []) follower(fresh);
      }
      const moved = read.next > next;
      shard.next = Math.max(next, read.next);
      shard.ended = read.ended;
      const left = this.#latestOf(shardId) - shard.next;
      if (!moved || left <= 0) return;
      if (bytes <= maxBytes) continue;
      // At least half of what is left is passed over each time, and half as much is read.
      maxBytes /= 2;
      const places = Math.ceil((maxBytes / bytes) * (shard.next - bytesFrom));
      this.#moveTo(shard, shard.next + left - Math.min(places, Math.ceil(left / 2)));
      bytes = 0;
      bytesFrom = shard.next;
    }
  }

  /** @throws StreamNotFoundError also when another stream has the name by now: places in ours mean nothing there */
  #checkStream(): void {
    const { streamId } = this.#streams.settings(this.#stream);
    if (streamId !== this.streamId) throw new StreamNotFoundError(this.#stream);
  }

  #moveTo(shard: ShardTail, to: Offset): void {
    shard.skipped ||= to > shard.next!;
    shard.next = to;
  }

  /** What is too far behind the newest record is skipped. */
  #withinTail(shardId: ShardId, next: Offset): Offset {
    const latest = this.#latestOf(shardId);
    const behind = recordsBetween(this.#streams, this.#stream, shardId, next, latest);
    const most = Math.ceil(MAX_TAIL_RECORDS / this.#shards.size);
    return behind <= most ? next : latest - Math.floor((latest - next) * (most / behind));
  }

  /** As far as the mean of all records tells; what comes of it is seen as they are read. */
  #withinBytes(shardId: ShardId, next: Offset): Offset {
    const shards = this.#streams.describe(this.#stream).shardList;
    const { latest, trimHorizon, storedBytes } = shards.find((shard) => shard.shardId === shardId)!;
    const most = (MAX_TAIL_BYTES / this.#shards.size / Math.max(1, storedBytes)) * (latest - trimHorizon);
    return Math.max(next, latest - Math.ceil(most));
  }

  #latestOf(shardId: ShardId): Offset {
    const shards = this.#streams.describe(this.#stream).shardList;
    return shards.find((shard) => shard.shardId === shardId)?.latest ?? 0;
  }

  /** @param live gets the readings of those keys that are followed. @returns the bytes of its payloads */
  #takePart(part: LogPart, from: Offset, live: Map<string, Reading[]>): number {
    let first = part.first;
    let bytes = 0;
    for (const run of part.runs) {
      // What the KPL packed into one record has keys of its own.
      const fresh = new Map<string, Reading[]>();
      forEachUserRecord(run, (payload, timeUs, index, key) => {
        bytes += payload.length;
        if (first + index < from) return;
        const reading = readingOf(payload, timeUs);
        if (reading === undefined) return;
        const of = fresh.get(key);
        if (of === undefined) fresh.set(key, [reading]);
        else of.push(reading);
      });
      first += run.count;
      for (const [key, readings] of fresh) {
        this.#rows.keep(key, readings);
        if (!this.#followers.has(key)) continue;
        const waiting = live.get(key);
        if (waiting === undefined) live.set(key, readings);
        else for (const reading of readings) waiting.push(reading);
      }
    }
    return bytes;
  }
}
