/**
 * A LevelDB whose writes are on disk when they resolve, also behind one that failed.
 *
 * LevelDB cuts its log into blocks and counts where it stands by what it meant to write. Where a full
 * disk took less, all that follows stands in the wrong place: LevelDB calls it written and synced, and
 * drops it at the next opening without a word. So after a refused write nothing is added to that log:
 * the database is opened anew, which begins another one.
 *
 *   write → [waiting] → one synced batch for all that waits → done
 *                         └ refused → all of it fails → what its keys held is noted
 *                                      next write → room? → opened anew → those values written again → goes on
 *
 * A refused batch may be found at an opening all the same, whole. Its keys are therefore put back to
 * what they held before anything else is written. A crash before that leaves the batch or nothing of it.
 */
import { statfs } from "node:fs/promises";
import { Level } from "level";
import { HeadwaterError } from "./errors.ts";
import { noteLevelClosed, openingOf } from "./level-log.ts";

/** An opening writes what the old log held into a table, a few megabytes at most. */
const ROOM_BYTES = 8 * 1_048_576;

export type SyncedOperation<V> = { type: "put"; key: string; value: V } | { type: "del"; key: string };

export interface SyncedLevelOptions<V> {
  readonly valueEncoding: string;
  readonly createIfMissing: boolean;
  /** Looks at a database that was opened anew; throws when it is not what it was, and then nothing is written. */
  readonly check?: (entries: Entries<V>) => Promise<void>;
}

export interface KeyRange {
  readonly gte: string;
  readonly lt: string;
  /** The first so many; all unless told. */
  readonly limit?: number;
}

/** Those of a range, in the order of the keys. */
export type Entries<V> = (range: KeyRange) => Promise<Array<[string, V]>>;

/** The disk refused the write, or one before it and there is no room yet. Nothing of it holds; callers may retry. */
export class DatabaseWriteError extends HeadwaterError {
  constructor(folder: string, cause: unknown) {
    super("DATABASE_WRITE_FAILED", {
      retryable: true,
      message: `${folder} cannot be written: ${reasonOf(cause)}`,
      hint: "free disk space, or check the disk and the kernel's log",
      cause,
    });
  }
}

interface Waiting<V> {
  readonly operations: readonly SyncedOperation<V>[];
  done(): void;
  failed(error: unknown): void;
}

export class SyncedLevel<V> {
  readonly #folder: string;
  readonly #options: SyncedLevelOptions<V>;
  #db: Level<string, V>;
  #waiting: Array<Waiting<V>> = [];
  #writing: Promise<void> | undefined;
  /** Why the log may not be added to. */
  #refusal: unknown;
  /** What the keys of refused batches held before; undefined for nothing. */
  readonly #before = new Map<string, V | undefined>();
  readonly #reads = new Set<Promise<unknown>>();
  #opening: Promise<void> | undefined;

  constructor(folder: string, options: SyncedLevelOptions<V>) {
    this.#folder = folder;
    this.#options = options;
    this.#db = this.#make(options.createIfMissing);
  }

  /** @throws what LevelDB says */
  open(): Promise<void> {
    return this.#db.open();
  }

  /** All or nothing, and on disk when it resolves. In the order of calls. @throws DatabaseWriteError */
  write(operations: readonly SyncedOperation<V>[]): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ operations, done: resolve, failed: reject });
      this.#writing ??= this.#drain();
    });
  }

  /** In the order of the keys. */
  entries(range: KeyRange): Promise<Array<[string, V]>> {
    return this.#read((db) => db.iterator({ ...range }).all());
  }

  keys(range: KeyRange): Promise<string[]> {
    return this.#read((db) => db.keys({ ...range }).all());
  }

  /** What was deleted frees the disk only then. @throws what LevelDB says; it writes nothing more after that */
  compact(range: KeyRange): Promise<void> {
    return this.#read(async (db) => {
      const { compactRange } = db as unknown as { compactRange?(start: string, end: string): Promise<void> };
      await compactRange?.call(db, range.gte, range.lt);
    });
  }

  /** Waits for what was to be written, and is being read. Safe to call twice. */
  async close(): Promise<void> {
    await this.#writing;
    await Promise.all(this.#reads);
    const isSound = this.#db.status === "open" && this.#refusal === undefined;
    const opening = isSound ? await openingOf(this.#folder).catch(() => undefined) : undefined;
    await this.#db.close();
    // A disk that refuses the note, as a full one may, has all that was written: the last batch is believed then.
    if (opening !== undefined) await noteLevelClosed(this.#folder, opening).catch(() => undefined);
  }

  #make(createIfMissing: boolean): Level<string, V> {
    const { valueEncoding } = this.#options;
    return new Level<string, V>(this.#folder, { valueEncoding, createIfMissing });
  }

  async #read<T>(read: (db: Level<string, V>) => Promise<T>): Promise<T> {
    while (this.#opening !== undefined) await this.#opening.catch(() => undefined);
    // An opening that failed leaves it closed.
    if (this.#refusal !== undefined && this.#db.status === "closed") await this.write([]);
    const reading = read(this.#db);
    const settled = reading.then(
      () => undefined,
      () => undefined,
    );
    this.#reads.add(settled);
    void settled.then(() => this.#reads.delete(settled));
    return reading;
  }

  async #drain(): Promise<void> {
    // All writes of this turn of the event loop are one batch.
    await Promise.resolve();
    while (this.#waiting.length > 0) {
      const writes = this.#waiting.splice(0);
      try {
        await this.#writeAll(writes.flatMap(({ operations }) => operations));
        for (const { done } of writes) done();
      } catch (error) {
        for (const { failed } of writes) failed(error);
      }
    }
    this.#writing = undefined;
  }

  async #writeAll(operations: SyncedOperation<V>[]): Promise<void> {
    if (this.#refusal !== undefined) {
      this.#opening = this.#openAnew();
      await this.#opening.finally(() => {
        this.#opening = undefined;
      });
    }
    if (operations.length === 0) return;
    try {
      await this.#db.batch(operations, { sync: true });
    } catch (error) {
      this.#refusal = error;
      await this.#noteBefore(operations);
      throw new DatabaseWriteError(this.#folder, error);
    }
  }

  /** LevelDB itself has not taken over what its log refused. */
  async #noteBefore(operations: readonly SyncedOperation<V>[]): Promise<void> {
    for (const { key } of operations) {
      if (!this.#before.has(key)) this.#before.set(key, await this.#db.get(key));
    }
  }

  /** Leaves it open as it was where there is no room, so that it can be read. */
  async #openAnew(): Promise<void> {
    const { bavail, bsize } = await statfs(this.#folder);
    if (bavail * bsize < ROOM_BYTES) throw new DatabaseWriteError(this.#folder, this.#refusal);
    await Promise.all(this.#reads);
    await this.#db.close();
    const db = this.#make(false);
    this.#db = db;
    try {
      await db.open();
      const former = [...this.#before].map(([key, value]) =>
        value === undefined ? ({ type: "del", key } as const) : ({ type: "put", key, value } as const),
      );
      await db.batch(former, { sync: true });
    } catch (error) {
      throw new DatabaseWriteError(this.#folder, error);
    }
    await this.#options.check?.((range) => db.iterator({ ...range }).all());
    this.#before.clear();
    this.#refusal = undefined;
  }
}

/** LevelDB's own words are in the cause. */
function reasonOf(error: unknown): string {
  const { cause, message } = error as { cause?: unknown; message?: unknown };
  return String(cause instanceof Error ? cause.message : (message ?? error));
}
