/** Reads of one stream's shards, which look through its messages one after the other. */
import type { Clock } from "../../../../../runtime/clock.ts";
import type { LogPart, Offset, ReadResult, ShardId, StartingPoint } from "../../../streams.ts";
import { offsetOf, sequenceOf } from "./entry.ts";
import type { ShardRecord } from "./shard-history.ts";
import { latestOf, trimHorizonOf } from "./shard-places.ts";
import type { StreamTail } from "./stream-tail.ts";

/** Messages that one read asks for at once, at most, and about how many bytes of them. */
const READ_AHEAD = 16;
const READ_AHEAD_BYTES = 4 * 1_048_576;
/** Messages looked through in one read of a shard of which they hold nothing, and how long. */
const MAX_SCANNED = 4_096;
const MAX_SCAN_MS = 1_000;

export class ShardReader {
  readonly #tail: StreamTail;
  readonly #clock: Clock;
  readonly #ahead: (sequence: number) => number;

  /** @param ahead how many messages to ask for at once from a place on: 1 to `most`, which have about `bytes` together */
  constructor(
    tail: StreamTail,
    clock: Clock,
    ahead: (sequence: number, most: number, bytes: number) => number,
  ) {
    this.#tail = tail;
    this.#clock = clock;
    this.#ahead = (sequence) => ahead(sequence, READ_AHEAD, READ_AHEAD_BYTES);
  }

  async position(shardId: ShardId, start: StartingPoint): Promise<Offset> {
    const shard = this.#tail.history.shard(shardId);
    if (start.at === "latest") return latestOf(this.#tail, shard);
    if (start.at === "trim-horizon") return trimHorizonOf(this.#tail, shard);
    if (start.at === "offset") return start.offset;
    return this.#offsetAtTime(shard, start.arrivalMs);
  }

  /** Halves the log by arrival time; gateways' clocks differ, so the last stretch is walked. */
  async #offsetAtTime(shard: ShardRecord, arrivalMs: number): Promise<Offset> {
    const end = latestOf(this.#tail, shard);
    let low = sequenceOf(trimHorizonOf(this.#tail, shard));
    let high = sequenceOf(end - 1) + 1;
    const skewMs = 10_000;
    while (high - low > 64) {
      const middle = Math.floor((low + high) / 2);
      const entry = await this.#tail.past.one(middle);
      if (entry === undefined || entry.arrivalMs >= arrivalMs - skewMs) high = middle;
      else low = middle;
    }
    // Any message that is new enough will do: the next one of this shard may be a whole log away.
    const stop = sequenceOf(end - 1) + 1;
    for (let from = low, ahead = 0; from < stop; from += ahead) {
      ahead = Math.min(this.#ahead(from), stop - from);
      for (const entry of await this.#tail.past.stretch(from, ahead)) {
        if (entry === undefined || entry.arrivalMs < arrivalMs) continue;
        return Math.min(end, entry.parts.get(shard.index)?.[0]?.first ?? offsetOf(entry.sequence));
      }
    }
    return end;
  }

  async read(shardId: ShardId, from: Offset, maxBytes: number): Promise<ReadResult> {
    const shard = this.#tail.history.shard(shardId);
    const end = latestOf(this.#tail, shard);
    const at = Math.max(from, trimHorizonOf(this.#tail, shard));
    // Numbers before the shard's first were never given out, so nothing is missing there.
    const wanted = Math.max(from, offsetOf(shard.openedAt + 1));
    const kept = this.#tail.ends.nextBehind(shard.index, wanted);
    const result = (parts: readonly LogPart[], next: Offset, behindMs = 0): ReadResult => {
      const ended = shard.closedAt !== undefined && next >= end;
      // Asked for anew: retention may have taken during the read what was passed over.
      const horizon = Math.min(trimHorizonOf(this.#tail, shard), parts[0]?.first ?? next);
      const trimmed = Math.max(0, horizon - kept);
      // Where nothing is known of what was there, that something is gone is told all the same.
      const gone = trimmed > 0 && {
        trimmedRecords: Math.max(1, this.recordsBetween(shard.index, kept, horizon)),
      };
      return { parts, next, behindMs, trimmed, ended, ...gone };
    };
    if (at >= end) return result([], at);
    const parts: LogPart[] = [];
    let bytes = 0;
    let scannedMs = this.#clock.nowUs() / 1000;
    const stop = Math.min(sequenceOf(end - 1) + 1, sequenceOf(at) + MAX_SCANNED);
    const untilMs = this.#clock.monotonicMs() + MAX_SCAN_MS;
    let sequence = sequenceOf(at);
    while (sequence < stop) {
      const ahead = Math.min(stop - sequence, bytes === 0 && maxBytes < 4_096 ? 1 : this.#ahead(sequence));
      for (const entry of await this.#tail.past.stretch(sequence, ahead)) {
        sequence++;
        scannedMs = entry?.arrivalMs ?? scannedMs;
        for (const part of entry?.parts.get(shard.index) ?? []) {
          if (part.first + part.count <= at) continue;
          const partBytes = part.runs.reduce((sum, { body }) => sum + body.length, 0);
          const last = parts.at(-1);
          if (last !== undefined && bytes + partBytes > maxBytes) {
            return result(parts, last.first + last.count, this.#ageMs(last.arrivalMs));
          }
          bytes += partBytes;
          parts.push(part);
        }
      }
      if (this.#clock.monotonicMs() > untilMs) break;
    }
    const next = Math.min(end, offsetOf(sequence));
    // Messages without a record of this shard: at their end a reader is not at the tip yet.
    return result(parts, next, next < end ? this.#ageMs(scannedMs) : 0);
  }

  recordsBetween(shardIndex: number, from: Offset, to: Offset): number {
    const { ends, history } = this.#tail;
    return ends.recordsBetween(shardIndex, from, to, history.openShards);
  }

  /** While something waits behind it: no clock makes that the tip. */
  #ageMs(arrivalMs: number): number {
    return Math.max(1, Math.floor(this.#clock.nowUs() / 1000 - arrivalMs));
  }

  /** Looks again at each move of the tip: the message may hold nothing of this shard. */
  async appended(shardId: ShardId, from: Offset, signal: AbortSignal): Promise<void> {
    let at = from;
    while (!signal.aborted && !this.#tail.closed) {
      const { tip } = this.#tail;
      const { parts, next, ended } = await this.read(shardId, at, 1);
      const last = parts.at(-1);
      if (last !== undefined && last.first + last.count > from) return;
      if (this.#tail.history.shard(shardId).closedAt !== undefined || ended) return;
      if (next === at && this.#tail.tip === tip) await this.#tail.next(signal);
      at = next;
    }
  }
}
