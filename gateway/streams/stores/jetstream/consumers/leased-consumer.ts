/**
 * A consumer whose lease and checkpoints are one document on the cluster, changed by compare-and-set.
 * The holder writes it once a second; whoever sees it unchanged for four seconds of his own
 * monotonic clock may take it. A holder that was taken over meets another revision at its next
 * write, so it can move no checkpoint: the clocks of two machines are never compared.
 */
import { pause } from "../../../../../runtime/backoff.ts";
import type { Clock } from "../../../../../runtime/clock.ts";
import { describeError } from "../../../../../runtime/errors.ts";
import type { Log } from "../../../../../runtime/log.ts";
import {
  BadCheckpointError,
  type Consumer,
  type Handover,
  HandoverDamagedError,
  LeaseHeldError,
  LeaseLostError,
  type Offset,
  type ShardId,
  StreamNotFoundError,
} from "../../../streams.ts";
import type { Document, Documents } from "../cluster/documents.ts";
import { offsetOf } from "../log/entry.ts";
import { beginnings, endOf, furthestOf } from "../log/shard-places.ts";
import type { StreamTail } from "../log/stream-tail.ts";
import { KeptBytes, type KeptRef } from "./kept-bytes.ts";
import { areSame, positionIn, ReadableShards, type SortedShards } from "./readable-shards.ts";

const HEARTBEAT_MS = 1_000;
export const LEASE_MS = 4_000;
const LOOK_EVERY_MS = 250;
/** A cluster that does not answer for so long holds nobody up: then the lease ends by itself. */
const CLOSE_WITHIN_MS = 3_000;

export interface ConsumerRecord {
  readonly name: string;
  /** Of the gateway that holds the lease; "" when nobody does. */
  readonly owner: string;
  /** So that each heartbeat is a change. */
  readonly beat: number;
  readonly positions: Readonly<Record<string, number>>;
  /** What its holder leaves to the next one; none unless given. */
  readonly note?: unknown;
  /** The same, what is too large for a note. */
  readonly kept?: KeptRef;
}

export interface LeasedConsumerOptions {
  readonly documents: Documents;
  readonly tail: StreamTail;
  readonly clock: Clock;
  readonly log: Log;
  readonly stream: string;
  readonly name: string;
  /** Key of the document. */
  readonly key: string;
  readonly owner: string;
  readonly signal: AbortSignal;
  /** Takes the lease whoever holds it. */
  readonly takeOver: boolean;
  /** Stores a message that holds no record, and resolves when all up to it was taken. */
  readonly mark: () => Promise<void>;
  readonly released: () => void;
}

/** Waits for the lease of a holder that gives no sign of life. @throws LeaseHeldError, StreamNotFoundError */
export async function openLeasedConsumer(options: LeasedConsumerOptions): Promise<LeasedConsumer> {
  const { documents, clock, key, name, owner, stream } = options;
  let seen: Document<ConsumerRecord> = await documents.get<ConsumerRecord>(key);
  let sinceMs = clock.monotonicMs();
  for (;;) {
    if (options.tail.closed) throw new StreamNotFoundError(stream);
    const free = seen.value === undefined || seen.value.owner === "";
    if (free || options.takeOver || clock.monotonicMs() - sinceMs >= LEASE_MS) {
      // Where it begins is written down: else what retention takes before its first checkpoint would go unnoticed.
      const positions = (await keptPositions(options, seen.value)) ?? beginnings(options.tail);
      const record: ConsumerRecord = { ...seen.value, name, owner, beat: 0, positions };
      const revision = await documents.put(key, record, seen.revision);
      if (revision === undefined) {
        // It was stored and removed with its stream, or another gateway's came first.
        if (options.tail.closed) throw new StreamNotFoundError(stream);
        if (!options.takeOver) throw new LeaseHeldError(stream, name);
        seen = await documents.get<ConsumerRecord>(key);
        continue;
      }
      return new LeasedConsumer(options, record, revision);
    }
    await pause(LOOK_EVERY_MS, options.signal);
    if (options.signal.aborted) throw new LeaseHeldError(stream, name);
    const askedMs = clock.monotonicMs();
    const now = await documents.get<ConsumerRecord>(key);
    // While the cluster itself was silent the holder could not write either.
    if (clock.monotonicMs() - askedMs > LEASE_MS / 4) sinceMs = clock.monotonicMs();
    if (now.revision !== seen.revision) {
      if (now.value !== undefined && now.value.owner !== "") throw new LeaseHeldError(stream, name);
      sinceMs = clock.monotonicMs();
      seen = now;
    }
  }
}

/**
 * Nodes that lost power before they had synced give the places out again that they lost. A checkpoint behind
 * the end of the log would pass over the records that come to stand there.
 */
async function keptPositions(
  { tail, log, stream, name, mark }: LeasedConsumerOptions,
  value: ConsumerRecord | undefined,
): Promise<Readonly<Record<ShardId, Offset>> | undefined> {
  if (value === undefined) return undefined;
  const isBehind = (position: Offset): boolean => position > offsetOf(tail.target + 1);
  const isAnyBehind = (): boolean => Object.values(value.positions).some(isBehind);
  // What another gateway read last may not be heard of here yet.
  if (isAnyBehind()) await tail.poll();
  // A leader that was just chosen may lag behind its own log; what is stored now comes behind all that is there.
  if (isAnyBehind()) await mark();
  if (!isAnyBehind()) return value.positions;
  const end = offsetOf(tail.target + 1);
  const positions = Object.entries(value.positions).map(([shardId, position]): [ShardId, Offset] => {
    if (position <= end) return [shardId, position];
    log.error(
      { stream, consumer: name, shardId, checkpoint: position, end },
      "the NATS cluster lost messages that this consumer had read; it goes on with what comes next",
    );
    return [shardId, end];
  });
  return Object.fromEntries(positions);
}

export class LeasedConsumer implements Consumer, Handover {
  readonly #options: LeasedConsumerOptions;
  readonly #keptBytes: KeptBytes;
  readonly #readable: ReadableShards;
  readonly #waiting = new Set<() => void>();
  readonly #timer: NodeJS.Timeout;
  #record: ConsumerRecord;
  #revision: number;
  readonly #lost = new AbortController();
  #closing: Promise<void> | undefined;
  #beating = false;
  /** One write after the other: each expects the revision that the one before left. */
  #last: Promise<void> = Promise.resolve();

  constructor(options: LeasedConsumerOptions, record: ConsumerRecord, revision: number) {
    this.#options = options;
    this.#readable = new ReadableShards(options.tail);
    this.#keptBytes = new KeptBytes(options.documents, options.key);
    this.#record = record;
    this.#revision = revision;
    this.#timer = setInterval(() => this.#beat(), HEARTBEAT_MS);
    this.#timer.unref();
  }

  get stream(): string {
    return this.#options.stream;
  }

  get name(): string {
    return this.#options.name;
  }

  get lost(): AbortSignal {
    return this.#lost.signal;
  }

  get handover(): Handover {
    return this;
  }

  get note(): unknown {
    return this.#record.note;
  }

  get #held(): boolean {
    return !this.#lost.signal.aborted;
  }

  get shards(): readonly ShardId[] {
    return [...this.#sorted().readable];
  }

  #sorted(): SortedShards {
    return this.#readable.of(this.#record.positions);
  }

  positions(): ReadonlyMap<ShardId, Offset> {
    const { history } = this.#options.tail;
    const { positions } = this.#record;
    return new Map(this.shards.map((shardId) => [shardId, positionIn(positions, history.shard(shardId))]));
  }

  async changed(signal: AbortSignal): Promise<void> {
    const before = this.#sorted().readable;
    while (this.#held && !signal.aborted && areSame(this.#sorted().readable, before)) {
      const woken = new AbortController();
      const wake = (): void => woken.abort();
      this.#waiting.add(wake);
      signal.addEventListener("abort", wake, { once: true });
      await this.#options.tail.next(woken.signal);
      signal.removeEventListener("abort", wake);
      this.#waiting.delete(wake);
      if (this.#options.tail.closed) return;
    }
  }

  checkpoint(positions: ReadonlyMap<ShardId, Offset>): Promise<void> {
    const wanted = new Map(positions);
    return this.#inTurn(() => this.#checkpoint(wanted));
  }

  keep(note: unknown, positions: ReadonlyMap<ShardId, Offset> = new Map()): Promise<void> {
    const wanted = new Map(positions);
    return this.#inTurn(() => this.#checkpoint(wanted, { note }));
  }

  async keptBytes(): Promise<Buffer | undefined> {
    const { kept } = this.#record;
    const bytes = await this.#keptBytes.open(kept, () => this.#inTurn(() => this.#checkpoint(new Map(), {})));
    if (kept !== undefined && bytes === undefined)
      throw new HandoverDamagedError(this.stream, this.name, `${kept.pieces} pieces under ${kept.id}`);
    return bytes;
  }

  async keepBytes(
    pieces: readonly Uint8Array[],
    positions: ReadonlyMap<ShardId, Offset> = new Map(),
  ): Promise<void> {
    const wanted = new Map(positions);
    if (!this.#held) throw this.#loss();
    // Not in turn: signs of life go on meanwhile.
    const kept = await this.#keptBytes.write(pieces);
    const before = await this.#inTurn(async () => {
      const named = this.#record.kept;
      await this.#checkpoint(wanted, { kept });
      return named;
    }).catch((error: unknown) => {
      // Otherwise the next holder sees whether it was written.
      if (error instanceof BadCheckpointError) this.#inBackground(this.#keptBytes.drop(kept));
      if (error instanceof LeaseLostError) this.#inBackground(this.#dropUnlessNamed(kept));
      throw error;
    });
    if (before !== undefined) this.#inBackground(this.#keptBytes.drop(before));
  }

  /** Of a write that was refused an earlier try may have been stored: a leader that was just chosen does not know yet. */
  async #dropUnlessNamed(kept: KeptRef): Promise<void> {
    const { documents, key, owner, tail } = this.#options;
    const { revision, value } = await documents.get<ConsumerRecord>(key);
    const isTaken = value !== undefined && value.owner !== owner && revision > this.#revision;
    // Deleted with its stream: some of them may have come behind the removal of the others.
    const isGone = value === undefined && this.#closing === undefined && tail.closed && !tail.isLost;
    if (isGone || (isTaken && value.kept?.id !== kept.id)) await this.#keptBytes.drop(kept);
  }

  /** Whoever waits need not wait for that, and the next holder would do it, too. */
  #inBackground(dropped: Promise<void>): void {
    dropped.catch((error: unknown) => {
      const { log, stream, name } = this.#options;
      log.warn(
        { stream, consumer: name, error: describeError(error) },
        "what was kept before is not removed yet",
      );
    });
  }

  async #checkpoint(
    wanted: ReadonlyMap<ShardId, Offset>,
    more?: Pick<ConsumerRecord, "note" | "kept">,
  ): Promise<void> {
    if (!this.#held) throw this.#loss();
    const positions = this.#moved(wanted);
    const isMoved = [...wanted.keys()].some((id) => positions[id] !== this.#record.positions[id]);
    if (isMoved || more !== undefined) {
      await this.#write({ ...this.#record, beat: this.#record.beat + 1, positions, ...more });
    }
    for (const wake of [...this.#waiting]) wake();
  }

  #moved(wanted: ReadonlyMap<ShardId, Offset>): Record<ShardId, Offset> {
    const { tail } = this.#options;
    const { history } = tail;
    const { done, readable } = this.#sorted();
    const merged: Record<ShardId, Offset> = {};
    for (const [shardId, offset] of Object.entries(this.#record.positions)) {
      // Shards that expired leave; those that another gateway made, and this one has not heard of, do not.
      if (history.hasForgotten(shardId)) continue;
      // Another gateway may not know that nothing stands between its newest record and where it was closed.
      merged[shardId] = done.has(shardId) ? Math.max(offset, endOf(history.shard(shardId))) : offset;
    }
    for (const [shardId, offset] of wanted) {
      if (history.hasForgotten(shardId)) continue;
      const shard = history.shard(shardId);
      const isDone = done.has(shardId);
      if (!isDone && !readable.has(shardId)) throw this.#bad(`${shardId} comes after its parents`);
      const known = merged[shardId] ?? 0;
      if (!Number.isSafeInteger(offset) || offset < (isDone ? 0 : known)) {
        throw this.#bad(`${shardId} would go back from ${known} to ${offset}`);
      }
      const latest = Math.max(known, furthestOf(tail, shard, offset));
      if (offset > latest) throw this.#bad(`${shardId} ends at ${latest}, before ${offset}`);
      merged[shardId] = Math.max(known, offset);
    }
    return merged;
  }

  #bad(reason: string): BadCheckpointError {
    return new BadCheckpointError(this.stream, this.name, reason);
  }

  #loss(): LeaseLostError {
    return new LeaseLostError(this.stream, this.name);
  }

  async #write(record: ConsumerRecord): Promise<void> {
    const { documents, key, owner } = this.#options;
    let revision = await documents.put(key, record, this.#revision);
    if (revision === undefined) {
      // Another's attempt, stored at the same moment and void, moves the revision all the same. After the end it may be
      // that of this gateway's next holder, who has the same owner.
      const now = await documents.get<ConsumerRecord>(key);
      const own = this.#held && now.value?.owner === owner && now.value.beat === this.#record.beat;
      if (own) revision = await documents.put(key, record, now.revision);
    }
    if (revision === undefined) {
      this.#end();
      throw this.#loss();
    }
    this.#revision = revision;
    this.#record = record;
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#last.catch(() => undefined).then(work);
    this.#last = done.then(
      () => undefined,
      () => undefined,
    );
    return done;
  }

  #beat(): void {
    if (this.#beating || !this.#held) return;
    this.#beating = true;
    this.#inTurn(async () => {
      if (this.#held) await this.#write({ ...this.#record, beat: this.#record.beat + 1 });
    })
      .catch((error: unknown) => {
        const { log, stream, name } = this.#options;
        log.warn({ stream, consumer: name, error: describeError(error) }, "a lease was not renewed");
      })
      .finally(() => {
        this.#beating = false;
      });
  }

  #end(): void {
    this.#lost.abort();
    clearInterval(this.#timer);
    this.#options.released();
    for (const wake of [...this.#waiting]) wake();
  }

  /** The stream was deleted. Waits for a checkpoint on its way. */
  async lose(): Promise<void> {
    if (this.#held) this.#end();
    await this.#last;
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    const given = new AbortController();
    void this.#inTurn(async () => {
      // Without an owner another gateway takes it at once.
      if (this.#held) await this.#write({ ...this.#record, owner: "" });
    })
      .catch(() => undefined)
      .finally(() => given.abort());
    await pause(CLOSE_WITHIN_MS, given.signal);
    if (this.#held) this.#end();
  }
}
