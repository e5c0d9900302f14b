/**
 * A board on a serial port that writes JSON lines. A port that is missing or goes away is opened
 * again, for ever. What the board wrote meanwhile is lost, as it keeps nothing: when the port is
 * open again, a record in the stream of gaps says from when to when.
 *
 *   port → lines → readings ─append→ buffer          while an append waits, the port is not read
 *
 * The mark `serial/<name>` is stored in the same write as the records: the last one's time. So the
 * gap begins at the right moment also after a power cut.
 */
import type { SerialPort } from "serialport";
import type { SerialSourceConfig } from "../../config/agent-config.ts";
import type { SourceStatus } from "../../protocol/topics.ts";
import { Backoff, pause } from "../../runtime/backoff.ts";
import type { Clock } from "../../runtime/clock.ts";
import { describeError } from "../../runtime/errors.ts";
import type { Log } from "../../runtime/log.ts";
import type { Metrics } from "../../runtime/metrics.ts";
import { BufferFullError, type BufferRecord, type RecordBuffer } from "../buffer/record-buffer.ts";
import { decodeJsonLine } from "./decode/json-line.ts";
import { LineSplitter } from "./line-splitter.ts";
import { gapRecord, readingRecord } from "./reading-record.ts";
import { serialPort } from "./serial-port.ts";
import type { Source } from "./source.ts";
import { type SourceMeters, sourceMeters } from "./source-meters.ts";

/** When so much is read and not yet stored, the port is not read on. */
const MAX_UNSTORED_BYTES = 65_536;
/** Stored at once, at most: also a small buffer has room for so much some time. */
const APPEND_BYTES = 8_192;
/** A full buffer that refuses is asked again after so long. */
const REFUSED_WAIT_MS = 250;
const CLOSE_WAIT_MS = 2_000;

export interface SerialSourceOptions {
  readonly config: SerialSourceConfig;
  readonly device: string;
  readonly buffer: RecordBuffer;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
  /** Between two openings; 100 ms to 5 s unless given. */
  readonly backoff?: Backoff;
}

interface SerialMark {
  readonly sensor: string;
  readonly timeUs: number;
}

export class SerialSource implements Source {
  readonly #options: SerialSourceOptions;
  readonly #backoff: Backoff;
  readonly #meters: SourceMeters;
  readonly #stop = new AbortController();
  readonly #lines: LineSplitter;
  #state: SourceStatus["state"] = "stopped";
  #unstored: { line: Buffer; arrivalUs: number }[] = [];
  #unstoredBytes = 0;
  #storing: Promise<void> | undefined;
  #port: SerialPort | undefined;
  #loop: Promise<void> | undefined;

  constructor(options: SerialSourceOptions) {
    this.#options = options;
    this.#backoff = options.backoff ?? new Backoff(100, 5_000);
    this.#meters = sourceMeters(options.metrics, options.config.name, "serial");
    this.#lines = new LineSplitter(() => this.#meters.rejected("a line of more than 64 KiB"));
  }

  get name(): string {
    return this.#options.config.name;
  }

  get #markName(): string {
    return `serial/${this.name}`;
  }

  async start(): Promise<void> {
    this.#loop ??= this.#run();
  }

  async #run(): Promise<void> {
    const { log, config } = this.#options;
    let lastReason = "";
    while (!this.#stop.signal.aborted) {
      this.#state = "waiting";
      try {
        const port = await this.#open();
        log.info({ source: this.name, path: config.path }, "serial port open");
        lastReason = "";
        this.#state = "running";
        await this.#readUntilClosed(port);
      } catch (error) {
        const reason = describeError(error);
        this.#meters.fault(reason);
        if (reason !== lastReason)
          log.warn({ source: this.name, reason }, "serial port not open, trying again");
        lastReason = reason;
      }
      if (!this.#stop.signal.aborted) await pause(this.#backoff.nextMs(), this.#stop.signal);
    }
    this.#state = "stopped";
  }

  #open(): Promise<SerialPort> {
    const { path, baudRate } = this.#options.config;
    const port = serialPort(path, baudRate);
    return new Promise((resolve, reject) => {
      port.open((error) => (error ? reject(error) : resolve(port)));
    });
  }

  async #readUntilClosed(port: SerialPort): Promise<void> {
    this.#lines.reset();
    const openedUs = this.#options.clock.nowUs();
    const closed = new Promise<Error | undefined>((resolve) => {
      port.once("close", (error?: Error) => resolve(error ?? undefined));
      port.on("error", (error) => resolve(error));
      this.#stop.signal.addEventListener("abort", () => resolve(undefined), { once: true });
    });
    let error: Error | undefined;
    try {
      // What was read before the port went away belongs before the gap, and what comes now behind
      // it: the mark must still be that of the last record before.
      await this.#storing;
      await this.#reportGap(openedUs);
      // Not known before: resumed without a listener, a port throws away what it reads.
      this.#port = port;
      port.on("data", (chunk: Buffer) => this.#take(port, chunk));
      error = await closed;
    } finally {
      this.#port = undefined;
      // Left open, it could not be opened again.
      if (port.isOpen) await new Promise<void>((resolve) => port.close(() => resolve()));
    }
    if (error !== undefined) throw error;
    if (!this.#stop.signal.aborted) throw new Error("the port was closed");
  }

  /** The last stored record's time is in the mark, whoever stored it: this start or an earlier one. */
  async #reportGap(openedUs: number): Promise<void> {
    const mark = await this.#options.buffer.mark(this.#markName);
    if (mark === undefined) return;
    const { sensor, timeUs } = JSON.parse(Buffer.from(mark).toString()) as SerialMark;
    const gap = gapRecord(this.#options.device, {
      sensor,
      stream: this.#options.config.stream,
      reason: "the serial port was not open",
      fromUs: Math.min(timeUs, openedUs),
      toUs: openedUs,
    });
    await this.#append([gap]);
  }

  #take(port: SerialPort, chunk: Buffer): void {
    this.#state = "running";
    this.#backoff.reset();
    const arrivalUs = this.#options.clock.nowUs();
    for (const line of this.#lines.push(chunk)) {
      this.#unstored.push({ line, arrivalUs });
      this.#unstoredBytes += line.length;
    }
    if (this.#unstoredBytes > MAX_UNSTORED_BYTES) port.pause();
    this.#storing ??= this.#store().finally(() => {
      this.#storing = undefined;
    });
  }

  async #store(): Promise<void> {
    while (this.#unstored.length > 0) {
      const lines = this.#nextLines();
      const records = lines.flatMap(({ line, arrivalUs }) => this.#record(line, arrivalUs));
      if (records.length > 0) {
        try {
          await this.#append(records);
          this.#meters.stored(records.length);
        } catch (error) {
          // The buffer failed or closed; the agent ends, and the next start reports the gap.
          this.#meters.fault(describeError(error));
        }
      }
      this.#unstoredBytes = this.#unstored.reduce((sum, { line }) => sum + line.length, 0);
      if (this.#unstoredBytes <= MAX_UNSTORED_BYTES) this.#port?.resume();
    }
  }

  #nextLines(): { line: Buffer; arrivalUs: number }[] {
    let bytes = 0;
    const beyond = this.#unstored.findIndex(({ line }, i) => {
      bytes += line.length;
      return i > 0 && bytes > APPEND_BYTES;
    });
    return this.#unstored.splice(0, beyond < 0 ? this.#unstored.length : beyond);
  }

  #record(line: Buffer, arrivalUs: number): BufferRecord[] {
    const { device, config } = this.#options;
    try {
      const reading = decodeJsonLine(line.toString(), this.name, arrivalUs);
      const record = readingRecord(device, config.stream, reading, arrivalUs);
      // The mark holds the arrival: a board's own clock says nothing of when the port was read.
      const mark: SerialMark = { sensor: reading.sensor, timeUs: arrivalUs };
      return [{ ...record, mark: { source: this.#markName, value: Buffer.from(JSON.stringify(mark)) } }];
    } catch (error) {
      this.#meters.rejected(`no reading: ${error instanceof Error ? error.message.slice(0, 120) : error}`);
      return [];
    }
  }

  /** A buffer that refuses is asked again, while the port's own buffer fills: that is back-pressure. */
  async #append(records: readonly BufferRecord[]): Promise<void> {
    while (!this.#stop.signal.aborted) {
      try {
        await this.#options.buffer.append(records);
        return;
      } catch (error) {
        if (!(error instanceof BufferFullError)) throw error;
        this.#state = "stalled";
        this.#meters.fault(error.message);
        await pause(REFUSED_WAIT_MS, this.#stop.signal);
      }
    }
    throw new Error("closed while the buffer was full");
  }

  status(): SourceStatus {
    const held = this.#unstoredBytes > MAX_UNSTORED_BYTES;
    return {
      name: this.name,
      type: "serial",
      state: held ? "stalled" : this.#state,
      ...this.#meters.status(),
    };
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await Promise.race([Promise.allSettled([this.#loop, this.#storing]), pause(CLOSE_WAIT_MS)]);
  }
}
