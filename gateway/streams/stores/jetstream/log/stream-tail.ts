/**
 * One stream as this gateway knows it: every message up to the tip, taken in the order of the log.
 *
 *   own publishes ─offer→ ┐
 *   others' (told, or asked for once a second) ─get→ ┴ → shards, producers, cache, waiting readers
 *
 * It has no JetStream consumer that could be lost with a node: it knows the sequence that it must
 * reach and gets what it lacks by sequence, from any replica.
 */
import { pause } from "../../../../../runtime/backoff.ts";
import type { Clock } from "../../../../../runtime/clock.ts";
import { describeError } from "../../../../../runtime/errors.ts";
import type { Log } from "../../../../../runtime/log.ts";
import { StreamNotFoundError, StreamsClosedError } from "../../../streams.ts";
import { Listeners } from "../../listeners.ts";
import type { Link, StreamState } from "../cluster/link.ts";
import { expectedOf, ID_HEADER, type StoredMessage } from "../cluster/stored-message.ts";
import { Acknowledged } from "./acknowledged.ts";
import { PastEntries } from "./past-entries.ts";
import { ProducerStates, stateOf } from "./producer-states.ts";
import { ShardEnds } from "./shard-ends.ts";
import { type MapContent, mapIn, ShardHistory } from "./shard-history.ts";
import { StreamHealth } from "./stream-health.ts";
import { CacheRoom, EntryCache, openMessage, type TailEntry } from "./tail-entry.ts";
import { VoidMessages } from "./void-messages.ts";

const POLL_MS = 1_000;
/** Messages asked for at once, at most. */
const GETS = 32;
const RETRY_MS = 200;
const MAX_LAGGING_GETS = 8;
/** They have one log. */
const ALL_SHARDS = 0;
/** Under which earlier versions wrote records without a producer, all gateways together. */
const FORMER_TOKEN = "r";

export interface TailOptions {
  readonly link: Link;
  readonly clock: Clock;
  readonly log: Log;
  /** Name of the Headwater stream, of the JetStream stream, and its subject without the last token. */
  readonly name: string;
  readonly stream: string;
  readonly subject: string;
  readonly map: MapContent;
  /** Shared with the other streams; of its own unless given. */
  readonly room?: CacheRoom;
}

export class StreamTail {
  readonly history: ShardHistory;
  readonly producers = new ProducerStates();
  readonly ends: ShardEnds;
  readonly past: PastEntries;
  readonly #options: TailOptions;
  readonly #staged = new Map<number, StoredMessage>();
  /** Whether a message counts, where the cluster had to be asked. */
  readonly #verdicts = new Map<number, boolean>();
  readonly #cache: EntryCache;
  readonly #void = new VoidMessages();
  readonly #acknowledged: Acknowledged;
  readonly #health: StreamHealth;
  #started = false;
  readonly #listeners = new Listeners();
  #target = 0;
  #pumping: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #closed: Error | undefined;
  /** All up to it was taken. */
  tip = 0;
  firstSequence = 1;
  storedBytes = 0;
  /** How long the cluster keeps a message. */
  maxAgeNs = 0;

  constructor(options: TailOptions) {
    this.#options = options;
    this.#cache = new EntryCache(options.room ?? new CacheRoom());
    this.ends = new ShardEnds(options.clock);
    this.history = new ShardHistory(options.name, options.map);
    this.#acknowledged = new Acknowledged(options);
    this.past = new PastEntries({
      cache: this.#cache,
      history: this.history,
      firstSequence: () => this.firstSequence,
      fetch: (sequence) => this.fetch(sequence),
      known: (message) => this.#judged(message),
      judge: (message) => this.#judge(message),
      keep: (entry) => this.#keep(entry),
    });
    this.#health = new StreamHealth(options);
  }

  /**
   * Begins at the end of the log; what is remembered of producers and shards is fetched. What is
   * stored meanwhile is behind that end and is taken as all that comes later.
   */
  async start(): Promise<void> {
    const { link, stream, subject } = this.#options;
    const { subjects, ...state } = await link.state(stream, `${subject}.>`);
    this.#note(state);
    this.tip = state.lastSequence;
    this.ends.begin(this.tip);
    this.#void.judgedFrom = this.tip + 1;
    this.#target = Math.max(this.#target, this.tip);
    const tokens = subjects.map((one) => one.slice(subject.length + 1));
    const wanted = tokens.filter((token) => token !== FORMER_TOKEN && token !== "map");
    for (let from = 0; from < wanted.length; from += GETS) {
      await Promise.all(wanted.slice(from, from + GETS).map((token) => this.#restore(token)));
    }
    this.producers.restored();
    // The newest record is somebody's last one. Known before the map, as a shard was not closed before its last record came.
    for (const arrivalMs of this.producers.arrivals()) this.ends.arrived(arrivalMs);
    if (tokens.includes("map")) await this.#restore("map");
    await this.poll();
    await this.#catchUp();
    this.#started = true;
    this.#pump();
    let polling = false;
    this.#timer = setInterval(() => {
      if (polling) return;
      polling = true;
      this.poll()
        .then(() => this.#acknowledged.look())
        .catch((error: unknown) => this.#fail("asking for a stream's state failed", error))
        .finally(() => {
          polling = false;
        });
    }, POLL_MS);
    this.#timer.unref();
  }

  /** It may know of messages behind the tip: they are recognised when they are taken. */
  async #restore(token: string): Promise<void> {
    const { link, stream, subject } = this.#options;
    const found = await link.lastThatCounts(stream, `${subject}.${token}`);
    if (found === undefined) return;
    this.#remember(token, found.message);
    if (token === "map") this.history.mapSeen(found.lastSequence);
    else this.producers.set(token, { ...stateOf(found.message), sequence: found.lastSequence });
  }

  #remember(token: string, message: StoredMessage): void {
    if (token === "map") {
      this.history.adopt(mapIn(message), message.sequence, this.ends.arrivalMs);
    } else this.producers.set(token, stateOf(message));
  }

  /** The newest message that this gateway heard of. */
  get target(): number {
    return this.#target;
  }

  /** Asks what others did, in case that nobody told. */
  async poll(): Promise<void> {
    const { link, stream } = this.#options;
    const { target } = this;
    const state = await link.state(stream);
    this.#note(state);
    this.learn(state.lastSequence);
    this.#health.hasUpTo(state.lastSequence, target);
  }

  /** What is known here does not hold any more, as the cluster lost messages: it has to be followed anew. */
  get isLost(): boolean {
    return this.#health.isLost;
  }

  #note(state: Pick<StreamState, "firstSequence" | "bytes" | "maxAgeNs">): void {
    this.firstSequence = Math.max(this.firstSequence, state.firstSequence);
    this.storedBytes = state.bytes;
    this.maxAgeNs = state.maxAgeNs;
  }

  /** By another gateway's word: the sequence of what was acknowledged there, and its message id. */
  hear(text: string): void {
    const [sequence, id = ""] = text.split(" ");
    this.#acknowledged.note(Number(sequence), id);
    this.learn(Number(sequence));
  }

  /** The stream holds a message of this sequence. */
  learn(sequence: number): void {
    if (!Number.isSafeInteger(sequence) || sequence <= this.#target) return;
    this.#target = sequence;
    if (this.#started) this.#pump();
  }

  /** A message of our own, so that it need not be fetched. */
  offer(message: StoredMessage): void {
    this.#acknowledged.note(message.sequence, message.header(ID_HEADER));
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

  /** The same of a subject's last message; where a lagging leader did not tell of it at the start, it is asked for now. */
  async reachLast(token: string, sequence: number): Promise<void> {
    await this.reach(sequence);
    const known = token === "map" ? this.history.lastMapAt : this.producers.get(token).sequence;
    if (known < sequence) await this.#restore(token);
  }

  /** Resolves when the tip moves, or on abort. */
  next(signal?: AbortSignal): Promise<void> {
    const { tip } = this;
    return this.#listeners.wait(ALL_SHARDS, () => this.tip !== tip || this.closed, signal);
  }

  #pump(): void {
    this.#takeStaged();
    if (this.tip >= this.#target || this.#pumping !== undefined || this.#closed !== undefined) return;
    this.#pumping = this.#catchUp()
      .catch((error: unknown) => {
        this.#fail("following a stream failed", error);
        return pause(RETRY_MS, this.#options.link.signal);
      })
      .finally(() => {
        this.#pumping = undefined;
        if (this.tip < this.#target) this.#pump();
      });
  }

  /** Stops where the next one is missing, or where the cluster must be asked whether it counts. */
  #takeStaged(): void {
    const before = this.tip;
    for (;;) {
      const message = this.#staged.get(this.tip + 1);
      if (message === undefined) break;
      const counts = this.#counts(message) ?? this.#verdicts.get(message.sequence);
      if (counts === undefined) break;
      this.#staged.delete(message.sequence);
      this.#verdicts.delete(message.sequence);
      this.#take(message, counts);
    }
    if (this.tip !== before) this.#listeners.checkAll();
  }

  async #catchUp(): Promise<void> {
    while (this.tip < this.#target && this.#closed === undefined) {
      const from = this.tip + 1;
      const wanted: number[] = [];
      const most = this.#options.link.gets.ahead(this.#options.stream, from, GETS);
      for (let at = from; at <= this.#target && wanted.length < most; at++) {
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
      const next = this.#staged.get(this.tip + 1);
      if (next === undefined) continue;
      this.#verdicts.set(next.sequence, await this.#judge(next));
      this.#takeStaged();
    }
  }

  /** A message that is known to be stored; undefined when it is not kept any more. */
  async fetch(sequence: number): Promise<StoredMessage | undefined> {
    const { link, stream, name, log } = this.#options;
    for (let tries = 0; ; tries++) {
      if (sequence < this.firstSequence) return undefined;
      const given = await link.get(stream, sequence);
      this.#acknowledged.compare(given);
      const found = given ?? (tries > 0 ? await link.leaderGet(stream, { seq: sequence }) : undefined);
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

  #tokenOf(message: StoredMessage): string {
    return message.subject.slice(this.#options.subject.length + 1);
  }

  /**
   * Whether it stands right behind what it expected; only such a one counts.
   * Undefined where the cluster must be asked.
   */
  #counts(message: StoredMessage): boolean | undefined {
    const token = this.#tokenOf(message);
    // Maps say themselves which one they follow; earlier versions' records without a producer expect nothing.
    if (token === "" || token === FORMER_TOKEN || token === "map") return true;
    const { sequence } = this.producers.get(token);
    const expected = expectedOf(message);
    // Known since the start already, with others behind it.
    if (message.sequence <= sequence) return undefined;
    if (expected === sequence) return true;
    // Expecting nothing is right where retention took what is known here.
    return expected === 0 || expected > sequence ? undefined : false;
  }

  /** By the leader's word, unless another node's message was acknowledged and the leader's was not. */
  async #judge(message: StoredMessage): Promise<boolean> {
    const verdict = await this.#options.link.counts(this.#options.stream, message);
    return verdict === "elsewhere" ? this.#acknowledged.isContradicted(message) : verdict;
  }

  #take(message: StoredMessage, counts: boolean): void {
    const { name, log } = this.#options;
    this.tip = message.sequence;
    const token = this.#tokenOf(message);
    if (token === "") return;
    if (!counts) {
      this.#leaveOut(token, message.sequence);
      return;
    }
    try {
      if (token !== FORMER_TOKEN) this.#remember(token, message);
      const entry = token === "map" ? undefined : openMessage(this.history, message);
      if (entry === undefined) return;
      this.#keep(entry);
      this.ends.take(entry, this.firstSequence);
    } catch (error) {
      log.error(
        { stream: name, sequence: message.sequence, error: describeError(error) },
        "a message cannot be read",
      );
    }
  }

  #leaveOut(token: string, sequence: number): void {
    // The next one of its subject has to expect it all the same.
    this.producers.set(token, { ...this.producers.get(token), sequence });
    this.#void.add(sequence);
  }

  /** It was stored beside another that expected the same, and does not count. */
  isVoid(sequence: number): boolean {
    return this.#void.has(sequence);
  }

  /** Whether a message holds records that count, as far as it was taken here; undefined for what is older than that. */
  #judged({ sequence, subject }: StoredMessage): boolean | undefined {
    if (subject.endsWith(`.${FORMER_TOKEN}`)) return true;
    if (subject.endsWith(".map") || this.isVoid(sequence)) return false;
    return sequence >= this.#void.judgedFrom && sequence <= this.tip ? true : undefined;
  }

  /** Who was waiting for it when the stream was closed gets it, but it takes up no room. */
  #keep(entry: TailEntry): void {
    if (this.#closed === undefined) this.#cache.keep(entry);
  }

  #fail(what: string, error: unknown): void {
    if (this.#closed !== undefined || error instanceof StreamsClosedError) return;
    if (error instanceof StreamNotFoundError) {
      this.#health.isGone();
      return;
    }
    this.#options.log.error({ stream: this.#options.name, error: describeError(error) }, what);
  }

  #refuseWhenClosed(): void {
    if (this.#closed !== undefined) throw this.#closed;
  }

  get closed(): boolean {
    return this.#closed !== undefined;
  }

  /** Why it was closed. */
  get closedBy(): Error | undefined {
    return this.#closed;
  }

  close(reason: Error): void {
    this.#closed ??= reason;
    clearInterval(this.#timer);
    this.#cache.clear();
    this.#listeners.checkAll();
    this.#listeners.rest();
  }
}

const NOTHING = Buffer.alloc(0);
