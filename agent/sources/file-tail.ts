/**
 * Reads a file that another program writes, as `tail -F` does, and knows after any break where it
 * was: the place in the file is stored in the same synced write as the records up to it.
 *
 *   file → records (lines, or several lines each) → readings ─append with place→ buffer
 *
 * - Renamed (logrotate's `create`): what was written last is read from the old file until that was
 *   quiet for `rotateWaitMs`; then come the files rotated since, oldest first, and the new one.
 * - Copied and truncated (`copytruncate`): noticed by the size, or by the bytes before the place when
 *   the file has grown again; what was missed is read from the copy.
 * - A file that is gone when the agent comes back is reported as a gap.
 */
import { type FileHandle, open } from "node:fs/promises";
import type { FileSourceConfig } from "../../config/source-config.ts";
import { pause } from "../../runtime/backoff.ts";
import { HeadwaterError } from "../../runtime/errors.ts";
import { type LineDecoder, lineDecoder } from "./decode/line-decoder.ts";
import { type Arrived, Intake } from "./intake.ts";
import { gapRecord, gapStartUs } from "./reading-record.ts";
import { openShape } from "./shape/open-shape.ts";
import type { Shape } from "./shape/shape.ts";
import type { Source, SourceParts, SourceReport } from "./source.ts";
import { type SourceMeters, sourceMeters } from "./source-meters.ts";
import { type Life, Supervisor } from "./supervisor.ts";
import { type CutRecord, cutRecords, type WindowEnd } from "./tail/cut-records.ts";
import {
  decodePlace,
  encodePlace,
  type FilePlace,
  type FoundFile,
  fileOfPlace,
  findFile,
  holdsPlace,
  rotatedFiles,
  samplesAt,
} from "./tail/file-place.ts";

/** Read and stored at once. A record of the largest size fits several times. */
const WINDOW_BYTES = 524_288;
const SAMPLE_BYTES = 64;

export interface FileTailOptions extends SourceParts {
  /** `path` is absolute. */
  readonly config: FileSourceConfig;
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
  readonly handle: FileHandle;
  readonly id: string;
  /** Everything before is stored. */
  offset: number;
  head: string;
  before: string;
  /** As last looked at, to see whether it changed. */
  modifiedNs: bigint;
  /** Since when nothing came. */
  quietSinceMs: number;
}

export class FileTail implements Source {
  readonly #options: FileTailOptions;
  readonly #meters: SourceMeters;
  readonly #supervisor: Supervisor;
  readonly #first: RegExp | undefined;
  readonly #window = Buffer.allocUnsafe(WINDOW_BYTES);
  #decoder: LineDecoder;
  #intake: Intake | undefined;
  #shape: Shape | undefined;

  constructor(options: FileTailOptions) {
    this.#options = options;
    const { config, metrics, clock, log, backoff } = options;
    this.#meters = sourceMeters(metrics, config.name, "file");
    this.#first = config.multiline && new RegExp(config.multiline.start, "u");
    this.#decoder = this.#makeDecoder();
    this.#supervisor = new Supervisor({
      name: config.name,
      type: "file",
      clock,
      log,
      meters: this.#meters,
      backoff,
      live: (life) => this.#live(life),
    });
  }

  get name(): string {
    return this.#options.config.name;
  }

  get #markName(): string {
    return `file/${this.name}`;
  }

  /** @throws FilterInvalidError */
  async start(): Promise<void> {
    const { config, device, buffer, clock } = this.#options;
    this.#shape = await openShape(config.name, config.shape, this.#meters, clock);
    this.#intake = new Intake({
      device,
      stream: config.stream,
      shape: this.#shape,
      buffer,
      meters: this.#meters,
      onHeld: (held) => this.#supervisor.held(held),
    });
    void this.#supervisor.start();
  }

  #makeDecoder(): LineDecoder {
    const { format, name, csv } = this.#options.config;
    return lineDecoder(format, name, csv);
  }

  async #live(life: Life): Promise<void> {
    const { path, pollMs } = this.#options.config;
    let file: OpenFile | undefined;
    try {
      file = await this.#resume(life);
      while (!life.signal.aborted) {
        if (file === undefined) {
          life.idle();
          const found = await findFile(path);
          if (found !== undefined) file = await this.#open(found, 0);
          else await pause(pollMs, life.signal);
          continue;
        }
        life.running();
        if (await this.#readOn(file, life)) continue;
        const next = await this.#next(file, life);
        if (next === undefined) await pause(pollMs, life.signal);
        else {
          await file.handle.close();
          file = next;
        }
      }
    } catch (error) {
      throw (error as NodeJS.ErrnoException).syscall === undefined
        ? error
        : new FileUnreadableError(path, error);
    } finally {
      await file?.handle.close().catch(() => {});
    }
  }

  /** Where an earlier life stopped. Undefined when there is no file yet. */
  async #resume(life: Life): Promise<OpenFile | undefined> {
    const { path, from } = this.#options.config;
    const mark = await this.#options.buffer.mark(this.#markName);
    const place = decodePlace(mark, path);
    if (place === undefined) {
      const found = await findFile(path);
      if (found === undefined || from === "start") return found && this.#open(found, 0);
      return this.#openAtEnd(found);
    }
    const files = await rotatedFiles(path);
    const held = await fileOfPlace(files, place);
    if (held !== undefined) return this.#open(held, place.offset);
    if (place.offset > 0) await this.#reportGap(place, life.signal);
    const later = files.find(({ modifiedNs }) => modifiedNs > BigInt(place.timeUs) * 1_000n) ?? files.at(-1);
    return later && this.#open(later, 0);
  }

  async #openAtEnd(found: FoundFile): Promise<OpenFile> {
    const handle = await open(found.path, "r");
    // A line that is half written is read whole: its beginning is searched backwards.
    const length = Math.min(WINDOW_BYTES, found.size);
    const { bytesRead } = await handle.read(this.#window, 0, length, found.size - length);
    await handle.close();
    const tail = this.#window.subarray(0, bytesRead);
    const file = await this.#open(found, found.size - length + tail.lastIndexOf(10) + 1);
    // Decided once: without the mark a restart before the first record would skip what came meanwhile.
    await this.#notePlace(file);
    return file;
  }

  async #open({ path, id, modifiedNs }: FoundFile, offset: number): Promise<OpenFile> {
    const handle = await open(path, "r");
    try {
      if (offset > 0) {
        const { bytesRead } = await handle.read(this.#window, 0, WINDOW_BYTES, 0);
        const [first] = cutRecords(this.#window.subarray(0, bytesRead), "open");
        this.#decoder = this.#makeDecoder();
        if (first !== undefined) this.#decoder.prime(first.bytes);
      }
      const quietSinceMs = this.#options.clock.monotonicMs();
      return { handle, id, offset, ...(await samplesAt(handle, offset)), modifiedNs, quietSinceMs };
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  async #reportGap(place: FilePlace, signal: AbortSignal): Promise<void> {
    const { device, config, clock } = this.#options;
    const nowUs = clock.nowUs();
    const gap = gapRecord(device, {
      sensor: this.name,
      stream: config.stream,
      reason: `${config.path} was replaced while nobody read it`,
      fromUs: gapStartUs(place.timeUs, nowUs),
      toUs: nowUs,
    });
    this.#meters.fault("the file was replaced while nobody read it");
    await this.#intake!.append([gap], signal);
  }

  /** Reads and stores one window. False when there was nothing new. */
  async #readOn(file: OpenFile, life: Life): Promise<boolean> {
    const { clock, config } = this.#options;
    const stats = await file.handle.stat({ bigint: true });
    const size = Number(stats.size);
    if (size !== file.offset || stats.mtimeNs !== file.modifiedNs) {
      if (size < file.offset || !(await holdsPlace(file.handle, file))) {
        await this.#truncated(file, life);
        return true;
      }
      if (stats.mtimeNs !== file.modifiedNs) file.quietSinceMs = clock.monotonicMs();
      file.modifiedNs = stats.mtimeNs;
    }
    if (size === file.offset) return false;
    const quietMs = clock.monotonicMs() - file.quietSinceMs;
    const quiet = config.multiline !== undefined && quietMs >= config.multiline.flushAfterMs;
    return this.#storeWindow(file, quiet ? "quiet" : "open", life);
  }

  /** False when no record was complete. */
  async #storeWindow(file: OpenFile, ends: WindowEnd, life: Life): Promise<boolean> {
    const { bytesRead } = await file.handle.read(this.#window, 0, WINDOW_BYTES, file.offset);
    const window = this.#window.subarray(0, bytesRead);
    const full = bytesRead === WINDOW_BYTES;
    let records = cutRecords(window, full ? "open" : ends, this.#first);
    // A whole window without the start of a next record cannot happen: records are cut at 64 KiB.
    if (records.length === 0 && full) records = cutRecords(window, "quiet", this.#first);
    const last = records.at(-1);
    if (last === undefined) return false;
    life.fed();
    if (file.head.length === 0 || file.offset < SAMPLE_BYTES) {
      file.head = window.subarray(0, Math.max(0, Math.min(SAMPLE_BYTES, last.end))).toString("base64");
      if (file.offset > 0) file.head = (await samplesAt(file.handle, file.offset + last.end)).head;
    }
    const arrivalUs = this.#options.clock.nowUs();
    const arrived = records.flatMap((record) => this.#arrived(file, window, record, arrivalUs));
    await this.#intake!.store(arrived, life.signal);
    file.before = beforeOf(window, last.end);
    file.offset += last.end;
    return true;
  }

  #arrived(file: OpenFile, window: Buffer, { bytes, end }: CutRecord, arrivalUs: number): Arrived[] {
    if (bytes.length === 0) return [];
    const place = { ...file, offset: file.offset + end, before: beforeOf(window, end) };
    const mark = { source: this.#markName, value: encodePlace(this.#placeOf(place, arrivalUs)) };
    const { readings, reason } = this.#decoder.decode(bytes, arrivalUs);
    if (reason === undefined) return readings.map((reading) => ({ reading, arrivalUs, mark }));
    if (this.#options.config.undecodable !== "drop")
      return [{ reading: this.#intake!.raw(this.name, reason, bytes), arrivalUs, mark }];
    this.#meters.rejected(reason);
    return [];
  }

  #placeOf(
    { id, offset, head, before }: Pick<OpenFile, "id" | "offset" | "head" | "before">,
    timeUs = this.#options.clock.nowUs(),
  ): FilePlace {
    return { path: this.#options.config.path, id, offset, head, before, timeUs };
  }

  /** Without records: where another file is begun, so that a restart does not look for the one before. */
  async #notePlace(file: OpenFile): Promise<void> {
    await this.#options.buffer.setMarks([
      { source: this.#markName, value: encodePlace(this.#placeOf(file)) },
    ]);
  }

  /** The same file, begun anew. What was written before and not read may be in a copy of it. */
  async #truncated(file: OpenFile, life: Life): Promise<void> {
    const { path } = this.#options.config;
    const place = this.#placeOf(file);
    const others = (await rotatedFiles(path)).filter(({ id }) => id !== file.id);
    const copy = await fileOfPlace(others, place);
    if (copy !== undefined) {
      const opened = await this.#open(copy, place.offset);
      try {
        while (await this.#storeWindow(opened, "final", life)) {}
      } finally {
        await opened.handle.close();
      }
    }
    this.#options.log.info({ source: this.name, path, copy: copy?.path }, "the file was truncated");
    file.offset = 0;
    file.head = "";
    file.before = "";
    this.#decoder = this.#makeDecoder();
    await this.#notePlace(file);
  }

  /** The file to go on with, once this one was renamed and has been quiet for long enough. */
  async #next(file: OpenFile, life: Life): Promise<OpenFile | undefined> {
    const { path, rotateWaitMs } = this.#options.config;
    const current = await findFile(path);
    if (current === undefined || current.id === file.id) return undefined;
    if (this.#options.clock.monotonicMs() - file.quietSinceMs < rotateWaitMs) return undefined;
    // Its last line may have no end.
    while (await this.#storeWindow(file, "final", life)) {}
    const files = await rotatedFiles(path);
    const at = files.findIndex(({ id }) => id === file.id);
    const next = at >= 0 ? files[at + 1] : files.find(({ modifiedNs }) => modifiedNs > file.modifiedNs);
    const opened = await this.#open(next ?? current, 0);
    await this.#notePlace(opened);
    return opened;
  }

  status(): SourceReport {
    return this.#supervisor.report();
  }

  async close(): Promise<void> {
    await this.#supervisor.close();
    await this.#shape?.close();
  }
}

function beforeOf(window: Buffer, end: number): string {
  return window.subarray(Math.max(0, end - SAMPLE_BYTES), end).toString("base64");
}
