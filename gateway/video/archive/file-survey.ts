/**
 * Compares what one camera's index says with the files that are there. The files are right.
 *
 *   row and file   → indexed       row, no file          → lost
 *   file, no row   → unindexed     file in another state → unindexed, as what it is now
 *
 * Of the files without a row the bytes are looked at; a damaged one is set aside.
 */
import { decodeUnit, MalformedFootageError } from "../../../protocol/footage.ts";
import { describeError } from "../../../runtime/errors.ts";
import type { Log } from "../../../runtime/log.ts";
import { DamagedFragmentError, readFacts } from "../fragments/fragment-file.ts";
import { type FragmentFile, type FragmentFiles, hourOf } from "./fragment-files.ts";
import type { FragmentId, FragmentIndex, FragmentRow, FragmentState } from "./fragment-index.ts";

/** Of two files of one unit that is kept which comes first here. */
const BEST_FIRST: readonly FragmentState[] = ["whole", "quarantined", "truncated", "damaged"];

export interface SurveyUse {
  indexed(row: FragmentRow): void;
  /** Where it fails the file waits for the next start. */
  unindexed(row: FragmentRow): Promise<void>;
}

export class FileSurvey {
  readonly #camera: string;
  readonly #files: FragmentFiles;
  readonly #index: FragmentIndex;
  readonly #log: Log;

  constructor(camera: string, files: FragmentFiles, index: FragmentIndex, log: Log) {
    this.#camera = camera;
    this.#files = files;
    this.#index = index;
    this.#log = log;
  }

  /** Hour by hour, so that it holds the names of one. @returns the rows whose files are gone */
  async compare(use: SurveyUse): Promise<FragmentId[]> {
    const lost: FragmentId[] = [];
    const hours = new Set(await this.#files.hours());
    let hour = "";
    let onDisk = new Map<FragmentId, FragmentFile>();
    for await (const row of this.#index.rows(this.#camera)) {
      if (hourOf(row.id) !== hour) {
        await this.#adoptAll(onDisk.values(), use);
        hour = hourOf(row.id);
        onDisk = hours.delete(hour) ? await this.#filesOf(hour) : new Map();
      }
      if (onDisk.get(row.id)?.state === row.state) {
        onDisk.delete(row.id);
        use.indexed(row);
      } else if (!onDisk.has(row.id)) lost.push(row.id);
    }
    await this.#adoptAll(onDisk.values(), use);
    for (const unindexed of [...hours].sort())
      await this.#adoptAll((await this.#filesOf(unindexed)).values(), use);
    return lost;
  }

  /** @returns what its row says from now on */
  async setAside(file: FragmentFile, why: unknown): Promise<FragmentRow> {
    this.#log.warn({ fragment: file.id, error: describeError(why) }, "damaged footage set aside");
    return { ...(await this.#files.setAside(file)), durationUs: 0 };
  }

  /** Where a unit has two files, a crash came between the better one's index row and the end of the other. */
  async #filesOf(hour: string): Promise<Map<FragmentId, FragmentFile>> {
    const found = new Map<FragmentId, FragmentFile>();
    for (const file of await this.#files.filesOf(hour)) {
      const other = found.get(file.id);
      if (other === undefined) {
        found.set(file.id, file);
        continue;
      }
      const isBetter = BEST_FIRST.indexOf(file.state) < BEST_FIRST.indexOf(other.state);
      found.set(file.id, isBetter ? file : other);
      await this.#files.remove(isBetter ? other : file);
    }
    return found;
  }

  async #adoptAll(files: Iterable<FragmentFile>, use: SurveyUse): Promise<void> {
    const failures: unknown[] = [];
    for (const file of files) {
      try {
        const row = await this.#rowOf(file);
        await use.unindexed(row);
        this.#log.info({ fragment: file.id, state: row.state }, "adopted footage that was not indexed");
      } catch (error) {
        failures.push(error);
      }
    }
    if (failures.length === 0) return;
    const fields = { fragments: failures.length, error: describeError(failures[0]) };
    this.#log.error(fields, "footage that is not indexed cannot be adopted before the next start");
  }

  async #rowOf(file: FragmentFile): Promise<FragmentRow> {
    try {
      if (file.state === "damaged") return { ...file, bytes: await this.#files.sizeOf(file), durationUs: 0 };
      return await this.#soundRowOf(file);
    } catch (error) {
      // Only what its own bytes say: a full disk, too, refuses the row of a sound file.
      if (!isDamage(error)) throw error;
      return this.setAside(file, error);
    }
  }

  /** @throws DamagedFragmentError, MalformedFootageError */
  async #soundRowOf(file: FragmentFile): Promise<FragmentRow> {
    const bytes = await this.#files.read(file);
    if (bytes === undefined) throw new DamagedFragmentError("it is gone");
    if (file.state === "quarantined") {
      decodeUnit(bytes);
      return { ...file, bytes: bytes.length, durationUs: 0 };
    }
    const { durationUs, camera } = readFacts(bytes);
    if (camera !== this.#camera) throw new DamagedFragmentError(`it belongs to ${camera}`);
    return { ...file, bytes: bytes.length, durationUs };
  }
}

/** Whether that is what a file's own bytes say. */
export function isDamage(error: unknown): boolean {
  return error instanceof DamagedFragmentError || error instanceof MalformedFootageError;
}
