/**
 * The frames on disk: a chain of small LevelDBs, of which one is written to.
 *
 *   remove ←─ [sealed] [sealed] … [sealed] ─ [closing] ─ [active] ←─ write     [next, still empty]
 *
 * When the active one holds `partBytes`, writing goes on in the next, which was made meanwhile. The
 * old one is closed, its marks are merged into the mark store, and it gets the name that says what it
 * holds. It is removed whole once all its frames are. What a crash leaves:
 *
 *   after the next was made        an empty part: removed at the next open
 *   after the switch               a part without a full name: read whole at the next open
 *   after the merge of marks       the same; merging again gives the same marks
 *   while a part is being removed  some of its files: its head is on disk, so the rest goes at the next open
 */
import { rename, rm } from "node:fs/promises";
import { join } from "node:path";
import type { Epoch, Frame, FrameSequence } from "../../../protocol/frame.ts";
import { syncFolder } from "../../../runtime/durable.ts";
import { type Operation, openDatabase, writeSynced } from "../level/leveldb.ts";
import { type ChainPart, scanPart, sealedName } from "./chain-part.ts";
import type { CutFrame } from "./frame-cutter.ts";
import type { MarkStore } from "./mark-store.ts";
import { NextPart, type OpenPart } from "./next-part.ts";
import { frameKey, markKey } from "./record-keys.ts";
import { type RepeatOptions, repeat } from "./repeat.ts";

/** Closed parts that may wait for their sealing: their memory is not free before. */
const MAX_CLOSING = 2;

export interface RecordChainOptions extends RepeatOptions {
  /** Holds the parts and nothing else. */
  readonly dir: string;
  readonly partBytes: number;
  /** So many parts a full buffer has, about. */
  readonly usualParts: number;
  readonly marks: MarkStore;
  /** A part's marks were merged into them. */
  readonly onMerged: () => void;
  /** Makes the heads durable, so that no removed frame is missed after a crash. */
  readonly syncHeads: () => Promise<void>;
  /** Up to which frame of an epoch all were removed. */
  readonly removedTo: (epochStart: number) => FrameSequence;
  /** Something of what goes on behind the writes failed. */
  readonly onFailure: (cause: unknown) => Error;
}

/** The next part is made when the active one holds this share of what it may: a slow disk takes its time. */
const PREPARED_FROM = 0.125;
/** So many times its size a part may grow to while the disk is still making the next one. */
const STRETCHED = 2;

/** What a part's folder and LevelDB's small files take beside the log. */
export const PART_OVERHEAD_BYTES = 24 * 1_024;

/** What a crash leaves under this name is nothing. */
const MAKING = "making";

export class RecordChain {
  readonly #options: RecordChainOptions;
  /** Oldest first; the active one is the last. */
  readonly parts: ChainPart[];
  #active: OpenPart | undefined;
  readonly #next: NextPart;
  #epoch: { start: number; epoch: Epoch };
  #closing = 0;
  /** Sealing and removing, one at a time, behind the writes. */
  #behind: Promise<void> = Promise.resolve();
  #sweeping = false;
  readonly #ending = new AbortController();
  #writing: Promise<unknown> = Promise.resolve();

  /** @param nextNumber no part of this number or a higher one exists */
  constructor(
    options: RecordChainOptions,
    parts: ChainPart[],
    nextNumber: number,
    epoch: { start: number; epoch: Epoch },
  ) {
    this.#options = options;
    this.parts = parts;
    this.#epoch = epoch;
    const memoryBytes = STRETCHED * options.partBytes + 4 * 1_048_576;
    this.#next = new NextPart({ ...options, memoryBytes, ending: this.#ending.signal }, nextNumber);
  }

  /** Opens the first part to write to. */
  async start(): Promise<void> {
    await rm(join(this.#options.dir, MAKING), { recursive: true, force: true });
    this.#begin(await this.#next.first());
  }

  /** What parts beyond the usual number take beside their frames: many short starts leave many small ones. */
  get overheadBytes(): number {
    const { usualParts } = this.#options;
    if (this.parts.length <= usualParts) return 0;
    let waiting = 0;
    for (const part of this.parts) if (part.removedRecords < part.records) waiting++;
    return Math.max(0, waiting - usualParts) * PART_OVERHEAD_BYTES;
  }

  folderOf(part: ChainPart): string {
    return join(this.#options.dir, part.name);
  }

  /** Resolves when all of it is on disk; a crash leaves all of it or nothing. */
  write(
    frames: readonly CutFrame[],
    marks: ReadonlyMap<string, Uint8Array>,
    storedUs: number,
  ): Promise<void> {
    return this.#exclusively(() => this.#write(frames, marks, storedUs));
  }

  async #write(
    frames: readonly CutFrame[],
    marks: ReadonlyMap<string, Uint8Array>,
    storedUs: number,
  ): Promise<void> {
    const active = this.#active!;
    const { part } = active;
    const operations: Operation[] = [];
    let bytes = 0;
    for (const frame of frames) {
      operations.push({ type: "put", key: frameKey(part.epochStart, frame.sequence), value: frame.bytes });
      bytes += frame.bytes.length;
    }
    for (const [source, value] of marks) {
      operations.push({ type: "put", key: markKey(source), value: Buffer.from(value) });
      active.writtenBytes += source.length + value.length;
    }
    await writeSynced(active.database, operations);
    for (const [source, value] of marks) active.marks.set(source, value);
    this.#options.marks.set(marks);
    active.writtenBytes += bytes;
    if (frames.length > 0) {
      if (part.first === 0n) {
        part.first = frames[0]!.sequence;
        part.oldestUs = storedUs;
      }
      part.last = frames.at(-1)!.sequence;
      part.records += frames.reduce((sum, frame) => sum + frame.records, 0);
      part.bytes += bytes;
      part.newestUs = storedUs;
    }
    const { partBytes } = this.#options;
    if (active.writtenBytes >= partBytes * PREPARED_FROM) this.#next.prepare();
    const isDue = active.writtenBytes >= (this.#next.isReady ? partBytes : STRETCHED * partBytes);
    // Whoever wrote need not wait for it; the next writer does.
    if (isDue) void this.rotate().catch((error: unknown) => this.#options.onFailure(error));
  }

  /** Closes the active part, so that it can be removed whole. */
  rotate(): Promise<void> {
    return this.#exclusively(() => this.#switch());
  }

  /** From the next part on frames are of this epoch. */
  beginEpoch(epoch: { start: number; epoch: Epoch }): Promise<void> {
    return this.#exclusively(async () => {
      this.#epoch = epoch;
      await this.#switch();
    });
  }

  #exclusively<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#writing.then(work);
    this.#writing = result.catch(() => {});
    return result;
  }

  async #switch(): Promise<void> {
    const next = await this.#next.take();
    const old = this.#active!;
    this.#begin(next);
    this.#closing++;
    const sealed = this.#afterwards(() => this.#seal(old).finally(() => this.#closing--));
    if (this.#closing > MAX_CLOSING) await sealed;
  }

  #begin(next: OpenPart): void {
    next.part.epochStart = this.#epoch.start;
    next.part.epoch = this.#epoch.epoch;
    this.parts.push(next.part);
    this.#active = next;
  }

  #afterwards(work: () => Promise<void>): Promise<void> {
    this.#behind = this.#behind.then(work).catch((error: unknown) => {
      this.#options.onFailure(error);
    });
    return this.#behind;
  }

  async #seal(old: OpenPart): Promise<void> {
    await old.database.close();
    await this.#options.marks.merge(old.marks);
    // The part is about to be taken for one without marks: from here on these would be missed.
    this.#options.onMerged();
    const { part } = old;
    part.sealed = true;
    if (part.first === 0n || this.#isRemoved(part)) return this.#remove([part]);
    const name = sealedName(part);
    await rename(this.folderOf(part), join(this.#options.dir, name));
    part.name = name;
  }

  #isRemoved(part: ChainPart): boolean {
    return part.last <= this.#options.removedTo(part.epochStart);
  }

  /** Removes, in its own time, the closed parts of which no frame is left. */
  sweep(): void {
    if (this.#sweeping || !this.parts.some((part) => part.sealed && this.#isRemoved(part))) return;
    this.#sweeping = true;
    void this.#afterwards(async () => {
      this.#sweeping = false;
      await this.#remove(this.parts.filter((part) => part.sealed && this.#isRemoved(part)));
    });
  }

  /** Heads first: else frames that went would be missed after a crash. */
  async #remove(parts: readonly ChainPart[]): Promise<void> {
    if (parts.length === 0) return;
    await this.#options.syncHeads();
    for (const part of parts) {
      await this.#erase(part);
      this.parts.splice(this.parts.indexOf(part), 1);
      part.sizes.clear();
    }
  }

  /** A folder is read to be removed, for which there may be no descriptor just now. */
  async #erase(part: ChainPart): Promise<void> {
    const sinceMs = this.#options.clock.monotonicMs();
    const erase = (): Promise<void> => rm(this.folderOf(part), { recursive: true, force: true });
    await repeat(erase, () => sinceMs, this.#options, this.#ending.signal);
  }

  /** Runs between sealing and removing, so that no part changes its name meanwhile. It must not wait for a write. */
  undisturbed<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#behind.then(work);
    this.#behind = result.then(
      () => {},
      () => {},
    );
    return result;
  }

  /** Removes a part that has frames before it which stay. */
  discard(part: ChainPart): void {
    void this.#afterwards(() => (this.parts.includes(part) ? this.#remove([part]) : Promise.resolve()));
  }

  /**
   * Writes a part again with the frames that are to stay. A crash leaves the old one, or both, of which
   * the next open takes the smaller one.
   */
  thin(part: ChainPart, stays: (frame: Frame) => boolean): Promise<void> {
    return this.undisturbed(async () => {
      const { dir } = this.#options;
      const making = join(dir, MAKING);
      const from = this.folderOf(part);
      await rm(making, { recursive: true, force: true });
      const kept = await copyFrames(from, part, making, stays);
      Object.assign(part, kept, { holes: true, removedRecords: 0, removedBytes: 0 });
      part.sizes.clear();
      const name = sealedName(part);
      await rename(making, join(dir, name));
      await syncFolder(dir);
      part.name = name;
      await rm(from, { recursive: true, force: true });
    });
  }

  /** A part that a crash left without a full name; its marks are in the mark store. */
  async sealLate(part: ChainPart): Promise<void> {
    part.sealed = true;
    if (part.first > 0n) return this.rename(part);
    await rm(this.folderOf(part), { recursive: true, force: true });
  }

  /** Gives a sealed part the name that says what it holds now. */
  rename(part: ChainPart): Promise<void> {
    return this.#afterwards(async () => {
      if (!part.sealed || !this.parts.includes(part)) return;
      const name = sealedName(part);
      await rename(this.folderOf(part), join(this.#options.dir, name));
      part.name = name;
    });
  }

  /** Resolves when nothing is left to be sealed or removed. */
  async settled(): Promise<void> {
    await this.#writing;
    await this.#behind;
  }

  /** Nothing may be written any more. */
  async close(): Promise<void> {
    this.#ending.abort();
    await this.settled();
    await this.#next.close();
    if (this.#active !== undefined) await this.#afterwards(() => this.#seal(this.#active!));
    await this.#behind;
    this.#active = undefined;
  }
}

/** @returns what the new part holds */
async function copyFrames(
  from: string,
  part: ChainPart,
  to: string,
  stays: (frame: Frame) => boolean,
): Promise<{ records: number; bytes: number }> {
  const operations: Operation[] = [];
  const kept = { records: 0, bytes: 0 };
  await scanPart(from, part, (frame) => {
    if (!stays(frame)) return;
    operations.push({ type: "put", key: frameKey(part.epochStart, frame.sequence), value: frame.bytes });
    kept.records += frame.recordCount;
    kept.bytes += frame.bytes.length;
  });
  const database = await openDatabase(to, true, 2 * kept.bytes + 4 * 1_048_576);
  // In their order, in one batch: as much as a part holds.
  await writeSynced(database, operations);
  await database.close();
  await syncFolder(to);
  return kept;
}
