/**
 * Small JSON documents on the cluster, each replaced as a whole by compare-and-set: what the streams
 * are, and what each consumer has read; beside them bytes that are written once. One JetStream stream that keeps the last messages of each
 * subject, as a NATS KV bucket is, but written by the link's own publish that is stored once.
 */
import { pause } from "../../../../../runtime/backoff.ts";
import type { Link } from "./link.ts";
import { sentBy } from "./message-ids.ts";

const MAX_LAGGING_GETS = 40;
/** Five seconds: what a gateway does by a list of streams that is old cannot be undone. */
const MAX_OLD_GETS = 100;
const LAGGING_PAUSE_MS = 50;

export interface Document<T> {
  /** 0 where there is none yet. */
  readonly revision: number;
  readonly value: T | undefined;
}

export class Documents {
  readonly #link: Link;
  /** Of the JetStream stream. */
  readonly stream: string;
  readonly #subject: string;

  constructor(link: Link, prefix: string) {
    this.#link = link;
    this.stream = `${prefix}-documents`;
    this.#subject = `${prefix}.m`;
  }

  async start(replicas: number): Promise<void> {
    await this.#link.streams.make({
      name: this.stream,
      subjects: [`${this.#subject}.>`],
      num_replicas: replicas,
      max_msgs_per_subject: 32,
      allow_direct: true,
    });
  }

  /** Changes with every change of any document under `key`. */
  async get<T>(key: string): Promise<Document<T>> {
    const found = await this.#link.lastThatCounts(this.stream, `${this.#subject}.${key}`);
    if (found === undefined) return { revision: 0, value: undefined };
    const value = JSON.parse(Buffer.from(found.message.payload).toString()) as T | null;
    return { revision: found.lastSequence, value: value ?? undefined };
  }

  /** Whether it may have changed since it had this revision: cheap, however large it is. */
  async hasChanged(key: string, revision: number): Promise<boolean> {
    const next = { seq: revision + 1, next_by_subj: `${this.#subject}.${key}` };
    return (await this.#link.leaderGet(this.stream, next)) !== undefined;
  }

  /** @returns the new revision; undefined when it is no longer at `revision`. */
  async put(key: string, value: unknown, revision: number): Promise<number | undefined> {
    const subject = `${this.#subject}.${key}`;
    const id = this.#link.nextMessageId();
    const bytes = Buffer.from(JSON.stringify(value ?? null));
    const outcome = await this.#link.publish(this.stream, subject, bytes, {}, revision, id);
    if (!outcome.stored && !outcome.uncertain) return undefined;
    // Of two that were stored at once the first counts; a try without an answer may have been it.
    for (let tries = 0; ; tries++) {
      const first = await this.#link.leaderGet(this.stream, { seq: revision + 1, next_by_subj: subject });
      if (first !== undefined) return sentBy(id, first)?.sequence;
      // A leader that has just been chosen may lag behind its own log; or all were dropped meanwhile.
      if (!outcome.stored || tries >= MAX_LAGGING_GETS) return undefined;
      await pause(LAGGING_PAUSE_MS, this.#link.signal);
    }
  }

  /** Bytes under a key that nobody else uses, written once. */
  async putOnce(key: string, bytes: Uint8Array): Promise<void> {
    const subject = `${this.#subject}.${key}`;
    // That something stands there already can only be an earlier try of this very call.
    await this.#link.publish(this.stream, subject, bytes, {}, 0);
  }

  /** Asked for again for a while: a leader that has just been chosen may lag behind its own log. */
  async getOnce(key: string): Promise<Buffer | undefined> {
    for (let tries = 0; ; tries++) {
      const found = await this.#link.leaderGet(this.stream, { last_by_subj: `${this.#subject}.${key}` });
      if (found !== undefined) return Buffer.from(found.payload);
      if (tries >= MAX_LAGGING_GETS) return undefined;
      await pause(LAGGING_PAUSE_MS, this.#link.signal);
    }
  }

  /**
   * Repeats `change` on what is there until nobody came between.
   * @param change undefined leaves it as it is; it may meet what it did itself, where an answer was lost
   * @param known a revision that was there: what is older is the word of a leader that lags behind its own log
   * @returns what is there then
   */
  async update<T>(
    key: string,
    change: (value: T | undefined) => T | undefined,
    known = 0,
  ): Promise<Document<T>> {
    for (let tries = 0; ; ) {
      const there = await this.get<T>(key);
      if (there.revision < known && tries++ < MAX_OLD_GETS) {
        await pause(LAGGING_PAUSE_MS, this.#link.signal);
        continue;
      }
      const value = change(there.value);
      if (value === undefined) return there;
      const revision = await this.put(key, value, there.revision);
      if (revision !== undefined) return { revision, value };
    }
  }

  /** Forgets all under `prefix.`. */
  async drop(prefix: string): Promise<void> {
    await this.#link.streams.purge(this.stream, `${this.#subject}.${prefix}.>`);
  }

  /** The keys under `prefix.`, without it; they may hold dots. */
  async keys(prefix: string): Promise<string[]> {
    const under = `${this.#subject}.${prefix}.`;
    const { subjects } = await this.#link.state(this.stream, `${under}>`);
    return subjects.map((subject) => subject.slice(under.length));
  }
}
