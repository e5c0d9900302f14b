/**
 * The index of the archive in LevelDB: fragments of a camera in order of time, and which sequences of
 * which epoch are stored. It is a cache of what the files say and can be made again from them.
 *
 *   f!camera!producerUs-epoch-sequence → IndexedFragment      p!camera!epoch → StoredEpoch
 */
import { Level } from "level";

/** `0001700000000000-0123456789abcdef-17`: sorts by time. */
export type FragmentId = string;
export const FRAGMENT_ID = /^(\d{16})-([0-9a-f]{16})-(\d{1,20})$/;

export type FragmentState = "whole" | "truncated" | "quarantined";

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

/** Behind every character of an id. */
const END = "\uffff";

export class FragmentIndex {
  readonly #db: Level<string, unknown>;

  /** @param folder of its own */
  constructor(folder: string) {
    this.#db = new Level<string, unknown>(folder, { keyEncoding: "utf8", valueEncoding: "json" });
  }

  async open(): Promise<void> {
    await this.#db.open();
  }

  async close(): Promise<void> {
    await this.#db.close();
  }

  /** Resolves when both are on disk; a crash leaves both or none. */
  async put(camera: string, row: FragmentRow, epoch?: { name: string; stored: StoredEpoch }): Promise<void> {
    const { id, ...value } = row;
    const batch = this.#db.batch().put(`f!${camera}!${id}`, value);
    if (epoch !== undefined) batch.put(`p!${camera}!${epoch.name}`, epoch.stored);
    await batch.write({ sync: true });
  }

  async remove(camera: string, ids: readonly FragmentId[]): Promise<void> {
    const batch = this.#db.batch();
    for (const id of ids) batch.del(`f!${camera}!${id}`);
    await batch.write({ sync: true });
  }

  async forgetEpochs(camera: string, epochs: readonly string[]): Promise<void> {
    const batch = this.#db.batch();
    for (const epoch of epochs) batch.del(`p!${camera}!${epoch}`);
    await batch.write({ sync: true });
  }

  async get(camera: string, id: FragmentId): Promise<FragmentRow | undefined> {
    const value = (await this.#db.get(`f!${camera}!${id}`)) as IndexedFragment | undefined;
    return value && { id, ...value };
  }

  /** Oldest first, from the id `from` on, up to but without `to`. */
  async *rows(camera: string, from = "", to = END): AsyncGenerator<FragmentRow> {
    const prefix = `f!${camera}!`;
    for await (const [key, value] of this.#db.iterator({ gte: prefix + from, lt: prefix + to })) {
      yield { id: key.slice(prefix.length), ...(value as IndexedFragment) };
    }
  }

  async epochs(camera: string): Promise<Map<string, StoredEpoch>> {
    const prefix = `p!${camera}!`;
    const found = new Map<string, StoredEpoch>();
    for await (const [key, value] of this.#db.iterator({ gte: prefix, lt: prefix + END })) {
      found.set(key.slice(prefix.length), value as StoredEpoch);
    }
    return found;
  }

  /** Deleted rows free the disk only then. */
  async compact(): Promise<void> {
    const db = this.#db as unknown as { compactRange?(start: string, end: string): Promise<void> };
    await db.compactRange?.("f", "q");
  }
}
