/**
 * A board on a serial port that writes lines (JSON, CSV, NMEA, text) or COBS frames. A port that is
 * missing or goes away is opened again, for ever. What the board wrote meanwhile is lost, as it keeps
 * nothing: when the port is open again, a record in the stream of gaps says from when to when.
 *
 *   port → lines → readings ─append→ buffer          while an append waits, the port is not read
 *
 * The mark `serial/<name>` is stored in the same write as the records: the last one's time. So the
 * gap begins at the right moment also after a power cut.
 */
import type { SerialPort } from "serialport";
import type { SerialSourceConfig } from "../../config/source-config.ts";
import { describeError } from "../../runtime/errors.ts";
import type { Mark } from "../buffer/record-buffer.ts";
import { Assembly } from "./assembly.ts";
import { cobsDecoder } from "./decode/cobs.ts";
import { lineDecoder } from "./decode/line-decoder.ts";
import type { Arrived } from "./intake.ts";
import { LineQueue, type QueuedLine } from "./line-queue.ts";
import { LineSplitter } from "./line-splitter.ts";
import { gapRecord, gapStartUs } from "./reading-record.ts";
import { openSerialPort, REOPEN_WITHIN_MS, SerialPortError } from "./serial/serial-port.ts";
import type { Decoded, Source, SourceParts, SourceReport } from "./source.ts";
import type { Life } from "./supervisor.ts";

export interface SerialSourceOptions extends SourceParts {
  readonly config: SerialSourceConfig;
}

interface SerialMark {
  readonly sensor: string;
  readonly timeUs: number;
}

/** A COBS frame ends with a zero byte, a line with a line feed. */
const FRAME_END = 0;
const LINE_END = 10;

export class SerialSource implements Source {
  readonly #options: SerialSourceOptions;
  readonly #assembly: Assembly;
  readonly #lines: LineSplitter;
  readonly #decode: (line: Buffer, arrivalUs: number) => Decoded;
  readonly #queue: LineQueue;
  #port: SerialPort | undefined;

  constructor(options: SerialSourceOptions) {
    this.#options = options;
    const { config } = options;
    const end = config.format === "cobs" ? FRAME_END : LINE_END;
    this.#lines = new LineSplitter(() => this.#assembly.meters.rejected("a line of more than 64 KiB"), end);
    this.#decode = decoderOf(config);
    this.#queue = new LineQueue({
      store: (lines) => this.#store(lines),
      onFull: () => this.#port?.pause(),
      onRoom: () => this.#port?.resume(),
    });
    this.#assembly = new Assembly(options, (life) => this.#live(life), REOPEN_WITHIN_MS);
  }

  get name(): string {
    return this.#options.config.name;
  }

  get #markName(): string {
    return `serial/${this.name}`;
  }

  async start(): Promise<void> {
    void this.#assembly.start();
  }

  async #live(life: Life): Promise<void> {
    const { path, baudRate, parity } = this.#options.config;
    const port = await openSerialPort(path, baudRate, parity);
    this.#lines.reset();
    const openedUs = this.#options.clock.nowUs();
    let end = (): void => {};
    const closed = new Promise<Error | undefined>((resolve) => {
      port.once("close", (error?: Error) => resolve(error ?? undefined));
      port.on("error", (error) => resolve(error));
      end = () => resolve(undefined);
      life.signal.addEventListener("abort", end, { once: true });
      if (life.signal.aborted) end();
    });
    let error: Error | undefined;
    try {
      life.running();
      // What was read before the port went away belongs before the gap, and what comes now behind
      // it: the mark must still be that of the last record before.
      await this.#queue.stored();
      await this.#reportGap(openedUs, life.signal);
      // Not known before: resumed without a listener, a port throws away what it reads.
      this.#port = port;
      port.on("data", (chunk: Buffer) => {
        life.fed();
        this.#queue.push(this.#lines.push(chunk), this.#options.clock.nowUs());
      });
      error = await closed;
    } finally {
      life.signal.removeEventListener("abort", end);
      this.#port = undefined;
      // Left open, it could not be opened again.
      if (port.isOpen) await new Promise<void>((resolve) => port.close(() => resolve()));
    }
    if (!life.signal.aborted) throw new SerialPortError(path, error ?? "it was closed");
  }

  /** The last stored record's time is in the mark, whoever stored it: this start or an earlier one. */
  async #reportGap(openedUs: number, signal: AbortSignal): Promise<void> {
    const mark = await this.#options.buffer.mark(this.#markName);
    if (mark === undefined) return;
    const { sensor, timeUs } = JSON.parse(Buffer.from(mark).toString()) as SerialMark;
    const gap = gapRecord(this.#options.device, {
      sensor,
      stream: this.#options.config.stream,
      reason: "the serial port was not open",
      fromUs: gapStartUs(timeUs, openedUs),
      toUs: openedUs,
    });
    await this.#assembly.intake.append([gap], signal);
  }

  async #store(lines: readonly QueuedLine[]): Promise<void> {
    try {
      const arrived = lines.flatMap(({ line, arrivalUs }) => this.#arrived(line, arrivalUs));
      if (arrived.length > 0) await this.#assembly.intake.store(arrived, this.#assembly.signal);
    } catch (error) {
      // The buffer failed or closed; the agent ends, and the next start reports the gap.
      this.#assembly.meters.fault(describeError(error));
    }
  }

  #arrived(line: Buffer, arrivalUs: number): Arrived[] {
    const { readings, reason } = this.#decode(line, arrivalUs);
    if (reason === undefined)
      return readings.map((reading) => ({ reading, arrivalUs, mark: this.#mark(reading.sensor, arrivalUs) }));
    if (this.#options.config.undecodable === "raw") {
      const reading = this.#assembly.intake.raw(this.name, reason, line);
      return [{ reading, arrivalUs, mark: this.#mark(reading.sensor, arrivalUs) }];
    }
    this.#assembly.meters.rejected(reason);
    return [];
  }

  /** It holds the arrival: a board's own clock says nothing of when the port was read. */
  #mark(sensor: string, timeUs: number): Mark {
    const mark: SerialMark = { sensor, timeUs };
    return { source: this.#markName, value: Buffer.from(JSON.stringify(mark)) };
  }

  status(): SourceReport {
    const report = this.#assembly.report();
    return this.#queue.isFull ? { ...report, state: "stalled" } : report;
  }

  async close(): Promise<void> {
    await this.#assembly.close(this.#queue.stored());
  }
}

function decoderOf({
  format,
  name,
  csv,
  cobs,
}: SerialSourceConfig): (line: Buffer, arrivalUs: number) => Decoded {
  if (format === "cobs") return cobsDecoder(name, cobs);
  const decoder = lineDecoder(format, name, csv);
  return (line, arrivalUs) => decoder.decode(line, arrivalUs);
}
