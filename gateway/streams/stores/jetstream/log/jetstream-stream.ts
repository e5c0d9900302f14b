/** One stream on the cluster: its lanes in, its splits and merges. What goes out is in shard-reader.ts. */
import type { Frame } from "../../../../../protocol/frame.ts";
import { MAX_KEY_BYTES } from "../../../../../protocol/record-batch.ts";
import type { Clock } from "../../../../../runtime/clock.ts";
import type { Log } from "../../../../../runtime/log.ts";
import { Refusal } from "../../../refusal.ts";
import { MAX_HASH } from "../../../shard-map.ts";
import {
  type AppendOutcome,
  BadEntryError,
  LogFullError,
  LogWriteError,
  type Placed,
  type PlainPublish,
  type PutEntry,
  type ShardDescription,
  type ShardId,
  StreamNotFoundError,
} from "../../../streams.ts";
import { publishIdentity } from "../../publish-identity.ts";
import { shortClientId } from "../../routing.ts";
import type { Link } from "../cluster/link.ts";
import { type HashedRun, offsetOf, RECORDS_PER_MESSAGE, runsOf } from "./entry.ts";
import { Lane, type LaneHost, type Work, type WorkPlace } from "./lane.ts";
import { clientToken, epochToken, gatewayToken, shortIdentity } from "./producer-states.ts";
import { CLOCKS_DIFFER_MS } from "./shard-ends.ts";
import { type MapContent, rangeOf, type ShardRecord } from "./shard-history.ts";
import { latestOf, trimHorizonOf } from "./shard-places.ts";
import { ShardReader } from "./shard-reader.ts";
import { storeMap } from "./store-map.ts";
import { StreamTail } from "./stream-tail.ts";
import type { CacheRoom } from "./tail-entry.ts";

const RENEWED_AT_ONCE = 32;
/** So often within a retention it is looked for producers to be renewed. */
const RENEWALS_LOOKED_FOR = 40;

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
  readonly room: CacheRoom;
}

export class JetStreamStream {
  readonly tail: StreamTail;
  readonly reader: ShardReader;
  readonly #options: JetStreamStreamOptions;
  readonly #host: LaneHost;
  readonly #lanes = new Map<string, Lane>();
  /** Token of what has no producer. */
  readonly #own: string;
  readonly #refusal: Refusal;
  #arrivalMs = 0;
  #renewing = false;
  #renewAtMs = 0;

  constructor(options: JetStreamStreamOptions) {
    const { link, clock, name, stream, subject } = options;
    this.#options = options;
    this.#own = gatewayToken(link.id);
    this.#refusal = new Refusal(() => clock.monotonicMs());
    this.tail = new StreamTail(options);
    this.reader = new ShardReader(this.tail, clock, (...asked) => link.gets.ahead(stream, ...asked));
    this.#host = {
      link,
      clock,
      name,
      stream,
      subject,
      tail: this.tail,
      stored: (sequence, messageId) => {
        this.#refusal.stored();
        link.tell(options.tellSubject, `${sequence} ${messageId}`);
      },
      arrivalMs: () => {
        const nowMs = Math.floor(clock.nowUs() / 1000);
        // Times rise along the log whatever gateway writes, as they are searched in it.
        const { arrivalMs } = this.tail.ends;
        const others = arrivalMs <= nowMs + CLOCKS_DIFFER_MS ? arrivalMs : 0;
        this.#arrivalMs = Math.max(this.#arrivalMs, nowMs, others);
        return this.#arrivalMs;
      },
      waitingBytes: 0,
      isBusy: false,
    };
  }

  /** As users name it. */
  get name(): string {
    return this.#options.name;
  }

  /** Why appends are refused that could not be stored, if so. */
  get refusing(): string | undefined {
    return this.#refusal.why;
  }

  /** Of what this gateway wrote, or has heard of. */
  get lastArrivalMs(): number {
    return Math.max(this.#arrivalMs, this.tail.ends.arrivalMs);
  }

  /** Of the JetStream stream. */
  get stream(): string {
    return this.#options.stream;
  }

  get streamId(): string {
    return this.#options.streamId;
  }

  async start(): Promise<void> {
    await this.tail.start();
  }

  describeShards(retentionMs: number): ShardDescription[] {
    const isExpired = this.isExpired(retentionMs);
    const visible = this.tail.history.shards.filter((shard) => !isExpired(shard));
    return visible.map((shard) => this.#describe(shard));
  }

  describeChildren(shardId: ShardId, retentionMs: number): ShardDescription[] {
    const isExpired = this.isExpired(retentionMs);
    const children = this.tail.history.childrenOf(shardId).filter((shard) => !isExpired(shard));
    return children.map((shard) => this.#describe(shard));
  }

  /** Tells of a shard whether it was closed before the retention began, and nothing of it is kept. */
  isExpired(retentionMs: number): (shard: ShardRecord) => boolean {
    const { firstSequence } = this.tail;
    const nowMs = this.#options.clock.nowUs() / 1000;
    // What was closed while a gateway's clock was ahead goes by its records alone; clocks of two are never quite the same.
    const isOver = (closedMs: number): boolean =>
      closedMs <= nowMs - retentionMs || closedMs > nowMs + CLOCKS_DIFFER_MS;
    return ({ closedAt, closedMs = 0 }) =>
      closedAt !== undefined && closedAt <= firstSequence && isOver(closedMs);
  }

  /** Undefined when there is none of this index. */
  describeShard(index: number): ShardDescription | undefined {
    const found = this.tail.history.at(index);
    return found === undefined ? undefined : this.#describe(found);
  }

  /** What may change is as it is when it is looked at. */
  #describe(known: ShardRecord): ShardDescription {
    const { tail } = this;
    const now = (): ShardRecord => tail.history.at(known.index) ?? known;
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
      // A gateway that started later knows of no record before its start, and so begins, or ends, further behind.
      get passed() {
        return Math.max(this.latest, offsetOf(now().closedAt ?? tail.tip + 1));
      },
      // The cluster counts bytes per stream; a closed shard's are counted with the open ones.
      get storedBytes() {
        return now().closedAt === undefined ? Math.round(tail.storedBytes / tail.history.openShards) : 0;
      },
      get appendedRecords() {
        return tail.ends.appended(known.index).records;
      },
      get appendedBytes() {
        return tail.ends.appended(known.index).bytes;
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
    return this.#push(this.#own, { runs, records: entries.length }).then(({ place }) => {
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
    return runs.flatMap((run) => {
      const { shardId } = history.at(history.shardOfRun(run, map))!;
      return Array.from({ length: run.count }, () => shardId);
    });
  }

  /** Stores a message that holds no record: when this resolves all that was stored before the call is taken here. */
  async mark(): Promise<void> {
    await this.#push(this.#own, { runs: [], records: 0 });
  }

  async appendFrame(frame: Frame): Promise<AppendOutcome> {
    const map = this.tail.history.current;
    const shards = frame.runs.map(({ key }) => map.shardOfKey(key));
    const order = shards.map((_, i) => i).sort((a, b) => shards[a]! - shards[b]! || a - b);
    // The caller's memory may be used again.
    const runs = order.map((i) => ({ ...frame.runs[i]!, body: Buffer.from(frame.runs[i]!.body) }));
    const work = { runs, records: frame.recordCount, frame: frame.sequence };
    return (await this.#push(epochToken(frame.device, frame.epoch), work)).outcome;
  }

  async appendPublish(publish: PlainPublish): Promise<AppendOutcome> {
    const { partitionKey: key, timeUs, payload } = publish;
    checkKey(key);
    if (!Number.isSafeInteger(timeUs) || timeUs < 0) throw new BadEntryError(`a time of ${timeUs} µs`);
    const runs = runsOf([{ key, timeUs, payload }]);
    if (publish.packetId === 0) return (await this.#push(this.#own, { runs, records: 1 })).outcome;
    const identity = { text: shortIdentity(publishIdentity(publish)), mayRepeat: publish.mayRepeat };
    const token = clientToken(shortClientId(publish.clientId));
    return (await this.#push(token, { runs, records: 1, identity })).outcome;
  }

  recognises(publish: Omit<PlainPublish, "mayRepeat">): boolean {
    const identity = shortIdentity(publishIdentity(publish));
    return this.#remembers(publish.clientId, (one) => one === identity);
  }

  remembersPacket(clientId: string, packetId: number): boolean {
    const prefix = String.fromCharCode((packetId >> 8) & 0xff, packetId & 0xff);
    return this.#remembers(clientId, (one) => one.startsWith(prefix));
  }

  /** Also what is on its way only, as its client may have come anew meanwhile. */
  #remembers(clientId: string, isSuch: (identity: string) => boolean): boolean {
    const token = clientToken(shortClientId(clientId));
    return this.#lanes.get(token)?.awaits(isSuch) || this.tail.producers.get(token).recent.some(isSuch);
  }

  forgetClient(clientId: string): Promise<void> {
    return this.#forget(clientToken(shortClientId(clientId)));
  }

  leaveClient(clientId: string): void {
    this.#lanes.get(clientToken(shortClientId(clientId)))?.leave();
  }

  async forgetEpoch(device: string, epoch: bigint): Promise<void> {
    const token = epochToken(device, epoch);
    if (!this.tail.producers.knows(token)) {
      // Another gateway may have stored it a moment ago; not forgotten now, it would be known for ever.
      await this.tail.poll();
      await this.tail.reach(this.tail.target);
    }
    await this.#forget(token);
  }

  async #forget(token: string): Promise<void> {
    // What waits in its lane comes first, as calls are stored in their order.
    if (!this.tail.producers.knows(token) && !this.#lanes.has(token)) return;
    await this.#push(token, { runs: [], records: 0, forget: true });
  }

  #push(
    token: string,
    work: Omit<Work, "done" | "failed" | "bytes" | "tip" | "recent">,
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
        tip: this.tail.tip,
        recent: this.tail.producers.get(token).recent,
        done: (outcome, place) => resolve({ outcome, place }),
        failed: (error) => {
          const told = asOf(this.#options.name, error);
          if (told instanceof LogFullError || told instanceof LogWriteError)
            this.#refusal.refused(told.message);
          reject(this.tail.closedBy ?? told);
        },
      });
      void lane.drained().then(settled, settled);
    });
  }

  /** @param change from the shards as they are to those that shall be */
  async reshard(change: () => MapContent): Promise<void> {
    await storeMap({ ...this.#options, tail: this.tail }, change).catch((error: unknown) => {
      throw asOf(this.#options.name, error);
    });
  }

  /**
   * Has what is remembered of each producer said again before retention takes it, at half of the
   * retention: an epoch is known until its agent declares it drained.
   */
  async renewProducers(retentionMs: number, when: "in time" | "now" = "in time"): Promise<void> {
    const { clock, link } = this.#options;
    const nowMs = clock.monotonicMs();
    if (when === "in time" && (this.#renewing || nowMs < this.#renewAtMs)) return;
    this.#renewing = true;
    try {
      const renewBeforeMs = Math.floor(clock.nowUs() / 1000 - retentionMs / 2);
      const old = this.tail.producers.rememberedBefore(renewBeforeMs);
      for (let from = 0; from < old.length && !link.signal.aborted; from += RENEWED_AT_ONCE) {
        const some = old.slice(from, from + RENEWED_AT_ONCE);
        await Promise.all(some.map((token) => this.#push(token, { runs: [], records: 0, renewBeforeMs })));
      }
      this.tail.producers.prune(this.tail.firstSequence);
    } finally {
      this.#renewing = false;
      this.#renewAtMs = clock.monotonicMs() + retentionMs / RENEWALS_LOOKED_FOR;
    }
  }

  /** Whether something is remembered of a producer that was not heard for so long. */
  remembersBefore(agoMs: number): boolean {
    const beforeMs = this.#options.clock.nowUs() / 1000 - agoMs;
    return this.tail.producers.rememberedBefore(beforeMs).length > 0;
  }

  /** Ends what waits, then the tail. */
  async close(): Promise<void> {
    await this.#drained();
    this.tail.close(new StreamNotFoundError(this.#options.name));
  }

  /** It was deleted, or is opened anew: what waits for an answer of the cluster may never get one, and fails. */
  async end(): Promise<void> {
    const { name } = this.#options;
    const lost = new Error("the cluster lost messages that it had acknowledged");
    this.tail.close(this.tail.isLost ? new LogWriteError(name, lost) : new StreamNotFoundError(name));
    await this.#drained();
  }

  async #drained(): Promise<void> {
    await Promise.all([...this.#lanes.values()].map((lane) => lane.drained()));
  }
}

/** What the cluster refused, of the stream as users name it. */
function asOf(name: string, error: unknown): unknown {
  if (error instanceof LogFullError) return new LogFullError(name, error.cause, error.hint);
  if (error instanceof LogWriteError) return new LogWriteError(name, error.cause, error.hint);
  return error instanceof StreamNotFoundError ? new StreamNotFoundError(name) : error;
}

function checkKey(key: string): void {
  const bytes = Buffer.byteLength(key);
  if (bytes === 0 || bytes > MAX_KEY_BYTES) throw new BadEntryError(`a partition key of ${bytes} bytes`);
}
