/**
 * Entries of a stream by their place, also those from before this gateway's start: out of the cache, else fetched, and
 * judged where the tail did not take them itself.
 */

import type { StoredMessage } from "../cluster/stored-message.ts";
import type { ShardHistory } from "./shard-history.ts";
import { type EntryCache, openMessage, type TailEntry } from "./tail-entry.ts";
import { Walk } from "./walk.ts";

/** As many readers find their walk again, whoever reads between them. */
const MAX_WALKS = 8;

export interface PastEntriesOptions {
  readonly cache: EntryCache;
  readonly history: ShardHistory;
  /** Of what is kept, as far as that is known. */
  readonly firstSequence: () => number;
  /** Undefined for what is not kept any more. */
  readonly fetch: (sequence: number) => Promise<StoredMessage | undefined>;
  /** Whether it holds records that count; undefined where that is not known here. */
  readonly known: (message: StoredMessage) => boolean | undefined;
  /** Asks the cluster. */
  readonly judge: (message: StoredMessage) => Promise<boolean>;
  /** Of an entry that was fetched. */
  readonly keep: (entry: TailEntry) => void;
}

export class PastEntries {
  readonly #options: PastEntriesOptions;
  /** The one that was used last stands last. */
  #walks: Walk[] = [];

  constructor(options: PastEntriesOptions) {
    this.#options = options;
  }

  /** Undefined for what holds no records, does not count, or is not kept any more. */
  async one(sequence: number): Promise<TailEntry | undefined> {
    const { cache, fetch, known, judge } = this.#options;
    const cached = cache.get(sequence);
    if (cached !== undefined) return cached;
    const message = await fetch(sequence);
    if (message === undefined) return undefined;
    return (known(message) ?? (await judge(message))) ? this.#open(message) : undefined;
  }

  /** As `one`, of a stretch; for a reader that goes from stretch to stretch the cluster is asked only what those before do not tell. */
  async stretch(from: number, count: number): Promise<Array<TailEntry | undefined>> {
    const { cache, fetch, known, judge } = this.#options;
    const places = Array.from({ length: count }, (_, i) => from + i);
    const found = await Promise.all(
      places.map((sequence) => cache.get(sequence) ?? fetch(sequence).then((message) => ({ message }))),
    );
    let walk: Walk | undefined;
    return Promise.all(
      found.map(async (one, i) => {
        if (!("message" in one)) return one;
        const { message } = one;
        if (walk?.next !== from + i) walk = this.#walkAt(from + i);
        if (message === undefined) {
          walk.skip();
          return undefined;
        }
        const seen = walk.look(message);
        return (known(message) ?? seen ?? (await judge(message))) ? this.#open(message) : undefined;
      }),
    );
  }

  #walkAt(sequence: number): Walk {
    const walk =
      this.#walks.find(({ next }) => next === sequence) ?? new Walk(sequence, this.#options.firstSequence());
    this.#walks = [...this.#walks.filter((one) => one !== walk), walk].slice(-MAX_WALKS);
    return walk;
  }

  #open(message: StoredMessage): TailEntry | undefined {
    try {
      const entry = openMessage(this.#options.history, message);
      this.#options.keep(entry);
      return entry;
    } catch {
      // Told in the log when it was taken; there is nothing to give.
      return undefined;
    }
  }
}
