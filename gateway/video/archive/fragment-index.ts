/**
 * The index of the archive in LevelDB: fragments of a camera in order of time, and which sequences of
 * which epoch are stored. It is a cache of what the files say and can be made again from them.
 *
 *   f!camera!producerUs-epoch-sequence → IndexedFragment      p!camera!epoch → StoredEpoch
 */
import { type Epoch, epochName, type FrameSequence } from "../../../protocol/frame.ts";
import { SyncedLevel, type SyncedOperation } from "../../../runtime/synced-level.ts";

/** `0001700000000000-0123456789abcdef-17`: sorts by time. */
export type FragmentId = string;
export const FRAGMENT_ID = /^(\d{16})-([0-9a-f]{16})-(\d{1,20})$/;

/** What is damaged is kept for whoever wants to look at it, until retention takes it. */
export type FragmentState = "whole" | "truncated" | "quarantined" | "damaged";

export interface IndexedFragment {
  readonly bytes: number;
  readonly durationUs: number;
  readonly state: FragmentState;
}

export interface StoredEpoch {
  /** As SequenceRanges writes itself. */
  readonly ranges: string;
  /** When it was last added to, µs since 1970 UTC. */
  readonly usedUs: number;
}

export interface FragmentRow extends IndexedFragment {
  readonly id: FragmentId;
}

export function idOf(unit: {
  readonly producerUs: number;
  readonly epoch: Epoch;
  readonly sequence: FrameSequence;
}): FragmentId {
  return `${timeKey(unit.producerUs)}-${epochName(unit.epoch)}-${unit.sequence}`;
}

/** How the id of a fragment begins that begins then. */
export function timeKey(us: number): string {
  return Math.max(0, Math.min(Math.trunc(us), Number.MAX_SAFE_INTEGER))
    .toString()
    .padStart(16, "0");
}

/** When the fragment began, in µs since 1970 UTC. */
export function startUsOf({ id }: FragmentRow): number {
  return Number(id.slice(0, 16));
}

/** Behind every character of an id. */
const END = "\uffff";
/** Rows that are read at once; a week of one camera is 300,000. */
const PAGE_ROWS = 512;

export class FragmentIndex {
  readonly #db: SyncedLevel<unknown>;

  /** @param folder of its own */
  constructor(folder: string) {
    this.#db = new SyncedLevel(folder, { valueEncoding: "json", createIfMissing: true });
  }

  async open(): Promise<void> {
    await this.#db.open();
  }

  async close(): Promise<void> {
    await this.#db.close();
  }

  /** Resolves when both are on disk; a crash leaves both or none. @throws DatabaseWriteError */
  async put(camera: string, row: FragmentRow, epoch?: { name: string; stored: StoredEpoch }): Promise<void> {
    const { id, ...value } = row;
    const batch: SyncedOperation<unknown>[] = [{ type: "put", key: `f!${camera}!${id}`, value }];
    if (epoch !== undefined)
      batch.push({ type: "put", key: `p!${camera}!${epoch.name}`, value: epoch.stored });
    await this.#db.write(batch);
  }

  /** @throws DatabaseWriteError; all rows are there still */
  async remove(camera: string, ids: readonly FragmentId[]): Promise<void> {
    await this.#db.write(ids.map((id) => ({ type: "del", key: `f!${camera}!${id}` })));
  }

  async forgetEpochs(camera: string, epochs: readonly string[]): Promise<void> {
    await this.#db.write(epochs.map((epoch) => ({ type: "del", key: `p!${camera}!${epoch}` })));
  }

  async get(camera: string, id: FragmentId): Promise<FragmentRow | undefined> {
    const key = `f!${camera}!${id}`;
    const [found] = await this.#db.entries({ gte: key, lt: `${key}\0`, limit: 1 });
    return found && { id, ...(found[1] as IndexedFragment) };
  }

  /** Oldest first, from the id `from` on, up to but without `to`. */
  async *rows(camera: string, from = "", to = END): AsyncGenerator<FragmentRow> {
    const prefix = `f!${camera}!`;
    for (let gte = prefix + from; ; ) {
      const page = await this.#db.entries({ gte, lt: prefix + to, limit: PAGE_ROWS });
      for (const [key, value] of page) yield { id: key.slice(prefix.length), ...(value as IndexedFragment) };
      if (page.length < PAGE_ROWS) return;
      gte = `${page.at(-1)![0]}\0`;
    }
  }

  async epochs(camera: string): Promise<Map<string, StoredEpoch>> {
    const prefix = `p!${camera}!`;
    const found = await this.#db.entries({ gte: prefix, lt: prefix + END });
    return new Map(found.map(([key, value]) => [key.slice(prefix.length), value as StoredEpoch]));
  }

  /** Deleted rows free the disk only then. */
  async compact(): Promise<void> {
    await this.#db.compact({ gte: "f", lt: "q" });
  }
}
