/**
 * Gathers what is to be stored until a group is worth a sync. While one group is being committed
 * the next one gathers; there is never more than one commit in flight, so groups keep their order.
 */
import type { BufferRecord, Mark } from "../record-buffer.ts";

export interface Append {
  readonly records: readonly BufferRecord[];
  readonly marks: readonly Mark[];
  /** What it will take on disk, about. */
  readonly bytes: number;
}

interface Waiting extends Append {
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

export interface GroupOptions {
  /** How long the first of a group waits for company. */
  readonly commitDelayMs: number;
  /** A group of so many records, or of so many bytes, waits no longer. */
  readonly commitRecords: number;
  readonly commitBytes?: number;
}

/** What one frame holds at most. */
const COMMIT_BYTES = 1_048_576;
/** Whatever the config says: so much may stand in memory twice. */
const MAX_COMMIT_BYTES = 16 * COMMIT_BYTES;

export class GroupCommit {
  readonly #delayMs: number;
  readonly #maxRecords: number;
  readonly #maxBytes: number;
  readonly #commit: (group: readonly Append[]) => Promise<void>;
  #gathering: Waiting[] = [];
  #records = 0;
  #bytes = 0;
  #timer: NodeJS.Timeout | undefined;
  #due = false;
  #running: Promise<void> | undefined;
  /** Settles with what was pushed last. Groups keep their order, so all before it are settled then. */
  #pushed: Promise<void> = Promise.resolve();

  /** @param commit all or nothing; when it rejects, all of its group's appends do. */
  constructor(options: GroupOptions, commit: (group: readonly Append[]) => Promise<void>) {
    this.#delayMs = options.commitDelayMs;
    this.#maxRecords = options.commitRecords;
    this.#maxBytes = Math.min(options.commitBytes ?? COMMIT_BYTES, MAX_COMMIT_BYTES);
    this.#commit = commit;
  }

  /** Joins the group at once: the order of calls is the order of storing. */
  push(append: Append): Promise<void> {
    const pushed = new Promise<void>((resolve, reject) => {
      this.#gathering.push({ ...append, resolve, reject });
      this.#records += append.records.length;
      this.#bytes += append.bytes;
      if (this.#records >= this.#maxRecords || this.#bytes >= this.#maxBytes) this.#due = true;
      if (this.#due) this.#start();
      else this.#timer ??= setTimeout(() => this.#expire(), this.#delayMs);
    });
    this.#pushed = pushed;
    return pushed;
  }

  /**
   * Commits what is gathered without waiting for company. Resolves when that is stored, or was refused;
   * what comes meanwhile is not waited for, as under load it never ends.
   */
  async flush(): Promise<void> {
    this.#expire();
    await this.#pushed.catch(() => {});
  }

  #expire(): void {
    this.#due = this.#gathering.length > 0;
    if (this.#due) this.#start();
  }

  #start(): void {
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined;
      // Whoever was just answered may have pushed a full group before this line.
      if (this.#due) this.#start();
    });
  }

  async #run(): Promise<void> {
    while (this.#due) {
      const group = this.#take();
      try {
        await this.#commit(group);
        for (const append of group) append.resolve();
      } catch (error) {
        for (const append of group) append.reject(error);
      }
    }
  }

  #take(): Waiting[] {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#due = false;
    let records = 0;
    let bytes = 0;
    let count = 0;
    for (const append of this.#gathering) {
      if (
        count > 0 &&
        (records + append.records.length > this.#maxRecords || bytes + append.bytes > this.#maxBytes)
      )
        break;
      records += append.records.length;
      bytes += append.bytes;
      count++;
    }
    const group = this.#gathering.splice(0, count);
    this.#records -= records;
    this.#bytes -= bytes;
    // What did not fit has waited long enough already.
    if (this.#gathering.length > 0) this.#due = true;
    return group;
  }
}
