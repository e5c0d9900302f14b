/** One stream on the cluster: its lanes in, its reads out, its splits and merges. */
import { randomBytes } from "node:crypto";
import type { Frame } from "../../../../protocol/frame.ts";
import { MAX_KEY_BYTES } from "../../../../protocol/record-batch.ts";
import { pause } from "../../../../runtime/backoff.ts";
import type { Clock } from "../../../../runtime/clock.ts";
import type { Log } from "../../../../runtime/log.ts";
import { MAX_HASH } from "../../shard-map.ts";
import {
  type AppendOutcome,
  BadEntryError,
  type LogPart,
  type Offset,
  type Placed,
  type PlainPublish,
  type PutEntry,
  type ReadResult,
  type ShardDescription,
  type ShardId,
  type StartingPoint,
  StreamNotFoundError,
} from "../../streams.ts";
import { publishIdentity, shortClientId } from "../routing.ts";
import { type HashedRun, offsetOf, RECORDS_PER_MESSAGE, runsOf, sequenceOf } from "./entry.ts";
import { Lane, type LaneHost, type Work, type WorkPlace } from "./lane.ts";
import { latestOf, trimHorizonOf } from "./leased-consumer.ts";
import type { Link } from "./link.ts";
import { clientToken, epochToken, shortIdentity } from "./producer-states.ts";
import { type MapContent, rangeOf, type ShardRecord } from "./shard-history.ts";
import { StreamTail } from "./stream-tail.ts";

const READ_AHEAD = 16;
/** Messages looked through in one read of a shard of which they hold nothing. */
const MAX_SCANNED = 4_096;

export interface JetStreamStreamOptions {
  readonly link: Link;
  readonly clock: Clock;
  readonly log: Log;
  readonly name: string;
  readonly streamId: string;
  /** Of the JetStream stream, its subjects, and the subject on which gateways tell its growth. */
  readonly stream: string;
  readonly subject: string;
  readonly tellSubject: string;
  readonly map: MapContent;
  readonly onMap: (content: MapContent) => void;
}

export class JetStreamStream {
  readonly tail: StreamTail;
  readonly #options: JetStreamStreamOptions;
  readonly #host: LaneHost;
  readonly #lanes = new Map<string, Lane>();
  #arrivalMs = 0;

  constructor(options: JetStreamStreamOptions) {
    const { link, clock, name, stream, subject } = options;
    this.#options = options;
    this.tail = new StreamTail(options);
    this.#host = {
      link,
      clock,
      name,
      stream,
      subject,
      tail: this.tail,
      stored: (sequence) => link.tell(options.tellSubject, String(sequence)),
      arrivalMs: () => {
        this.#arrivalMs = Math.max(this.#arrivalMs, Math.floor(clock.nowUs() / 1000));
        return this.#arrivalMs;
      },
      waitingBytes: 0,
    };
  }

  get streamId(): string {
    return this.#options.streamId;
  }

  start(): Promise<void> {
    return this.tail.start();
  }

  describeShards(retentionMs: number): ShardDescription[] {
    const { history } = this.tail;
    const nowMs = this.#options.clock.nowUs() / 1000;
    const open = history.shards.filter(({ closedAt }) => closedAt === undefined).length;
    const visible = history.shards.filter(
      ({ closedAt, closedMs = 0 }) =>
        closedAt === undefined || closedAt > this.tail.firstSequence || closedMs + retentionMs > nowMs,
    );
    return visible.map((shard) => this.#describe(shard, open));
  }

  /** Undefined when there is none of this index. */
  describeShard(index: number): ShardDescription | undefined {
    const { shards } = this.tail.history;
    const found = shards.find((shard) => shard.index === index);
    if (found === undefined) return undefined;
    return this.#describe(found, shards.filter(({ closedAt }) => closedAt === undefined).length);
  }

  /** What may change is as it is when it is looked at. */
  #describe(known: ShardRecord, open: number): ShardDescription {
    const { tail } = this;
    const now = (): ShardRecord => tail.history.shards.find(({ index }) => index === known.index) ?? known;
    return {
      shardId: known.shardId,
      createdMs: known.createdMs,
      ...rangeOf(known),
      parents: known.parents,
      get closedMs() {
        return now().closedMs;
      },
      get trimHorizon() {
        return trimHorizonOf(tail, now());
      },
      get latest() {
        return latestOf(tail, now());
      },
      // The cluster counts bytes per stream; a closed shard's are counted with the open ones.
      get storedBytes() {
        return now().closedAt === undefined ? Math.round(tail.storedBytes / open) : 0;
      },
      get appendedRecords() {
        return tail.appendedRecords(known.index);
      },
    };
  }

  append(entries: readonly PutEntry[]): Promise<Placed[]> {
    if (entries.length === 0) return Promise.resolve([]);
    if (entries.length > RECORDS_PER_MESSAGE) throw new BadEntryError(`${entries.length} in one append`);
    const timeUs = this.#options.clock.nowUs();
    const map = this.tail.history.current;
    const shardOf = entries.map(({ partitionKey, explicitHash }) => {
      checkKey(partitionKey);
      if (explicitHash === undefined) return map.shardOfKey(partitionKey);
      if (explicitHash < 0n || explicitHash > MAX_HASH) {
        throw new BadEntryError("an explicit hash outside 0 to 2^128 - 1");
      }
      return map.shardOfHash(explicitHash);
    });
    // One part per shard; the order within a shard is kept.
    const order = entries.map((_, i) => i).sort((a, b) => shardOf[a]! - shardOf[b]! || a - b);
    const runs = runsOf(
      order.map((i) => {
        const { partitionKey: key, data: payload, explicitHash: hash } = entries[i]!;
        return { key, timeUs, payload, hash };
      }),
    );
    return this.#push("r", { runs, records: entries.length }).then(({ place }) => {
      const placed: Placed[] = new Array(entries.length);
      const shardIds = this.#shardIdsOf(runs, place!);
      for (const [at, i] of order.entries()) {
        const { sequence, index, arrivalMs } = place!;
        placed[i] = { shardId: shardIds[at]!, offset: offsetOf(sequence, index + at), arrivalMs };
      }
      return placed;
    });
  }

  /** By the map in force at the place, which the writer need not have known. */
  #shardIdsOf(runs: readonly HashedRun[], place: WorkPlace): ShardId[] {
    const { history } = this.tail;
    const map = history.mapAt(place.sequence);
    const names = new Map(history.shards.map(({ index, shardId }) => [index, shardId]));
    return runs.flatMap((run) => {
      const shardId = names.get(history.shardOfRun(run, map))!;
      return Array.from({ length: run.count }, () => shardId);
    });
  }

  async appendFrame(frame: Frame): Promise<AppendOutcome> {
    const map = this.tail.history.current;
    const shards = frame.runs.map(({ key }) => map.shardOfKey(key));
    const order = shards.map((_, i) => i).sort((a, b) => shards[a]! - shards[b]! || a - b);
    const runs = order.map((i) => frame.runs[i]!);
    const work = { runs, records: frame.recordCount, frame: frame.sequence };
    return (await this.#push(epochToken(frame.device, frame.epoch), work)).outcome;
  }

  async appendPublish(publish: PlainPublish): Promise<AppendOutcome> {
    const { partitionKey: key, timeUs, payload } = publish;
    checkKey(key);
    if (!Number.isSafeInteger(timeUs) || timeUs < 0) throw new BadEntryError(`a time of ${timeUs} µs`);
    const runs = runsOf([{ key, timeUs, payload }]);
    if (publish.packetId === 0) return (await this.#push("r", { runs, records: 1 })).outcome;
    const identity = { text: shortIdentity(publishIdentity(publish)), mayRepeat: publish.mayRepeat };
    const token = clientToken(shortClientId(publish.clientId));
    return (await this.#push(token, { runs, records: 1, identity })).outcome;
  }

  recognises(publish: Omit<PlainPublish, "mayRepeat">): boolean {
    const { recent } = this.tail.producers.get(clientToken(shortClientId(publish.clientId)));
    return recent.includes(shortIdentity(publishIdentity(publish)));
  }

  remembersPacket(clientId: string, packetId: number): boolean {
    const prefix = String.fromCharCode((packetId >> 8) & 0xff, packetId & 0xff);
    const { recent } = this.tail.producers.get(clientToken(shortClientId(clientId)));
    return recent.some((identity) => identity.startsWith(prefix));
  }

  forgetClient(clientId: string): Promise<void> {
    return this.#forget(clientToken(shortClientId(clientId)));
  }

  forgetEpoch(device: string, epoch: bigint): Promise<void> {
    return this.#forget(epochToken(device, epoch));
  }

  async #forget(token: string): Promise<void> {
    // What waits in its lane comes first, as calls are stored in their order.
    if (!this.tail.producers.knows(token) && !this.#lanes.has(token)) return;
    await this.#push(token, { runs: [], records: 0, forget: true });
  }

  #push(
    token: string,
    work: Omit<Work, "done" | "failed" | "bytes">,
  ): Promise<{ outcome: AppendOutcome; place: WorkPlace | undefined }> {
    let lane = this.#lanes.get(token);
    if (lane === undefined) {
      lane = new Lane(this.#host, token);
      this.#lanes.set(token, lane);
    }
    const bytes = work.runs.reduce((sum, { body, key }) => sum + body.length + key.length, 0);
    return new Promise((resolve, reject) => {
      const settled = (): void => {
        if (lane.idle && this.#lanes.get(token) === lane) this.#lanes.delete(token);
      };
      lane.push({
        ...work,
        bytes,
        done: (outcome, place) => resolve({ outcome, place }),
        failed: (error) => reject(this.tail.closed ? new StreamNotFoundError(this.#options.name) : error),
      });
      void lane.drained().then(settled, settled);
    });
  }

  async position(shardId: ShardId, start: StartingPoint): Promise<Offset> {
    const shard = this.tail.history.shard(shardId);
    if (start.at === "latest") return latestOf(this.tail, shard);
    if (start.at === "trim-horizon") return trimHorizonOf(this.tail, shard);
    if (start.at === "offset") return start.offset;
    return this.#offsetAtTime(shard, start.arrivalMs);
  }

  /** Halves the log by arrival time; gateways' clocks differ, so the last stretch is walked. */
  async #offsetAtTime(shard: ShardRecord, arrivalMs: number): Promise<Offset> {
    const end = latestOf(this.tail, shard);
    let low = sequenceOf(trimHorizonOf(this.tail, shard));
    let high = sequenceOf(end - 1) + 1;
    const skewMs = 10_000;
    while (high - low > 64) {
      const middle = Math.floor((low + high) / 2);
      const entry = await this.tail.entry(middle);
      if (entry === undefined || entry.arrivalMs >= arrivalMs - skewMs) high = middle;
      else low = middle;
    }
    for (let at = low; offsetOf(at) < end; at++) {
      const entry = await this.tail.entry(at);
      const parts = entry?.parts.get(shard.index);
      if (entry !== undefined && parts !== undefined && entry.arrivalMs >= arrivalMs) return parts[0]!.first;
    }
    return end;
  }

  async read(shardId: ShardId, from: Offset, maxBytes: number): Promise<ReadResult> {
    const shard = this.tail.history.shard(shardId);
    const end = latestOf(this.tail, shard);
    const horizon = trimHorizonOf(this.tail, shard);
    const at = Math.max(from, horizon);
    // Numbers before the shard's first were never given out, so nothing is missing there.
    const trimmed = Math.max(0, horizon - Math.max(from, offsetOf(shard.openedAt + 1)));
    const result = (parts: readonly LogPart[], next: Offset, behindMs = 0): ReadResult => {
      const ended = shard.closedAt !== undefined && next >= offsetOf(shard.closedAt);
      return { parts, next, behindMs, trimmed, ended };
    };
    if (at >= end) return result([], at);
    const parts: LogPart[] = [];
    let bytes = 0;
    const stop = Math.min(sequenceOf(end - 1) + 1, sequenceOf(at) + MAX_SCANNED);
    for (let sequence = sequenceOf(at); sequence < stop; ) {
      const ahead = Math.min(stop - sequence, bytes === 0 && maxBytes < 4_096 ? 1 : READ_AHEAD);
      const wanted = Array.from({ length: ahead }, (_, i) => this.tail.entry(sequence + i));
      for (const entry of await Promise.all(wanted)) {
        sequence++;
        for (const part of entry?.parts.get(shard.index) ?? []) {
          if (part.first + part.count <= at) continue;
          const partBytes = part.runs.reduce((sum, { body }) => sum + body.length, 0);
          const last = parts.at(-1);
          if (last !== undefined && bytes + partBytes > maxBytes) {
            const nowMs = this.#options.clock.nowUs() / 1000;
            return result(parts, last.first + last.count, Math.max(0, Math.floor(nowMs - last.arrivalMs)));
          }
          bytes += partBytes;
          parts.push(part);
        }
      }
    }
    return result(parts, Math.min(end, offsetOf(stop)));
  }

  /** Looks again at each move of the tip: the message may hold nothing of this shard. */
  async appended(shardId: ShardId, from: Offset, signal: AbortSignal): Promise<void> {
    let at = from;
    while (!signal.aborted && !this.tail.closed) {
      const moved = this.tail.next(signal);
      const { parts, next, ended } = await this.read(shardId, at, 1);
      const last = parts.at(-1);
      if (last !== undefined && last.first + last.count > from) return;
      if (this.tail.history.shard(shardId).closedAt !== undefined || ended) return;
      if (next === at) await moved;
      at = next;
    }
  }

  /** @param change from the shards as they are to those that shall be */
  async reshard(change: () => MapContent): Promise<void> {
    const { link, stream, subject } = this.#options;
    for (;;) {
      await this.tail.poll();
      await this.tail.reach((await link.state(stream)).lastSequence);
      const content = change();
      const id = `map-${randomBytes(9).toString("base64url")}`;
      const payload = Buffer.from(JSON.stringify(content));
      const expected = this.tail.history.lastMapAt;
      const outcome = await link.publish(stream, `${subject}.map`, payload, {}, expected, id);
      let sequence = outcome.stored ? outcome.sequence : undefined;
      if (!outcome.stored && outcome.uncertain) {
        const last = await link.leaderGet(stream, { last_by_subj: `${subject}.map` });
        if (last?.header("Nats-Msg-Id") === id) sequence = last.sequence;
      }
      if (sequence !== undefined) {
        link.tell(this.#options.tellSubject, String(sequence));
        await this.tail.reach(sequence);
        // Of two maps stored at the same moment the first holds; this one is tried again on it.
        if (this.tail.history.lastMapAt !== sequence || this.tail.history.adoptedAt === sequence) return;
        continue;
      }
      // Another gateway split or merged meanwhile: what was asked is judged against its map.
      await pause(10, link.signal);
    }
  }

  /** Ends what waits, then the tail. */
  async close(): Promise<void> {
    await Promise.all([...this.#lanes.values()].map((lane) => lane.drained()));
    this.tail.close(new StreamNotFoundError(this.#options.name));
  }
}

function checkKey(key: string): void {
  const bytes = Buffer.byteLength(key);
  if (bytes === 0 || bytes > MAX_KEY_BYTES) throw new BadEntryError(`a partition key of ${bytes} bytes`);
}
