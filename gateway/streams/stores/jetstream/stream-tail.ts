/**
 * One stream as this gateway knows it: every message up to the tip, taken in the order of the log.
 *
 *   own publishes ─offer→ ┐
 *   others' (told, or asked for once a second) ─get→ ┴ → shards, producers, cache, waiting readers
 *
 * It has no JetStream consumer that could be lost with a node: it knows the sequence that it must
 * reach and gets what it lacks by sequence, from any replica.
 */
import { pause } from "../../../../runtime/backoff.ts";
import type { Clock } from "../../../../runtime/clock.ts";
import { describeError } from "../../../../runtime/errors.ts";
import type { Log } from "../../../../runtime/log.ts";
import { type LogPart, type Offset, StreamNotFoundError, StreamsClosedError } from "../../streams.ts";
import { decodeEntry, type HashedRun, offsetOf } from "./entry.ts";
import { expectedOf, type Link, type StoredMessage } from "./link.ts";
import { ProducerStates, stateOf } from "./producer-states.ts";
import { type MapContent, ShardHistory } from "./shard-history.ts";

const POLL_MS = 1_000;
/** Messages asked for at once. */
const GETS = 32;
const CACHED_BYTES = 32 * 1_048_576;
const MAX_LAGGING_GETS = 8;
const MAX_VOID = 10_000;

/** A message, taken apart by shard. */
export interface TailEntry {
  readonly sequence: number;
  readonly arrivalMs: number;
  readonly bytes: number;
  readonly runs: readonly HashedRun[];
  /** Shard index → its records, where they stand one behind the other. */
  readonly parts: ReadonlyMap<number, readonly LogPart[]>;
}

export interface TailOptions {
  readonly link: Link;
  readonly clock: Clock;
  readonly log: Log;
  /** Name of the Headwater stream, of the JetStream stream, and its subject without the last token. */
  readonly name: string;
  readonly stream: string;
  readonly subject: string;
  readonly map: MapContent;
  /** Called when the log says something newer of the shards than `map`. */
  readonly onMap: (content: MapContent) => void;
}

export class StreamTail {
  readonly history: ShardHistory;
  readonly producers = new ProducerStates();
  readonly #options: TailOptions;
  readonly #staged = new Map<number, StoredMessage>();
  readonly #cache = new Map<number, TailEntry>();
  readonly #appended = new Map<number, number>();
  /** Shard index → behind its newest record that came since the start. */
  readonly #ends = new Map<number, number>();
  /** Those of the last messages that do not count. */
  readonly #void = new Set<number>();
  #startedAt = 0;
  readonly #listeners = new Set<() => void>();
  #cachedBytes = 0;
  #target = 0;
  #pumping: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #closed: Error | undefined;
  /** All up to it was taken. */
  tip = 0;
  firstSequence = 1;
  storedBytes = 0;

  constructor(options: TailOptions) {
    this.#options = options;
    this.history = new ShardHistory(options.name, options.map);
  }

  /** Begins at the end of the log; what is remembered of producers and shards is fetched. */
  async start(): Promise<void> {
    const { link, stream, subject } = this.#options;
    const { subjects, ...state } = await link.state(stream, `${subject}.>`);
    this.#note(state);
    this.tip = state.lastSequence;
    this.#startedAt = this.tip;
    this.#target = this.tip;
    const wanted = subjects.map((one) => one.slice(subject.length + 1)).filter((token) => token !== "r");
    for (let from = 0; from < wanted.length; from += GETS) {
      await Promise.all(wanted.slice(from, from + GETS).map((token) => this.#restore(token)));
    }
    this.#timer = setInterval(() => {
      this.poll().catch((error: unknown) => this.#fail("asking for a stream's state failed", error));
    }, POLL_MS);
    this.#timer.unref();
  }

  async #restore(token: string): Promise<void> {
    const { link, stream, subject } = this.#options;
    const found = await link.lastThatCounts(stream, `${subject}.${token}`);
    if (found === undefined) return;
    if (token === "map") this.#remember(token, found.message);
    else this.producers.set(token, { ...stateOf(found.message), sequence: found.lastSequence });
  }

  #remember(token: string, message: StoredMessage): void {
    if (token === "map") {
      const content = JSON.parse(Buffer.from(message.payload).toString()) as MapContent;
      if (this.history.adopt(content, message.sequence)) this.#options.onMap(this.history.content);
    } else this.producers.set(token, stateOf(message));
  }

  /** Asks what others did, in case that nobody told. */
  async poll(): Promise<void> {
    const state = await this.#options.link.state(this.#options.stream);
    this.#note(state);
    this.learn(state.lastSequence);
  }

  #note(state: { firstSequence: number; bytes: number }): void {
    this.firstSequence = Math.max(this.firstSequence, state.firstSequence);
    this.storedBytes = state.bytes;
  }

  /** The stream holds a message of this sequence. */
  learn(sequence: number): void {
    if (!Number.isSafeInteger(sequence) || sequence <= this.#target) return;
    this.#target = sequence;
    this.#pump();
  }

  /** A message of our own, so that it need not be fetched. */
  offer(message: StoredMessage): void {
    if (message.sequence > this.tip) this.#staged.set(message.sequence, message);
    this.learn(message.sequence);
    this.#pump();
  }

  /** Resolves when all up to `sequence` was taken. */
  async reach(sequence: number): Promise<void> {
    this.learn(sequence);
    while (this.tip < sequence) {
      this.#refuseWhenClosed();
      await this.next();
    }
  }

  /** Resolves when the tip moves, or on abort. */
  next(signal?: AbortSignal): Promise<void> {
    if (signal?.aborted || this.#closed !== undefined) return Promise.resolve();
    return new Promise((resolve) => {
      const end = (): void => {
        this.#listeners.delete(end);
        signal?.removeEventListener("abort", end);
        resolve();
      };
      this.#listeners.add(end);
      signal?.addEventListener("abort", end, { once: true });
    });
  }

  #pump(): void {
    this.#takeStaged();
    if (this.tip >= this.#target || this.#pumping !== undefined || this.#closed !== undefined) return;
    this.#pumping = this.#catchUp()
      .catch((error: unknown) => this.#fail("following a stream failed", error))
      .finally(() => {
        this.#pumping = undefined;
        if (this.tip < this.#target) this.#pump();
      });
  }

  #takeStaged(): void {
    const before = this.tip;
    for (;;) {
      const message = this.#staged.get(this.tip + 1);
      if (message === undefined) break;
      this.#staged.delete(message.sequence);
      this.#take(message);
    }
    if (this.tip !== before) this.#wake();
  }

  async #catchUp(): Promise<void> {
    while (this.tip < this.#target && this.#closed === undefined) {
      const from = this.tip + 1;
      const wanted: number[] = [];
      for (let at = from; at <= this.#target && wanted.length < GETS; at++) {
        if (!this.#staged.has(at)) wanted.push(at);
      }
      await Promise.all(
        wanted.map(async (sequence) => {
          const message = await this.fetch(sequence);
          // Retention took it, or nobody has it: the place stays empty.
          this.#staged.set(
            sequence,
            message ?? { sequence, subject: "", payload: NOTHING, header: () => "" },
          );
        }),
      );
      this.#takeStaged();
    }
  }

  /** A message that is known to be stored; undefined when it is not kept any more. */
  async fetch(sequence: number): Promise<StoredMessage | undefined> {
    const { link, stream, name, log } = this.#options;
    for (let tries = 0; ; tries++) {
      if (sequence < this.firstSequence) return undefined;
      const found =
        (await link.get(stream, sequence)) ??
        (tries > 0 ? await link.leaderGet(stream, { seq: sequence }) : undefined);
      if (found !== undefined) return found;
      if (tries === 0) continue;
      // A replica that lags, a leader that has just been chosen, or retention: its state tells.
      const state = await link.state(stream);
      this.#note(state);
      if (state.lastSequence >= sequence && tries >= MAX_LAGGING_GETS) {
        log.error({ stream: name, sequence }, "a message is missing from the NATS stream; it is left out");
        return undefined;
      }
      await pause(25 * 2 ** Math.min(tries, 6), link.signal);
      this.#refuseWhenClosed();
    }
  }

  #take(message: StoredMessage): void {
    const { subject, name, log } = this.#options;
    this.tip = message.sequence;
    const token = message.subject.slice(subject.length + 1);
    if (token === "") return;
    try {
      // Before the entry is routed: it is not changed by its own state.
      if (token !== "r" && token !== "map" && !this.#counts(token, message)) return;
      if (token !== "r") this.#remember(token, message);
      const entry = token === "map" ? undefined : this.open(message);
      if (entry === undefined) return;
      this.#keep(entry);
      for (const [shard, parts] of entry.parts) {
        const count = parts.reduce((sum, part) => sum + part.count, 0);
        this.#appended.set(shard, (this.#appended.get(shard) ?? 0) + count);
        const last = parts.at(-1)!;
        this.#ends.set(shard, last.first + last.count);
      }
    } catch (error) {
      log.error(
        { stream: name, sequence: message.sequence, error: describeError(error) },
        "a message cannot be read",
      );
    }
  }

  /** Of a producer's message in its turn: what does not stand right behind what it expected is void. */
  #counts(token: string, message: StoredMessage): boolean {
    const known = this.producers.get(token);
    // Known since the start already: whether it counts is asked for when it is read.
    if (message.sequence <= known.sequence) return false;
    if (expectedOf(message) === known.sequence || known.sequence < this.firstSequence) return true;
    this.producers.set(token, { ...known, sequence: message.sequence });
    this.#void.add(message.sequence);
    if (this.#void.size > MAX_VOID) this.#void.delete(this.#void.values().next().value!);
    return false;
  }

  /** It was stored beside another that expected the same, and does not count. */
  isVoid(sequence: number): boolean {
    return this.#void.has(sequence);
  }

  /** Takes a message apart by the shards that were open at its place. */
  open(message: StoredMessage): TailEntry {
    const { sequence, payload } = message;
    const { arrivalMs, runs } = decodeEntry(payload);
    const map = this.history.mapAt(sequence);
    const parts = new Map<number, LogPart[]>();
    let index = 0;
    let open: { shard: number; first: number; count: number; runs: HashedRun[] } | undefined;
    const end = (): void => {
      if (open === undefined) return;
      const part = { first: open.first, count: open.count, arrivalMs, runs: open.runs };
      const known = parts.get(open.shard);
      if (known === undefined) parts.set(open.shard, [part]);
      else known.push(part);
    };
    for (const run of runs) {
      const shard = this.history.shardOfRun(run, map);
      if (open?.shard !== shard) {
        end();
        open = { shard, first: offsetOf(sequence, index), count: 0, runs: [] };
      }
      open.runs.push(run);
      open.count += run.count;
      index += run.count;
    }
    end();
    return { sequence, arrivalMs, bytes: payload.length, runs, parts };
  }

  /** Undefined for what holds no records, or is not kept any more. */
  async entry(sequence: number): Promise<TailEntry | undefined> {
    const cached = this.#cache.get(sequence);
    if (cached !== undefined) return cached;
    const message = await this.fetch(sequence);
    if (message === undefined || message.subject.endsWith(".map") || this.isVoid(sequence)) return undefined;
    const { link, stream } = this.#options;
    if (!message.subject.endsWith(".r") && !(await link.counts(stream, message))) return undefined;
    try {
      const entry = this.open(message);
      this.#keep(entry);
      return entry;
    } catch {
      // Told in the log when it was taken; there is nothing to give.
      return undefined;
    }
  }

  #keep(entry: TailEntry): void {
    if (this.#cache.has(entry.sequence)) return;
    this.#cache.set(entry.sequence, entry);
    this.#cachedBytes += entry.bytes;
    for (const [sequence, oldest] of this.#cache) {
      if (this.#cachedBytes <= CACHED_BYTES) break;
      this.#cache.delete(sequence);
      this.#cachedBytes -= oldest.bytes;
    }
  }

  /** Behind the newest record of an open shard; behind the whole log at the start when none came since. */
  latest(shard: number): Offset {
    return this.#ends.get(shard) ?? offsetOf(this.#startedAt + 1);
  }

  /** Since this gateway follows the stream. */
  appendedRecords(shard: number): number {
    return this.#appended.get(shard) ?? 0;
  }

  #wake(): void {
    for (const listener of [...this.#listeners]) listener();
  }

  #fail(what: string, error: unknown): void {
    if (this.#closed !== undefined || error instanceof StreamsClosedError) return;
    // Another gateway deleted it; the metadata will say so.
    if (error instanceof StreamNotFoundError) return;
    this.#options.log.error({ stream: this.#options.name, error: describeError(error) }, what);
  }

  #refuseWhenClosed(): void {
    if (this.#closed !== undefined) throw this.#closed;
  }

  get closed(): boolean {
    return this.#closed !== undefined;
  }

  close(reason: Error): void {
    this.#closed ??= reason;
    clearInterval(this.#timer);
    this.#wake();
  }
}

const NOTHING = Buffer.alloc(0);
