/**
 * One log file by its path, followed over its rotations. Where it was read to is stored in the same
 * synced write as the records up to there, so a crash leaves a place with all that was read before it.
 *
 * - Renamed (logrotate's `create`): what was written last is read from the old file until that was
 *   quiet for `rotateWaitMs`; then come the files rotated since, oldest first, and the new one.
 * - Copied and truncated (`copytruncate`): the file does not hold the place any more, the copy does. It
 *   is gone on with there, and then with what comes behind the copy, as after a renaming.
 * - Compressed meanwhile: what was not read before is read from the compressed file.
 * - A place that no file holds is reported as a gap.
 *
 * A file that is left is noted as done before the next one is read: which one that is, is decided from
 * what is there then, also after a restart (file-chain.ts), and again once it was looked at (log-files.ts).
 */
import { pause } from "../../../runtime/backoff.ts";
import type { Mark } from "../../buffer/record-buffer.ts";
import { type LineDecoder, lineDecoder } from "../decode/line-decoder.ts";
import type { Arrived } from "../intake.ts";
import { gapRecord, gapStartUs } from "../reading-record.ts";
import type { Life } from "../supervisor.ts";
import { type CutRecord, cutRecords, type WindowEnd } from "./cut-records.ts";
import { endBefore, fileAfter } from "./file-chain.ts";
import { decodePlace, encodePlace, endOf, type FilePlace, type FoundFile, steadily } from "./file-place.ts";
import { LogFiles } from "./log-files.ts";
import { type OpenFile, START } from "./open-file.ts";
import { type Company, FileUnreadableError, type Seen, type TailedFileOptions } from "./tail-parts.ts";
import { WINDOW_BYTES } from "./window.ts";

/** What came of a look: records, nothing, another file to go on with, or the end of them all. */
type Step = "stored" | "nothing" | "gone" | OpenFile;
/** The file does not hold the place any more. */
const REPLACED = Symbol();

export class TailedFile {
  readonly #options: TailedFileOptions;
  readonly #files: LogFiles;
  readonly #first: RegExp | undefined;
  #decoder: LineDecoder;
  #current: OpenFile | undefined;
  /** The end of the file that was left last. */
  #left: FilePlace | undefined;
  #caughtUp = false;
  /** When the file was as expected, µs. */
  #lookedUs = 0;

  constructor(options: TailedFileOptions) {
    this.#options = options;
    this.#files = new LogFiles(options);
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
      await this.#begin(await this.#resume(life));
      while (!life.signal.aborted) {
        const file = this.#current;
        const step = file === undefined ? await this.#appeared(life) : await this.#step(file, life);
        if (step === "gone" && this.#options.company !== undefined) return;
        this.#caughtUp = step === "nothing";
        if (step === "nothing") await pause(config.pollMs, life.signal);
        else if (step !== "stored") {
          await file?.close();
          await this.#begin(step === "gone" ? undefined : step);
        }
      }
    } catch (error) {
      throw (error as NodeJS.ErrnoException).syscall === undefined
        ? error
        : new FileUnreadableError(path, error);
    } finally {
      await this.#current?.close().catch(() => {});
      this.#current = undefined;
    }
  }

  /** Reads on here. In the midst of a file the decoder learns from its first line, as from the header of CSV. */
  async #begin(file: OpenFile | undefined): Promise<void> {
    this.#current = file;
    this.#decoder = this.#makeDecoder();
    if (file === undefined || file.offset === 0) return;
    await this.#options.window.use(async (window) => {
      const [first] = cutRecords(await file.first(window), "open");
      if (first !== undefined) this.#decoder.prime(first.bytes);
    });
  }

  /** Where an earlier life stopped. Undefined when there is nothing to read yet. */
  async #resume(life: Life): Promise<OpenFile | undefined> {
    const { path, buffer, markName, company } = this.#options;
    const place = decodePlace(await buffer.mark(markName), path);
    if (place === undefined) return steadily(() => this.#beginAnew());
    if (place.offset > 0) {
      const held = await this.#files.holder(place);
      if (held !== undefined) return held;
    }
    if (!place.done && company?.isElsewhere(place) !== true)
      await this.#reportGap(place.timeUs, "was replaced while nobody read it", life);
    if (place.done && (await this.#files.isMissed(place)))
      await this.#reportGap(place.timeUs, "was rotated, and removed before it was read", life);
    return steadily(() => this.#openAfter(place));
  }

  /** What the source finds here when it begins is not its own, but for the file itself. */
  async #beginAnew(): Promise<OpenFile | undefined> {
    const { path, from, window } = this.#options;
    const files = await this.#files.list();
    const current = files.at(-1)?.path === path ? files.at(-1) : undefined;
    if (from === "end" && current !== undefined) {
      const end = await endOf(current, window);
      if (end.offset > 0) {
        const file = await this.#files.open(current, end);
        // Without the mark a restart before the first record would skip what came meanwhile.
        await this.#note(this.#placeOf(file));
        return file;
      }
    }
    return this.#beginWith(files, current);
  }

  /** Decided once: a restart before the first record finds this. */
  async #beginWith(files: readonly FoundFile[], next: FoundFile | undefined): Promise<OpenFile | undefined> {
    const { path, clock } = this.#options;
    const left = await endBefore(files, next, { path, timeUs: clock.nowUs() });
    const opened = next && (await this.#files.open(next, START));
    await this.#note(left);
    this.#left = left;
    return opened;
  }

  /** Where no file holds the place: the first that was written after it. */
  async #openAfter(place: FilePlace): Promise<OpenFile | undefined> {
    const files = await this.#files.list();
    const next = await fileAfter(files, place);
    if (!place.done) return this.#beginWith(files, next);
    this.#left = place;
    return next && this.#files.open(next, START);
  }

  async #reportGap(fromUs: number, what: string, { signal }: Life): Promise<void> {
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

  /** Nothing is there to be read yet. */
  async #appeared(life: Life): Promise<Step> {
    life.idle();
    const next = await steadily(() => this.#openAfter(this.#left!));
    return next ?? (this.#options.company === undefined ? "nothing" : "gone");
  }

  async #step(file: OpenFile, life: Life): Promise<Step> {
    life.running();
    const { clock, config } = this.#options;
    const changed = await file.changed(clock.monotonicMs());
    this.#caughtUp &&= !changed;
    let step: Step = "nothing";
    if (changed && file.size === 0 && file.offset === 0)
      return (await this.#files.unreadBefore(file, this.#left)) ?? "nothing";
    if (!changed) this.#lookedUs = clock.nowUs();
    if (file.compressed) step = await this.#storeWindow(file, "final", life);
    else if (changed || file.size !== file.offset) {
      const quietMs = clock.monotonicMs() - file.quietSinceMs;
      const quiet = config.multiline !== undefined && quietMs >= config.multiline.flushAfterMs;
      step = await this.#storeWindow(file, quiet ? "quiet" : "open", life);
    }
    return step === "nothing" ? this.#next(file, life) : step;
  }

  /** Reads and stores one window. */
  async #storeWindow(file: OpenFile, ends: WindowEnd, life: Life): Promise<Step> {
    const step = await this.#tryWindow(file, ends, life);
    // Elsewhere than where the window is used: another file is opened with it.
    if (step !== REPLACED) return step;
    if (file.offset > 0 || this.#left === undefined) return this.#replaced(file, life);
    // Nothing of it is stored: it is looked at anew, behind what was left before.
    return (await this.#files.unreadBefore(file, this.#left)) ?? "nothing";
  }

  #tryWindow(file: OpenFile, ends: WindowEnd, life: Life): Promise<Step | typeof REPLACED> {
    return this.#options.window.use(async (bytes) => {
      const window = await file.read(bytes);
      if (window === undefined) return REPLACED;
      this.#lookedUs = this.#options.clock.nowUs();
      const full = window.length === WINDOW_BYTES;
      let records = cutRecords(window, full ? "open" : ends, this.#first);
      // A whole window without the start of a next record cannot happen: records are cut at 64 KiB.
      if (records.length === 0 && full) records = cutRecords(window, "quiet", this.#first);
      const last = records.at(-1);
      if (last === undefined) return "nothing";
      const unread = file.offset === 0 ? await this.#files.unreadBefore(file, this.#left) : undefined;
      if (unread !== undefined) return unread;
      this.#caughtUp = false;
      life.fed();
      const arrivalUs = this.#options.clock.nowUs();
      const arrived = records.flatMap((record) => this.#arrived(file, window, record, arrivalUs));
      const place = this.#markOf(file.place(this.#options.path, arrivalUs, window, last.end));
      if (arrived.length > 0) await this.#options.intake().store(arrived, life.signal);
      // Nothing but empty lines and what is dropped: the place goes on all the same.
      else await this.#options.buffer.setMarks([place]);
      file.advance(window, last.end);
      return "stored";
    });
  }

  #arrived(file: OpenFile, window: Buffer, { bytes, end }: CutRecord, arrivalUs: number): Arrived[] {
    if (bytes.length === 0) return [];
    const { config, intake, sensor, meters, path } = this.#options;
    const mark = this.#markOf(file.place(path, arrivalUs, window, end));
    const { readings, reason } = this.#decoder.decode(bytes, arrivalUs);
    if (reason === undefined) return readings.map((reading) => ({ reading, arrivalUs, mark }));
    if (config.undecodable !== "drop")
      return [{ reading: intake().raw(sensor, reason, bytes), arrivalUs, mark }];
    meters.rejected(reason);
    return [];
  }

  #placeOf(file: OpenFile): FilePlace {
    return file.place(this.#options.path, this.#options.clock.nowUs());
  }

  #markOf(place: FilePlace): Mark {
    return { source: this.#options.markName, value: encodePlace(place) };
  }

  /** Without records: where another file is begun, so that a restart does not look for the one before. */
  async #note(place: FilePlace, leaving: readonly Mark[] = []): Promise<void> {
    await this.#options.buffer.setMarks([...leaving, this.#markOf(place)]);
  }

  /** The file does not hold the place any more: it was truncated. */
  async #replaced(file: OpenFile, life: Life): Promise<Step> {
    const { path, log } = this.#options;
    const place = this.#placeOf(file);
    const copy = await this.#files.holder(place, file);
    log.info({ path, copy: copy?.found.path }, "the file was truncated");
    if (copy !== undefined) return copy;
    await this.#reportGap(this.#lookedUs, "was truncated, and the place in it is in no copy", life);
    return (await steadily(() => this.#openAfter(place))) ?? "gone";
  }

  /** The file to go on with, once this one was renamed and has been quiet for long enough. */
  async #next(file: OpenFile, life: Life): Promise<Step> {
    const { company, config, clock } = this.#options;
    const current = await this.#files.current();
    if (current?.id === file.id) return "nothing";
    if (!file.compressed && clock.monotonicMs() - file.quietSinceMs < config.rotateWaitMs) return "nothing";
    const place = this.#placeOf(file);
    const next = await this.#files.following(file, this.#left);
    if (next === undefined) {
      if (company === undefined || current !== undefined) return "nothing";
      return this.#ended(file, company, life);
    }
    this.#caughtUp = false;
    try {
      // Its only line has no end. Once that is stored, what comes next is what is behind the file, not behind the one before.
      const step = file.isUnread ? await this.#storeWindow(file, "final", life) : "nothing";
      if (step !== "nothing") {
        await next.close();
        return step;
      }
      if (next.offset > 0) {
        await this.#note(this.#placeOf(next), company?.leaving(place));
        return next;
      }
      const other = await this.#leave(file, life, next.id);
      if (other === undefined) return next;
      await next.close();
      return other;
    } catch (error) {
      await next.close();
      throw error;
    }
  }

  /** Nothing more will come. Its last line may have no end. Undefined when it was left, else what to do instead. */
  async #leave(file: OpenFile, life: Life, next?: string): Promise<Step | undefined> {
    let step: Step;
    do step = await this.#storeWindow(file, "final", life);
    while (step === "stored");
    if (step !== "nothing") return step;
    if (file.damage !== undefined) {
      const fromUs = Number(file.modifiedNs / 1_000n);
      await this.#reportGap(fromUs, `was rotated, and ${file.damage}`, life);
    }
    const place = this.#placeOf(file);
    const end = (file.isUnread && this.#left) || { ...place, done: true };
    const left: FilePlace = { ...end, ...(next !== undefined && { next }) };
    await this.#note(left, this.#options.company?.leaving(place));
    this.#left = left;
    return undefined;
  }

  /** It has no name that we know any more, and none came after it. */
  async #ended(file: OpenFile, company: Company, life: Life): Promise<Step> {
    if (file.removed || file.compressed) return (await this.#leave(file, life)) ?? "gone";
    if (file.offset > 0) {
      const place = this.#placeOf(file);
      // Half a line may be made whole yet, under whatever name.
      const done = file.offset === file.size;
      await this.#note(done ? { ...place, done } : place, company.leaving(place));
    }
    return "gone";
  }
}
