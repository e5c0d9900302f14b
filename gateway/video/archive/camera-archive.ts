/**
 * One camera's units on disk, found by time, each stored once.
 *
 *   store: file (synced, renamed) → index row + epoch (one synced batch) → persisted()
 *
 * A crash between file and index leaves a whole file without a row: `open` adopts it. A crash before
 * the rename leaves a `.tmp`, which `open` removes. Rows whose file is gone are dropped.
 */
import { encodeUnit, type FootageUnit, type PersistedRange } from "../../../protocol/footage.ts";
import { type Epoch, epochName, type FrameSequence } from "../../../protocol/frame.ts";
import type { Clock } from "../../../runtime/clock.ts";
import { describeError } from "../../../runtime/errors.ts";
import type { Log } from "../../../runtime/log.ts";
import { DatabaseWriteError } from "../../../runtime/synced-level.ts";
import type { Picture, VideoFormat } from "../depacketise/video-format.ts";
import { buildFragment, readFacts, type Sound } from "../fragments/fragment-file.ts";
import type { Fragment } from "../video.ts";
import { ArchiveTotals } from "./archive-totals.ts";
import { CameraOwner } from "./camera-owner.ts";
import { FileSurvey, isDamage } from "./file-survey.ts";
import { type FragmentFile, FragmentFiles, hourOf } from "./fragment-files.ts";
import {
  FRAGMENT_ID,
  type FragmentId,
  type FragmentIndex,
  type FragmentRow,
  idOf,
  startUsOf,
  timeKey,
} from "./fragment-index.ts";
import { KnownEpochs } from "./known-epochs.ts";
import { SequenceRanges } from "./sequence-ranges.ts";

const REMOVE_AT_ONCE = 256;
/** More than an index on a full disk wants to be free before it writes again. */
const INDEX_ROOM_BYTES = 16 * 1_048_576;

/** A unit as the feed cut it. */
export interface ArrivedUnit {
  readonly epoch: Epoch;
  readonly sequence: FrameSequence;
  readonly producerUs: number;
  /** False when its end never came, or came with another digest. */
  readonly whole: boolean;
  /** The session's own epoch: nobody will ever send it again, so it need not be remembered. */
  readonly ownEpoch: boolean;
  /** Undefined when it could not be depacketised; `raw` is kept then. */
  readonly format: VideoFormat | undefined;
  readonly pictures: readonly Picture[];
  readonly sound: Sound | undefined;
  readonly raw: FootageUnit | undefined;
}

export type StoreResult = "whole" | "truncated" | "quarantined" | "repeated" | "empty";

export class CameraArchive {
  readonly camera: string;
  readonly #files: FragmentFiles;
  readonly #index: FragmentIndex;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #survey: FileSurvey;
  readonly #epochs = new KnownEpochs();
  readonly #totals = new ArchiveTotals();
  /** Rows without a file that a full disk kept at the start: they are not counted. */
  readonly #gone = new Set<FragmentId>();
  readonly #owner: CameraOwner;
  #waitingBytes = 0;
  #tail: Promise<unknown> = Promise.resolve();

  constructor(camera: string, folder: string, index: FragmentIndex, clock: Clock, log: Log) {
    this.camera = camera;
    this.#files = new FragmentFiles(folder);
    this.#owner = new CameraOwner(this.#files, (task) => this.#inTurn(task));
    this.#index = index;
    this.#clock = clock;
    this.#log = log.child({ camera });
    this.#survey = new FileSurvey(camera, this.#files, index, this.#log);
  }

  get totals(): Readonly<ArchiveTotals> {
    return this.#totals;
  }

  /** Whose camera it is; undefined until a device was named. */
  get device(): string | undefined {
    return this.#owner.device;
  }

  /**
   * Holds at once, and on disk before the next unit is. Where the disk refuses it the next publisher's start tries
   * again; a crash before that leaves a camera that is nobody's yet.
   */
  claim(device: string): void {
    this.#owner.set(device).catch((error: unknown) => {
      this.#log.error({ device, error: describeError(error) }, "whose camera it is cannot be written down");
    });
  }

  /** Resolves when it is on disk. A crash before that leaves it the former device's. */
  give(device: string): Promise<void> {
    return this.#owner.set(device);
  }

  /** Makes index and files agree. What is asked to be stored meanwhile waits. */
  open(): Promise<void> {
    return this.#inTurn(() => this.#reconcile());
  }

  async #reconcile(): Promise<void> {
    await this.#files.create();
    await this.#owner.read();
    for (const [name, stored] of await this.#index.epochs(this.camera)) {
      this.#epochs.set(name, SequenceRanges.parse(stored.ranges), stored.usedUs);
    }
    const lost = await this.#survey.compare({
      indexed: (row) => this.#totals.add(row),
      unindexed: (row) => this.#record(row, true),
    });
    if (lost.length === 0) return;
    this.#log.warn({ fragments: lost.length }, "files of indexed footage are gone");
    try {
      await this.#index.remove(this.camera, lost);
    } catch (error) {
      for (const id of lost) this.#gone.add(id);
      this.#log.error({ error: describeError(error) }, "rows of footage that is gone cannot be removed");
    }
  }

  /** True once the whole unit (or its raw packets) is on disk and indexed. */
  has(epoch: Epoch, sequence: FrameSequence): boolean {
    return this.#epochs.has(epoch, sequence);
  }

  /** Of agents' epochs, the most recently used first. */
  persisted(): PersistedRange[] {
    return this.#epochs.persisted();
  }

  /**
   * Resolves when the unit is on disk and indexed, or was before. One unit at a time.
   * @param heldBytes what it costs in memory until then
   */
  store(unit: ArrivedUnit, heldBytes: number): Promise<StoreResult> {
    this.#waitingBytes += heldBytes;
    return this.#inTurn(() => this.#store(unit)).finally(() => {
      this.#waitingBytes -= heldBytes;
    });
  }

  /** What all that is to be stored costs in memory. */
  get waitingBytes(): number {
    return this.#waitingBytes;
  }

  async #store(unit: ArrivedUnit): Promise<StoreResult> {
    if (this.has(unit.epoch, unit.sequence)) return "repeated";
    const id = idOf(unit);
    const before = this.#gone.has(id) ? undefined : await this.#index.get(this.camera, id);
    if (before?.state === "whole" || before?.state === "quarantined") {
      // The index has lost the epoch; without it the sender would come again for ever.
      await this.#record(before, !unit.ownEpoch, before);
      return "repeated";
    }
    // A second part of the same unit is no better than the first.
    if (before?.state === "truncated" && !unit.whole) return "repeated";
    const made = await this.#bytesOf(unit);
    if (made === undefined) return "empty";
    const file: FragmentFile = { id, state: made.state };
    await this.#files.write(file, made.bytes);
    const row: FragmentRow = { ...file, bytes: made.bytes.length, durationUs: made.durationUs };
    // Where the row is refused the file stays: after a crash the refused row may be there all the same.
    await this.#record(row, !unit.ownEpoch, before);
    if (before !== undefined) await this.#files.remove({ id, state: before.state });
    return made.state;
  }

  async #bytesOf(unit: ArrivedUnit): Promise<FragmentBytes | undefined> {
    if (unit.format !== undefined && unit.pictures.length > 0) {
      try {
        return await this.#fragmentOf(unit, unit.format);
      } catch (error) {
        // Refused for ever, the unit would come again for ever; kept raw, it can be looked at.
        const sequence = unit.sequence.toString();
        this.#log.warn({ sequence, error: describeError(error) }, "no file can be made of a unit");
      }
    }
    // Of a raw unit only the whole is of use: the sender still has what was cut off.
    if (!unit.whole || unit.raw === undefined || unit.raw.packets.length === 0) return undefined;
    return { state: "quarantined", bytes: encodeUnit(unit.raw), durationUs: 0 };
  }

  async #fragmentOf(unit: ArrivedUnit, format: VideoFormat): Promise<FragmentBytes> {
    const state = unit.whole ? "whole" : "truncated";
    const { pictures, producerUs, sequence, sound } = unit;
    const built = await buildFragment({
      camera: this.camera,
      epoch: epochName(unit.epoch),
      sequence,
      producerUs,
      state,
      format,
      pictures,
      ...(sound !== undefined && { sound }),
    });
    return { state, bytes: built.bytes, durationUs: built.facts.durationUs };
  }

  /** Index row and epoch in one synced batch; what `persisted` says follows only then. */
  async #record(row: FragmentRow, remembered: boolean, before?: FragmentRow): Promise<void> {
    const [, , name, sequence] = FRAGMENT_ID.exec(row.id) as unknown as [string, string, string, string];
    if (row.state === "truncated" || row.state === "damaged" || !remembered) {
      await this.#index.put(this.camera, row);
    } else {
      const ranges = this.#epochs.ranges(name).with(BigInt(sequence));
      const usedUs = this.#clock.nowUs();
      await this.#index.put(this.camera, row, { name, stored: { ranges: ranges.toString(), usedUs } });
      this.#epochs.set(name, ranges, usedUs);
      await this.#forgetSurplus(name);
    }
    if (before !== undefined) this.#totals.subtract(before);
    this.#gone.delete(row.id);
    this.#totals.add(row);
  }

  async #forgetSurplus(inUse: string): Promise<void> {
    const surplus = this.#epochs.surplus(inUse);
    if (surplus === undefined) return;
    try {
      await this.#index.forgetEpochs(this.camera, [surplus]);
      this.#epochs.forget(surplus);
    } catch (error) {
      // What was recorded stands; the next unit tries again.
      this.#log.warn({ error: describeError(error) }, "an old epoch cannot be forgotten");
    }
  }

  /** Those that overlap [fromUs, toUs), oldest first. */
  async fragments(fromUs: number, toUs: number, limit: number): Promise<Fragment[]> {
    const found: Fragment[] = [];
    const first = timeKey(fromUs - this.#totals.longestUs);
    for await (const row of this.#index.rows(this.camera, first, timeKey(toUs))) {
      if (found.length >= limit) break;
      const fragment = fragmentOf(this.camera, row);
      if (fragment === undefined || this.#gone.has(row.id)) continue;
      const endUs = fragment.producerUs + fragment.durationUs;
      if (endUs > fromUs || fragment.producerUs >= fromUs) found.push(fragment);
    }
    return found;
  }

  /** Undefined also for a file that is damaged, which is set aside. */
  async read(id: FragmentId): Promise<Buffer | undefined> {
    if (!FRAGMENT_ID.test(id)) return undefined;
    const row = await this.#index.get(this.camera, id);
    if (row === undefined || row.state === "quarantined" || row.state === "damaged") return undefined;
    const bytes = await this.#files.read(row);
    try {
      if (bytes !== undefined) readFacts(bytes);
      return bytes;
    } catch (error) {
      if (!isDamage(error)) throw error;
      await this.#inTurn(() => this.#dropDamaged(row, error));
      return undefined;
    }
  }

  /** The file goes first: a crash leaves a row that does not say so, which `open` mends. */
  async #dropDamaged({ id, state }: FragmentRow, why: unknown): Promise<void> {
    // Another reader was here before, or the unit's whole file came meanwhile.
    const row = await this.#index.get(this.camera, id);
    if (row === undefined || row.state !== state) return;
    const aside = await this.#survey.setAside(row, why);
    await this.#index.put(this.camera, aside);
    this.#totals.subtract(row);
    this.#totals.add(aside);
  }

  /**
   * Removes fragments that ended before `beforeUs`, and the oldest until `freeBytes` are freed.
   * Rows go first: a crash leaves files without rows, which `open` adopts and the next round removes again.
   * @param fromUs only those that begin then or later
   * @returns how many went
   */
  async removeOldest(beforeUs: number, freeBytes: number, fromUs = 0): Promise<number> {
    const removed = { rows: 0, bytes: 0 };
    for (;;) {
      // In turns of their own: what comes meanwhile is stored between two of them.
      const some = await this.#inTurn(() => this.#removeSome(beforeUs, freeBytes - removed.bytes, fromUs));
      if (some.rows === 0) return removed.rows;
      removed.rows += some.rows;
      removed.bytes += some.bytes;
    }
  }

  async #removeSome(beforeUs: number, freeBytes: number, fromUs: number): Promise<Removed> {
    try {
      return await this.#removeFirst(beforeUs, freeBytes, fromUs);
    } catch (error) {
      if (!(error instanceof DatabaseWriteError)) throw error;
      // A full disk does not even take that a row is gone. Here files make room for it first; a crash leaves
      // rows without files, which `open` drops.
      const room = freeBytes <= 0 ? 0 : Math.max(freeBytes, INDEX_ROOM_BYTES);
      for await (const row of this.#oldest(beforeUs, room, fromUs)) await this.#files.remove(row);
      const removed = { rows: 0, bytes: 0 };
      for (;;) {
        const some = await this.#removeFirst(beforeUs, room - removed.bytes, fromUs);
        if (some.rows === 0) return removed;
        removed.rows += some.rows;
        removed.bytes += some.bytes;
      }
    }
  }

  async #removeFirst(beforeUs: number, freeBytes: number, fromUs: number): Promise<Removed> {
    const rows: FragmentRow[] = [];
    for await (const row of this.#oldest(beforeUs, freeBytes, fromUs)) {
      if (rows.push(row) === REMOVE_AT_ONCE) break;
    }
    if (rows.length > 0) await this.#removeRows(rows);
    return { rows: rows.length, bytes: rows.reduce((sum, row) => sum + row.bytes, 0) };
  }

  async *#oldest(beforeUs: number, freeBytes: number, fromUs: number): AsyncGenerator<FragmentRow> {
    let freed = 0;
    for await (const row of this.#index.rows(this.camera, timeKey(fromUs))) {
      const endUs = startUsOf(row) + row.durationUs;
      if (endUs >= beforeUs && freed >= freeBytes) return;
      freed += row.bytes;
      yield row;
    }
  }

  async #removeRows(rows: readonly FragmentRow[]): Promise<void> {
    await this.#index.remove(
      this.camera,
      rows.map((row) => row.id),
    );
    // What is counted is what has a row, also where its file cannot be removed: that is adopted at the next start.
    for (const row of rows) if (!this.#gone.delete(row.id)) this.#totals.subtract(row);
    for (const row of rows) {
      await this.#files.remove(row).catch((error: unknown) => {
        this.#log.error({ fragment: row.id, error: describeError(error) }, "old footage cannot be removed");
      });
    }
    for (const hour of new Set(rows.map((row) => hourOf(row.id)))) await this.#files.removeHour(hour);
    await this.#findOldest();
  }

  async #findOldest(): Promise<void> {
    let oldest: FragmentRow | undefined;
    for await (const row of this.#index.rows(this.camera)) {
      oldest = row;
      break;
    }
    this.#totals.setOldest(oldest);
  }

  /** Resolves when all that was given is stored. */
  async idle(): Promise<void> {
    await this.#tail;
  }

  #inTurn<T>(task: () => Promise<T>): Promise<T> {
    const done = this.#tail.then(task);
    this.#tail = done.catch(() => undefined);
    return done;
  }
}

interface Removed {
  rows: number;
  bytes: number;
}

interface FragmentBytes {
  readonly state: Fragment["state"];
  readonly bytes: Buffer;
  readonly durationUs: number;
}

/** Undefined for one that is damaged. */
function fragmentOf(camera: string, { state, ...row }: FragmentRow): Fragment | undefined {
  if (state === "damaged") return undefined;
  const [, us, epoch, sequence] = FRAGMENT_ID.exec(row.id) as unknown as [string, string, string, string];
  return {
    id: row.id,
    camera,
    epoch: BigInt(`0x${epoch}`),
    sequence: BigInt(sequence),
    producerUs: Number(us),
    durationUs: row.durationUs,
    bytes: row.bytes,
    state,
  };
}
