/**
 * Streams that have been coming or going for longer than anybody alive needs: whoever sees them brings them
 * to their end. In the background and each by itself, so that one that gets no answer holds up no other.
 */
import type { Clock } from "../../../../../runtime/clock.ts";
import { describeError } from "../../../../../runtime/errors.ts";
import type { Log } from "../../../../../runtime/log.ts";
import type { StreamRecord } from "./stream-list.ts";

/** Making and removing take well under a second; a leader's election may take a few. */
const UNFINISHED_MS = 5_000;

export interface UnfinishedOptions {
  readonly clock: Clock;
  readonly log: Log;
  /** These may be done by two at once, and repeated. */
  readonly make: (record: StreamRecord) => Promise<void>;
  readonly remove: (streamId: string) => Promise<void>;
}

export class UnfinishedStreams {
  readonly #options: UnfinishedOptions;
  /** Id → since when it has been seen so. */
  readonly #sinceMs = new Map<string, number>();
  readonly #finishing = new Map<string, Promise<void>>();
  #closed = false;

  constructor(options: UnfinishedOptions) {
    this.#options = options;
  }

  /** Called with each look at the list of streams. Whoever began it may be alive, so it gets its time. */
  look(coming: readonly StreamRecord[], going: readonly string[]): void {
    const { log, make, remove } = this.#options;
    const ids = new Set([...coming.map(({ streamId }) => streamId), ...going]);
    for (const id of this.#sinceMs.keys()) if (!ids.has(id)) this.#sinceMs.delete(id);
    for (const record of coming) {
      if (!this.#isDue(record.streamId)) continue;
      log.info({ stream: record.name }, "making a stream that another gateway began");
      this.#finish(record.streamId, make(record));
    }
    for (const id of going) {
      if (!this.#isDue(id)) continue;
      log.info({ streamId: id }, "removing a stream that another gateway began to delete");
      this.#finish(id, remove(id));
    }
  }

  #isDue(id: string): boolean {
    const nowMs = this.#options.clock.monotonicMs();
    const sinceMs = this.#sinceMs.get(id);
    if (sinceMs === undefined) this.#sinceMs.set(id, nowMs);
    return sinceMs !== undefined && nowMs - sinceMs >= UNFINISHED_MS && !this.#finishing.has(id);
  }

  #finish(id: string, work: Promise<void>): void {
    const done = work
      .catch((error: unknown) => {
        const text = "what another gateway began was not brought to its end; it is tried again";
        if (!this.#closed) this.#options.log.error({ streamId: id, error: describeError(error) }, text);
      })
      .finally(() => this.#finishing.delete(id));
    this.#finishing.set(id, done);
  }

  /** Resolves when nothing is under way any more. */
  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all(this.#finishing.values());
  }
}
