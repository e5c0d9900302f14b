/**
 * One log file by its path, followed over its rotations. Where it was read to is stored in the same
 * synced write as the records up to there.
 *
 * - Renamed (logrotate's `create`): what was written last is read from the old file until that was
 *   quiet for `rotateWaitMs`; then come the files rotated since, oldest first, and the new one.
 * - Copied and truncated (`copytruncate`): noticed by the size, or by the bytes before the place when
 *   the file has grown again; what was missed is read from the copy.
 * - Compressed meanwhile: what was not read before is read from the compressed file.
 * - A file that is gone when the agent comes back is reported as a gap.
 */
import type { FileHandle } from "node:fs/promises";
import type { FileSourceConfig } from "../../../config/source-config.ts";
import { pause } from "../../../runtime/backoff.ts";
import type { Clock } from "../../../runtime/clock.ts";
import { HeadwaterError } from "../../../runtime/errors.ts";
import type { Log } from "../../../runtime/log.ts";
import type { Mark, RecordBuffer } from "../../buffer/record-buffer.ts";
import { type LineDecoder, lineDecoder } from "../decode/line-decoder.ts";
import type { Arrived, Intake } from "../intake.ts";
import { gapRecord, gapStartUs } from "../reading-record.ts";
import type { SourceMeters } from "../source-meters.ts";
import type { Life } from "../supervisor.ts";
import { type CutRecord, cutRecords, type WindowEnd } from "./cut-records.ts";
import {
  decodePlace,
  encodePlace,
  endOf,
  type FilePlace,
  type FoundFile,
  fileOfPlace,
  findFile,
  foundHoldsPlace,
  holdsPlace,
  type Left,
  openFound,
  SAMPLE_BYTES,
  samplesAt,
  steadily,
} from "./file-place.ts";
import { GzipFile, type ReadableFile } from "./gzip-file.ts";
import { rotatedFiles } from "./rotated-files.ts";
import { WINDOW_BYTES, type Window } from "./window.ts";

/** A copy is made within so long, or is too large to be made in a moment. */
const LOOK_AGAIN_MS = 200;

/** What all files of a source share. */
export interface TailParts {
  readonly config: FileSourceConfig;
  readonly device: string;
  readonly buffer: RecordBuffer;
  readonly clock: Clock;
  readonly log: Log;
  readonly meters: SourceMeters;
  readonly intake: () => Intake;
  readonly window: Window;
}

/** Where a file is one of several that a pattern matches. */
export interface Company {
  /** True for what is followed by itself, whatever its name looks like. */
  readonly isOther: (path: string) => boolean;
  /** True for a file that another one's place was handed to, as it has another name now. */
  readonly isElsewhere: (place: FilePlace) => boolean;
  /** A file is left at this place, to go on with another. The marks are stored with what comes next. */
  readonly leaving: (place: FilePlace) => readonly Mark[];
}

export interface TailedFileOptions extends TailParts {
  /** Absolute. */
  readonly path: string;
  /** What a line that names no sensor is from. */
  readonly sensor: string;
  readonly markName: string;
  /** Where it is begun when nothing is known of it. */
  readonly from: "start" | "end";
  /** Without it the file is the only one, and is waited for when it is gone. */
  readonly company?: Company;
}

/** The file is there and cannot be read. */
export class FileUnreadableError extends HeadwaterError {
  constructor(path: string, cause: unknown) {
    const { code } = cause as NodeJS.ErrnoException;
    super("FILE_UNREADABLE", {
      retryable: true,
      message: `${path}: cannot be read: ${code ?? (cause instanceof Error ? cause.message : cause)}`,
      hint:
        code === "EACCES"
          ? "give the agent's user the right to read it, such as by the group adm"
          : "check the disk",
      cause,
    });
  }
}

/** The file that is being read. */
interface OpenFile {
  readonly file: ReadableFile;
  /** Undefined for a compressed one, which does not change. */
  readonly plain: FileHandle | undefined;
  readonly id: string;
  /** Everything before is stored. */
  offset: number;
  head: string;
  before: string;
  /** As last looked at, to see whether it changed. */
  modifiedNs: bigint;
  size: number;
  /** Since when nothing came. */
  quietSinceMs: number;
  /** What was read before it. */
  after: Left;
  /** As in its place. */
  readonly was?: string;
}

const NOTHING: Left = { id: "", modifiedNs: "0" };

/** What a file was when all of it that can be read had been. */
export type Seen = Pick<OpenFile, "id" | "size" | "modifiedNs" | "quietSinceMs">;

export class TailedFile {
  readonly #options: TailedFileOptions;
  readonly #first: RegExp | undefined;
  #decoder: LineDecoder;
  #current: OpenFile | undefined;
  #caughtUp = false;

  constructor(options: TailedFileOptions) {
    this.#options = options;
    const { multiline } = options.config;
    this.#first = multiline && new RegExp(multiline.start, "u");
    this.#decoder = this.#makeDecoder();
  }

  /** The inode that is being read, which may have another name by now. */
  get openId(): string | undefined {
    return this.#current?.id;
  }

  /** Undefined while there is something left to read. */
  get seen(): Seen | undefined {
    if (!this.#caughtUp || this.#current === undefined) return undefined;
    const { id, size, modifiedNs, quietSinceMs } = this.#current;
    return { id, size, modifiedNs, quietSinceMs };
  }

  #makeDecoder(): LineDecoder {
    const { config, sensor } = this.#options;
    return lineDecoder(config.format, sensor, config.csv);
  }

  /** Resolves when the source closes or, in company, when the file is gone. @throws FileUnreadableError */
  async live(life: Life): Promise<void> {
    const { path, config } = this.#options;
    this.#caughtUp = false;
    try {
      this.#current = await this.#resume(life);
      while (!life.signal.aborted) {
        if (this.#current === undefined) {
          life.idle();
          const found = await findFile(path);
          if (found !== undefined) this.#current = await this.#open(found, 0);
          else if (this.#options.company !== undefined) return;
          else await pause(config.pollMs, life.signal);
          continue;
        }
        const file: OpenFile = this.#current;
        life.running();
        const unread = await steadily(() => this.#unreadCopy(file));
        if (unread === undefined && (await this.#readOn(file, life))) continue;
        const next = unread ?? (await this.#next(file, life));
        this.#caughtUp = next === undefined;
        if (next === "gone") return;
        if (next === undefined) await pause(config.pollMs, life.signal);
        else {
          await file.file.close();
          this.#current = next;
        }
      }
    } catch (error) {
      throw (error as NodeJS.ErrnoException).syscall === undefined
        ? error
        : new FileUnreadableError(path, error);
    } finally {
      await this.#current?.file.close().catch(() => {});
      this.#current = undefined;
    }
  }

  /** Where an earlier life stopped. Undefined when there is no file yet. */
  async #resume(life: Life): Promise<OpenFile | undefined> {
    const { path, from, buffer, markName, company } = this.#options;
    const place = decodePlace(await buffer.mark(markName), path);
    if (place === undefined) {
      return steadily(async () => {
        const found = await findFile(path);
        if (found === undefined) return undefined;
        return from === "end" ? this.#openAtEnd(found) : this.#open(found, 0, await this.#newestRotated());
      });
    }
    const held = await this.#twice(() => this.#openAt(place));
    if (held !== undefined) return held;
    const expected = place.offset > 0 && !place.done && company?.isElsewhere(place) !== true;
    if (expected) await this.#reportGap(place.timeUs, "was replaced while nobody read it", life.signal);
    const later = await steadily(() => this.#openAfter(place));
    // Decided once: a restart before the first record must not tell of the same gap again.
    if (later !== undefined) await this.#notePlace(later);
    return later;
  }

  /** What is not found may be in a copy that was not whole yet when it was listed. */
  async #twice<T>(look: () => Promise<T | undefined>): Promise<T | undefined> {
    const found = await steadily(look);
    if (found !== undefined) return found;
    await pause(LOOK_AGAIN_MS);
    return steadily(look);
  }

  /** Undefined when no file holds it. */
  async #openAt(place: FilePlace): Promise<OpenFile | undefined> {
    const { path, company } = this.#options;
    const files = await rotatedFiles(path, company?.isOther);
    const held = await fileOfPlace(files, place);
    if (held === undefined) return undefined;
    const after = place.after ?? NOTHING;
    const unread = place.offset === 0 ? await this.#rotatedUnread(files, held, after) : undefined;
    const file = await this.#open(unread ?? held, place.offset, after);
    return place.was === undefined ? file : { ...file, was: place.was };
  }

  /** Where no file holds the place: what was written first after it, from its start. */
  async #openAfter({ id, timeUs }: FilePlace): Promise<OpenFile | undefined> {
    const files = await rotatedFiles(this.#options.path, this.#options.company?.isOther);
    const timeNs = BigInt(timeUs) * 1_000n;
    const later = files.find(({ modifiedNs }) => modifiedNs > timeNs) ?? files.at(-1);
    return later && this.#open(later, 0, { id, modifiedNs: String(later.modifiedNs - 1n) });
  }

  async #openAtEnd(found: FoundFile): Promise<OpenFile> {
    const { offset } = await endOf(found, this.#options.window);
    const file = await this.#open(found, offset);
    // Decided once: without the mark a restart before the first record would skip what came meanwhile.
    await this.#notePlace(file);
    return file;
  }

  /** What the source found here when it began is not its own. */
  async #newestRotated(): Promise<Left> {
    const { path, company } = this.#options;
    const rotated = (await rotatedFiles(path, company?.isOther)).filter((file) => file.path !== path);
    return leftOf(rotated.at(-1));
  }

  /**
   * A file of which nothing was read has no sample to know its copy by: after `copytruncate` it looks as
   * if nothing had been in it. What was rotated later than the file read before it must be read first.
   */
  async #unreadCopy(file: OpenFile): Promise<OpenFile | undefined> {
    if (file.offset > 0 || file.plain === undefined || file.after === NOTHING) return undefined;
    const { mtimeNs } = await file.plain.stat({ bigint: true });
    if (mtimeNs === file.modifiedNs) return undefined;
    const { path, company } = this.#options;
    const files = await rotatedFiles(path, company?.isOther);
    const current = files.find(({ id }) => id === file.id);
    const unread = current && (await this.#rotatedUnread(files, current, file.after));
    return unread && this.#open(unread, 0, file.after);
  }

  async #rotatedUnread(
    files: readonly FoundFile[],
    current: FoundFile,
    after: Left,
  ): Promise<FoundFile | undefined> {
    if (after.id === NOTHING.id && after.modifiedNs === NOTHING.modifiedNs) return undefined;
    const first = files.find(
      ({ id, modifiedNs }) => id !== after.id && modifiedNs > BigInt(after.modifiedNs),
    );
    if (first === undefined || first.id === current.id) return undefined;
    // Copied, and not truncated yet: it is all still here.
    if (!first.compressed && first.size > 0) {
      const { file } = await this.#open(first, 0);
      const end = await samplesAt(file, first.size).finally(() => file.close());
      const place = { ...end, path: first.path, id: first.id, offset: first.size, timeUs: 0 };
      if (await foundHoldsPlace(current, place)) return undefined;
    }
    return first;
  }

  async #open(found: FoundFile, offset: number, after: Left = NOTHING): Promise<OpenFile> {
    const file = await openFound(found);
    try {
      if (offset > 0) {
        this.#decoder = this.#makeDecoder();
        await this.#options.window.use(async (window) => {
          const { bytesRead } = await file.read(window, 0, WINDOW_BYTES, 0);
          const [first] = cutRecords(window.subarray(0, bytesRead), "open");
          if (first !== undefined) this.#decoder.prime(first.bytes);
        });
      }
      const { id, modifiedNs, size } = found;
      const quietSinceMs = this.#options.clock.monotonicMs();
      const plain = found.compressed ? undefined : (file as FileHandle);
      const samples = await samplesAt(file, offset);
      return { file, plain, id, offset, ...samples, modifiedNs, size, quietSinceMs, after };
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  async #reportGap(fromUs: number, what: string, signal: AbortSignal): Promise<void> {
    const { device, config, clock, path, sensor, meters, intake } = this.#options;
    const nowUs = clock.nowUs();
    const gap = gapRecord(device, {
      sensor,
      stream: config.stream,
      reason: `${path} ${what}`,
      fromUs: gapStartUs(fromUs, nowUs),
      toUs: nowUs,
    });
    meters.fault(`the file ${what}`);
    await intake().append([gap], signal);
  }

  /** Reads and stores one window. False when there was nothing new. */
  async #readOn(file: OpenFile, life: Life): Promise<boolean> {
    const { clock, config } = this.#options;
    if (file.plain === undefined) return this.#storeWindow(file, "final", life);
    const stats = await file.plain.stat({ bigint: true });
    const size = Number(stats.size);
    this.#caughtUp &&= size === file.size && stats.mtimeNs === file.modifiedNs;
    if (size !== file.offset || stats.mtimeNs !== file.modifiedNs) {
      if (size < file.offset || !(await holdsPlace(file.file, file))) {
        await this.#truncated(file, life);
        return true;
      }
      if (stats.mtimeNs !== file.modifiedNs) file.quietSinceMs = clock.monotonicMs();
      file.modifiedNs = stats.mtimeNs;
    }
    file.size = size;
    if (size === file.offset) return false;
    const quietMs = clock.monotonicMs() - file.quietSinceMs;
    const quiet = config.multiline !== undefined && quietMs >= config.multiline.flushAfterMs;
    return this.#storeWindow(file, quiet ? "quiet" : "open", life);
  }

  /** False when no record was complete. */
  #storeWindow(file: OpenFile, ends: WindowEnd, life: Life): Promise<boolean> {
    return this.#options.window.use(async (bytes) => {
      const { bytesRead } = await file.file.read(bytes, 0, WINDOW_BYTES, file.offset);
      const window = bytes.subarray(0, bytesRead);
      const full = bytesRead === WINDOW_BYTES;
      let records = cutRecords(window, full ? "open" : ends, this.#first);
      // A whole window without the start of a next record cannot happen: records are cut at 64 KiB.
      if (records.length === 0 && full) records = cutRecords(window, "quiet", this.#first);
      const last = records.at(-1);
      if (last === undefined) return false;
      this.#caughtUp = false;
      life.fed();
      if (file.head.length === 0 || file.offset < SAMPLE_BYTES) {
        file.head = window.subarray(0, Math.max(0, Math.min(SAMPLE_BYTES, last.end))).toString("base64");
        if (file.offset > 0) file.head = (await samplesAt(file.file, file.offset + last.end)).head;
      }
      const arrivalUs = this.#options.clock.nowUs();
      const arrived = records.flatMap((record) => this.#arrived(file, window, record, arrivalUs));
      await this.#options.intake().store(arrived, life.signal);
      file.before = beforeOf(window, last.end);
      file.offset += last.end;
      return true;
    });
  }

  #arrived(file: OpenFile, window: Buffer, { bytes, end }: CutRecord, arrivalUs: number): Arrived[] {
    if (bytes.length === 0) return [];
    const { config, intake, sensor, meters } = this.#options;
    const place = { ...file, offset: file.offset + end, before: beforeOf(window, end) };
    const mark = this.#markOf(this.#placeOf(place, arrivalUs));
    const { readings, reason } = this.#decoder.decode(bytes, arrivalUs);
    if (reason === undefined) return readings.map((reading) => ({ reading, arrivalUs, mark }));
    if (config.undecodable !== "drop")
      return [{ reading: intake().raw(sensor, reason, bytes), arrivalUs, mark }];
    meters.rejected(reason);
    return [];
  }

  #placeOf(
    { id, offset, head, before, after, was }: OpenFile,
    timeUs = this.#options.clock.nowUs(),
  ): FilePlace {
    const came = was === undefined ? {} : { was };
    const place = { path: this.#options.path, id, offset, head, before, timeUs, ...came };
    return offset === 0 ? { ...place, after } : place;
  }

  #markOf(place: FilePlace): Mark {
    return { source: this.#options.markName, value: encodePlace(place) };
  }

  /** Without records: where another file is begun, so that a restart does not look for the one before. */
  async #notePlace(file: OpenFile, leaving: readonly Mark[] = []): Promise<void> {
    await this.#options.buffer.setMarks([...leaving, this.#markOf(this.#placeOf(file))]);
  }

  /** The same file, begun anew. What was written before and not read may be in a copy of it. */
  async #truncated(file: OpenFile, life: Life): Promise<void> {
    const { path, company, log } = this.#options;
    const place = this.#placeOf(file);
    const copy = await this.#twice(async () => {
      const files = await rotatedFiles(path, company?.isOther);
      const found = await fileOfPlace(
        files.filter(({ id }) => id !== file.id),
        place,
      );
      return found && { found, opened: await this.#open(found, place.offset) };
    });
    let left = place;
    let after = NOTHING;
    if (copy !== undefined) {
      const { opened } = copy;
      try {
        while (await this.#storeWindow(opened, "final", life)) {}
        await this.#reportDamage(opened, life);
        left = this.#placeOf(opened);
        after = leftOf(copy.found);
      } finally {
        await opened.file.close();
      }
    }
    log.info({ path, copy: copy?.found.path }, "the file was truncated");
    file.offset = 0;
    file.after = after;
    file.head = "";
    file.before = "";
    this.#decoder = this.#makeDecoder();
    await this.#notePlace(file, company?.leaving(left));
  }

  /** The file to go on with, once this one was renamed and has been quiet for long enough. */
  async #next(file: OpenFile, life: Life): Promise<OpenFile | "gone" | undefined> {
    const { path, company, config, clock, buffer } = this.#options;
    const current = await findFile(path);
    if (current?.id === file.id || (current === undefined && company === undefined)) return undefined;
    if (file.plain !== undefined && clock.monotonicMs() - file.quietSinceMs < config.rotateWaitMs)
      return undefined;
    this.#caughtUp = false;
    // Its last line may have no end.
    while (await this.#storeWindow(file, "final", life)) {}
    await this.#reportDamage(file, life);
    const place = this.#placeOf(file);
    const next = await steadily(() => this.#following(file, place));
    if (next === undefined && (company === undefined || current !== undefined)) return undefined;
    if (next === undefined) {
      const done: FilePlace = { ...place, done: true };
      await buffer.setMarks([...(company?.leaving(place) ?? []), this.#markOf(done)]);
      return "gone";
    }
    await this.#notePlace(next, company?.leaving(place));
    return next;
  }

  /** The first of the files that were rotated after this one, else the new one. */
  async #following(file: OpenFile, place: FilePlace): Promise<OpenFile | undefined> {
    const files = await rotatedFiles(this.#options.path, this.#options.company?.isOther);
    const at = files.findIndex(({ id }) => id === file.id);
    const later =
      at >= 0 ? files.slice(at + 1) : files.filter(({ modifiedNs }) => modifiedNs > file.modifiedNs);
    const newest = files.at(-1);
    const current = newest?.path === this.#options.path && newest.id !== file.id ? newest : undefined;
    const [next = current] = later;
    if (next === undefined) return undefined;
    // What was read may have been compressed since, by a program that does not keep the time.
    const isCopy = next.compressed && place.offset > 0 && (await foundHoldsPlace(next, place));
    const { id, modifiedNs } = file;
    return this.#open(next, isCopy ? place.offset : 0, { id, modifiedNs: String(modifiedNs) });
  }

  async #reportDamage({ file, modifiedNs }: OpenFile, { signal }: Life): Promise<void> {
    if (!(file instanceof GzipFile) || file.damage === undefined) return;
    await this.#reportGap(Number(modifiedNs / 1_000n), `was rotated, and ${file.damage}`, signal);
  }
}

function leftOf(file: FoundFile | undefined): Left {
  return file === undefined ? NOTHING : { id: file.id, modifiedNs: String(file.modifiedNs) };
}

function beforeOf(window: Buffer, end: number): string {
  return window.subarray(Math.max(0, end - SAMPLE_BYTES), end).toString("base64");
}
