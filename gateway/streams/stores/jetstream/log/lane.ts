/**
 * A queue of appends to one subject, with one publish in flight: all that waits goes out as one
 * message, so the order of calls is the order of storing, whatever has to be sent again. A lane
 * expects the subject's last message to be the one that it knows. Where another gateway came between, as
 * may be with an epoch or a client, it looks at what that stored and judges anew; where a repetition of
 * its own did, it sends its message again behind that.
 */
import { pause } from "../../../../../runtime/backoff.ts";
import type { Clock } from "../../../../../runtime/clock.ts";
import { type AppendOutcome, LogBusyError, PublishTooLateError } from "../../../streams.ts";
import type { Link } from "../cluster/link.ts";
import { isOf, type Sent, sentBy } from "../cluster/message-ids.ts";
import { EXPECTED_HEADER, ID_HEADER } from "../cluster/stored-message.ts";
import { encodeEntry, type HashedRun, RECORDS_PER_MESSAGE } from "./entry.ts";
import {
  gatewayToken,
  type ProducerState,
  REMEMBERED_PUBLISHES,
  type Remembered,
  stateHeaders,
} from "./producer-states.ts";
import type { StreamTail } from "./stream-tail.ts";

const GROUP_BYTES = 2 * 1_048_576;
const LAGGING_MS = 50;
export const MAX_WAITING_BYTES = 64 * 1_048_576;

/** Where the records of a work begin: a message, and an index in it. */
export interface WorkPlace {
  readonly sequence: number;
  readonly index: number;
  readonly arrivalMs: number;
}

export interface Work {
  readonly runs: readonly HashedRun[];
  readonly records: number;
  readonly bytes: number;
  /** What it does to the state of its producer; undefined where it has none. */
  readonly frame?: bigint;
  readonly identity?: { readonly text: string; readonly mayRepeat: boolean };
  /** What was known of the log when it was handed in, and of the producer's publishes. */
  readonly tip: number;
  readonly recent: readonly string[];
  readonly forget?: boolean;
  /** Says again what is remembered, unless that was said at this time or later. */
  readonly renewBeforeMs?: number;
  /** Another gateway hears its client now: it sends this again there. */
  isLeft?: true;
  done(outcome: AppendOutcome, place: WorkPlace | undefined): void;
  failed(error: unknown): void;
}

export interface LaneHost {
  readonly link: Link;
  readonly tail: StreamTail;
  readonly clock: Clock;
  readonly name: string;
  readonly stream: string;
  readonly subject: string;
  /** Told after each message that was stored. */
  readonly stored: (sequence: number, messageId: string) => void;
  /** Rising, shared by the lanes of a stream. */
  readonly arrivalMs: () => number;
  /** Bytes that wait in all lanes of the stream. */
  waitingBytes: number;
  /** Too many waited: nothing is taken until half of them are stored. */
  isBusy: boolean;
}

export class Lane {
  readonly #host: LaneHost;
  readonly #token: string;
  /** Works have identities that may come by other gateways, too. */
  readonly #ofProducer: boolean;
  readonly #queue: Work[] = [];
  /** On their way to the cluster. */
  #underWay: readonly Work[] = [];
  #running: Promise<void> | undefined;
  /** Sequence of the last message that this lane stored. */
  #own = 0;
  /** And of the last one that another gateway did. */
  #others = 0;

  constructor(host: LaneHost, token: string) {
    this.#host = host;
    this.#token = token;
    this.#ofProducer = token !== gatewayToken(host.link.id);
  }

  get idle(): boolean {
    return this.#running === undefined;
  }

  /** Whether one of the publishes that are not stored yet is such a one, and its client's session goes on. */
  awaits(isSuch: (identity: string) => boolean): boolean {
    for (const works of [this.#queue, this.#underWay]) {
      for (let i = works.length - 1; i >= 0; i--) {
        const { forget, identity } = works[i]!;
        if (forget) return false;
        if (identity !== undefined && isSuch(identity.text)) return true;
      }
    }
    return false;
  }

  /**
   * Another gateway hears this lane's client now: of its publishes that are not stored yet none is stored any more, but for those of a
   * session that ended in peace, which are not sent again.
   */
  leave(): void {
    for (const works of [this.#queue, this.#underWay]) {
      for (let i = works.length - 1; i >= 0; i--) {
        const work = works[i]!;
        if (work.forget) return;
        if (work.identity !== undefined) work.isLeft = true;
      }
    }
  }

  push(work: Work): void {
    const host = this.#host;
    // A smaller frame behind one that is refused is refused as well: that one would be taken for known.
    host.isBusy ||= host.waitingBytes > 0 && host.waitingBytes + work.bytes > MAX_WAITING_BYTES;
    if (host.isBusy) {
      work.failed(new LogBusyError(host.name, host.waitingBytes));
      return;
    }
    host.waitingBytes += work.bytes;
    this.#queue.push(work);
    this.#running ??= this.#run();
  }

  /** Resolves when nothing waits any more. */
  async drained(): Promise<void> {
    while (this.#running !== undefined) await this.#running;
  }

  async #run(): Promise<void> {
    // One turn of the event loop: calls of the same moment share a message.
    await Promise.resolve();
    while (this.#queue.length > 0) {
      const group = this.#nextGroup();
      this.#underWay = group;
      try {
        if (this.#ofProducer) await this.#storeProducer(group);
        else await this.#storeRecords(group);
      } catch (error) {
        // Behind a frame that is refused no later one may be stored: the refused one would be taken
        // for known when it comes again.
        if (this.#ofProducer) group.push(...this.#queue.splice(0));
        for (const work of group) work.failed(error);
      } finally {
        for (const work of group) this.#host.waitingBytes -= work.bytes;
        if (this.#host.waitingBytes <= MAX_WAITING_BYTES / 2) this.#host.isBusy = false;
      }
    }
    this.#underWay = [];
    // In the same turn in which the queue was seen empty: what is pushed next begins anew.
    this.#running = undefined;
  }

  #nextGroup(): Work[] {
    let count = 0;
    let bytes = 0;
    let records = 0;
    for (const work of this.#queue) {
      bytes += work.bytes;
      records += work.records;
      if (count > 0 && (bytes > GROUP_BYTES || records > RECORDS_PER_MESSAGE)) break;
      count++;
    }
    return this.#queue.splice(0, count);
  }

  async #storeRecords(group: readonly Work[]): Promise<void> {
    const { tail } = this.#host;
    for (;;) {
      const place = await this.#publish(group, {}, tail.producers.get(this.#token).sequence);
      if (place !== undefined && !tail.isVoid(place.sequence)) return settle(group, group, place);
    }
  }

  async #storeProducer(group: readonly Work[]): Promise<void> {
    const { tail } = this.#host;
    let uncertain = false;
    for (;;) {
      const known = tail.producers.get(this.#token);
      if (known.sequence !== this.#own) this.#others = known.sequence;
      const others = this.#others;
      if (group.some((_, i) => isBeyondMemory(group, i, this.#queue, known.recent, others)))
        throw new PublishTooLateError(this.#host.name);
      const { fresh, after, changed } = judge(group, known, uncertain ? Infinity : others);
      if (!changed) return settle(group, [], undefined);
      const place = await this.#publish(fresh, stateHeaders(this.#token, after), known.sequence);
      if (place !== undefined) {
        // Another gateway's was stored at the same moment, before this one, which then does not count.
        if (!tail.isVoid(place.sequence)) {
          this.#own = place.sequence;
          return settle(group, fresh, place);
        }
      }
      uncertain = true;
    }
  }

  /** @returns the place; undefined where another message came between, behind which this one may stand or not */
  async #publish(
    group: readonly Work[],
    fields: Record<string, string>,
    expected: number,
  ): Promise<WorkPlace | undefined> {
    const { link, tail, stream } = this.#host;
    const subject = `${this.#host.subject}.${this.#token}`;
    const arrivalMs = this.#host.arrivalMs();
    const payload = encodeEntry(
      arrivalMs,
      group.flatMap(({ runs }) => runs),
    );
    const id = link.nextMessageId();
    const outcome = await link.publish(stream, subject, payload, fields, expected, id, () => tail.closed);
    let stored: Sent | undefined;
    if (outcome.stored) stored = outcome;
    else {
      const last = await link.leaderGet(stream, { last_by_subj: subject });
      if (last === undefined) await this.#forgetTrimmed(expected);
      else await tail.reachLast(this.#token, last.sequence);
      // It was stored by a try that got no answer, and may have a repetition of an earlier one behind it.
      const { counted } = tail.producers.get(this.#token);
      stored = sentBy(id, last) ?? (isOf(id, counted.id) ? counted : undefined);
      if (stored === undefined) return undefined;
    }
    const storedAs = stored.id;
    let { sequence } = stored;
    const header = (name: string): string => {
      if (name === EXPECTED_HEADER) return String(expected);
      return name === ID_HEADER ? storedAs : (fields[name] ?? "");
    };
    tail.offer({ sequence, subject, payload, header });
    this.#host.stored(sequence, storedAs);
    // All before it is known then, maps too: what is answered is what every reader will see.
    await tail.reach(sequence);
    if (tail.isVoid(sequence)) {
      // Perhaps a try that got no answer was stored before, and counts; this one is its repetition then.
      const { counted } = tail.producers.get(this.#token);
      if (isOf(id, counted.id)) sequence = counted.sequence;
    }
    return { sequence, index: 0, arrivalMs };
  }

  /** Where retention took the subject's last message; a leader that was just chosen may only not know it yet. */
  async #forgetTrimmed(expected: number): Promise<void> {
    const { link, tail } = this.#host;
    await tail.poll();
    if (tail.firstSequence > expected) tail.producers.forget(this.#token);
    else await pause(LAGGING_MS, link.signal);
  }
}

/**
 * Which works are new, one after the other, and what is remembered after them.
 * @param others sequence of what another gateway stored of this producer: a publish that was handed
 *   in before may be the same one, sent again there
 */
function judge(
  group: readonly Work[],
  known: ProducerState,
  others: number,
): { fresh: Work[]; after: Remembered; changed: boolean } {
  const fresh: Work[] = [];
  let lastFrame = known.lastFrame;
  let recent = [...known.recent];
  let changed = false;
  for (const work of group) {
    if (work.isLeft) continue;
    if (work.forget) {
      changed ||= lastFrame > 0n || recent.length > 0;
      lastFrame = 0n;
      recent = [];
      continue;
    }
    if (work.renewBeforeMs !== undefined) {
      changed ||= known.arrivalMs < work.renewBeforeMs && (lastFrame > 0n || recent.length > 0);
      continue;
    }
    if (work.frame !== undefined) {
      if (work.frame <= lastFrame || wasForgottenSince(work.tip, known)) continue;
      lastFrame = work.frame;
    } else if (work.identity !== undefined) {
      const { text, mayRepeat } = work.identity;
      if ((mayRepeat || others > work.tip) && recent.includes(text)) continue;
      recent.push(text);
      if (recent.length > REMEMBERED_PUBLISHES) recent.shift();
    }
    changed = true;
    fresh.push(work);
  }
  return { fresh, after: { lastFrame, recent }, changed };
}

/**
 * Whether another gateway has stored so many publishes of the client since this one was handed in that it may be among those which are not
 * remembered any more: one that is cut off from the cluster for some seconds comes late, and a client that has gone elsewhere sent it again
 * there. Of a session that ended in peace nothing was sent again.
 */
function isBeyondMemory(
  group: readonly Work[],
  at: number,
  queue: readonly Work[],
  recent: readonly string[],
  others: number,
): boolean {
  const { identity, isLeft, tip, recent: before } = group[at]!;
  if (identity === undefined || isLeft || others <= tip || recent.length < REMEMBERED_PUBLISHES) return false;
  if (before.some((one) => recent.includes(one)) || recent.includes(identity.text)) return false;
  return ![...group.slice(at), ...queue].some(({ forget }) => forget);
}

/**
 * Whether a frame of an epoch came again that was handed in when the log ended there: another gateway has forgotten the epoch meanwhile,
 * and an agent declares one drained when nothing of it is left to be sent.
 */
function wasForgottenSince(tip: number, { counted, lastFrame }: ProducerState): boolean {
  return lastFrame === 0n && counted.sequence > tip;
}

function settle(group: readonly Work[], fresh: readonly Work[], place: WorkPlace | undefined): void {
  const stored = new Set(fresh);
  let index = 0;
  for (const work of group) {
    if (!stored.has(work) || place === undefined) {
      work.done("duplicate", undefined);
      continue;
    }
    work.done("stored", { ...place, index });
    index += work.records;
  }
}
