/**
 * A queue of appends to one subject, with one publish in flight: all that waits goes out as one
 * message, so the order of calls is the order of storing, whatever has to be sent again. The lane
 * of an epoch or a client expects the subject's last message to be the one that it knows; where
 * another gateway came between, it looks at what that stored and judges anew.
 */
import type { Clock } from "../../../../runtime/clock.ts";
import { invariant } from "../../../../runtime/errors.ts";
import { type AppendOutcome, LogBusyError } from "../../streams.ts";
import { encodeEntry, type HashedRun, RECORDS_PER_MESSAGE } from "./entry.ts";
import { EXPECTED_HEADER, type Link } from "./link.ts";
import { type ProducerState, REMEMBERED_PUBLISHES, stateHeaders } from "./producer-states.ts";
import type { StreamTail } from "./stream-tail.ts";

const GROUP_BYTES = 2 * 1_048_576;
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
  readonly forget?: boolean;
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
  readonly stored: (sequence: number) => void;
  /** Rising, shared by the lanes of a stream. */
  readonly arrivalMs: () => number;
  /** Bytes that wait in all lanes of the stream. */
  waitingBytes: number;
}

export class Lane {
  readonly #host: LaneHost;
  /** `r` for records without a producer. */
  readonly #token: string;
  readonly #queue: Work[] = [];
  #running: Promise<void> | undefined;

  constructor(host: LaneHost, token: string) {
    this.#host = host;
    this.#token = token;
  }

  get idle(): boolean {
    return this.#running === undefined;
  }

  push(work: Work): void {
    const host = this.#host;
    if (host.waitingBytes > 0 && host.waitingBytes + work.bytes > MAX_WAITING_BYTES) {
      work.failed(new LogBusyError(host.name, host.waitingBytes));
      return;
    }
    host.waitingBytes += work.bytes;
    this.#queue.push(work);
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined;
    });
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
      try {
        if (this.#token === "r") await this.#storeRecords(group);
        else await this.#storeProducer(group);
      } catch (error) {
        for (const work of group) work.failed(error);
      } finally {
        for (const work of group) this.#host.waitingBytes -= work.bytes;
      }
    }
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
    const place = await this.#publish(group, {}, undefined);
    invariant(typeof place !== "boolean", "a publish that expects nothing meets no conflict");
    settle(group, group, place);
  }

  async #storeProducer(group: readonly Work[]): Promise<void> {
    const { tail } = this.#host;
    let uncertain = false;
    for (;;) {
      const known = tail.producers.get(this.#token);
      const { fresh, after, changed } = judge(group, known, uncertain);
      if (!changed) return settle(group, [], undefined);
      const place = await this.#publish(fresh, stateHeaders(this.#token, after), known.sequence);
      if (typeof place !== "boolean") {
        // Another gateway's was stored at the same moment, before this one, which then does not count.
        if (tail.isVoid(place.sequence)) continue;
        return settle(group, fresh, place);
      }
      uncertain ||= place;
    }
  }

  /** @returns the place; where another message came between, whether this one may be before that. */
  async #publish(
    group: readonly Work[],
    fields: Record<string, string>,
    expected: number | undefined,
  ): Promise<WorkPlace | boolean> {
    const { link, tail, stream } = this.#host;
    const subject = `${this.#host.subject}.${this.#token}`;
    const arrivalMs = this.#host.arrivalMs();
    const payload = encodeEntry(
      arrivalMs,
      group.flatMap(({ runs }) => runs),
    );
    const id = link.nextMessageId();
    const outcome = await link.publish(stream, subject, payload, fields, expected, id);
    let sequence: number;
    if (outcome.stored) sequence = outcome.sequence;
    else {
      const last = await link.leaderGet(stream, { last_by_subj: subject });
      if (last === undefined) tail.producers.forget(this.#token);
      else await tail.reach(last.sequence);
      if (last?.header("Nats-Msg-Id") !== id) return outcome.uncertain;
      sequence = last.sequence;
    }
    const header = (name: string): string =>
      name === EXPECTED_HEADER ? String(expected ?? "") : (fields[name] ?? "");
    tail.offer({ sequence, subject, payload, header });
    this.#host.stored(sequence);
    // All before it is known then, maps too: what is answered is what every reader will see.
    await tail.reach(sequence);
    return { sequence, index: 0, arrivalMs };
  }
}

/** Which works are new, one after the other, and what is remembered after them. */
function judge(
  group: readonly Work[],
  known: ProducerState,
  uncertain: boolean,
): { fresh: Work[]; after: { lastFrame: bigint; recent: string[] }; changed: boolean } {
  const fresh: Work[] = [];
  let lastFrame = known.lastFrame;
  let recent = [...known.recent];
  let changed = false;
  for (const work of group) {
    if (work.forget) {
      changed ||= lastFrame > 0n || recent.length > 0;
      lastFrame = 0n;
      recent = [];
      continue;
    }
    if (work.frame !== undefined) {
      if (work.frame <= lastFrame) continue;
      lastFrame = work.frame;
    } else if (work.identity !== undefined) {
      const { text, mayRepeat } = work.identity;
      if ((mayRepeat || uncertain) && recent.includes(text)) continue;
      recent.push(text);
      if (recent.length > REMEMBERED_PUBLISHES) recent.shift();
    }
    changed = true;
    fresh.push(work);
  }
  return { fresh, after: { lastFrame, recent }, changed };
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
