/**
 * A microcontroller on a serial port: one JSON line a beat, with a counter and without a time, as it
 * has no clock. It talks whether somebody listens or not.
 */
import type { Clock } from "../runtime/clock.ts";
import type { Log } from "../runtime/log.ts";
import { AnomalyPlan } from "./anomalies.ts";
import type { AnomalyRecord } from "./anomaly-record.ts";
import type { MessageNumbers } from "./message-numbers.ts";
import { Pace } from "./pace.ts";
import { PtyLine } from "./pty-line.ts";
import { below } from "./random.ts";
import { batteryAt, HUMIDITY, Signal, TEMPERATURE } from "./signals.ts";
import type { TruthFile } from "./truth-file.ts";

const GROUP = "board";
const MAX_GARBAGE_BYTES = 65_536;

export interface BoardOptions {
  readonly path: string;
  readonly hz: number;
  readonly sensor: string;
  readonly seed: number;
  readonly anomalySeconds: number;
  readonly truth: TruthFile;
  readonly anomalies: AnomalyRecord;
  readonly numbers: MessageNumbers;
  readonly clock: Clock;
  readonly log: Log;
}

export interface BoardStatus {
  readonly plugged: boolean;
  /** Somebody has the port open. */
  readonly open: boolean;
  /** The counter of the next line. */
  readonly counter: number;
  readonly lines: number;
  /** Lines that nobody was there to read. */
  readonly dropped: number;
  readonly waitingBytes: number;
}

export class Board {
  readonly #options: BoardOptions;
  readonly #line: PtyLine;
  readonly #plan: AnomalyPlan;
  readonly #temperature: Signal;
  readonly #humidity: Signal;
  #counter = 0;
  #lines = 0;
  #dropped = 0;
  #garbageSent = 0;
  #timer: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(options: BoardOptions) {
    this.#options = options;
    const { seed, sensor, hz } = options;
    this.#line = new PtyLine({ path: options.path, log: options.log });
    this.#plan = new AnomalyPlan({
      seed,
      group: GROUP,
      members: [sensor],
      everySeconds: options.anomalySeconds,
      hz,
    });
    this.#temperature = new Signal(seed, sensor, "temperature", TEMPERATURE, hz);
    this.#humidity = new Signal(seed, sensor, "humidity", HUMIDITY, hz);
  }

  start(): void {
    const { hz, clock, numbers } = this.#options;
    this.#counter = numbers.first(GROUP);
    this.#line.plug();
    const pace = new Pace(hz, clock);
    this.#timer = setInterval(() => {
      for (let due = pace.due(); due > 0; due--) this.#beat();
    }, Pace.intervalMs(hz));
  }

  plug(): void {
    this.#line.plug();
  }

  unplug(): Promise<void> {
    return this.#line.unplug();
  }

  /** Noise on the wire, between two lines. @returns false when nobody was there to hear it. */
  garbage(byteCount: number): boolean {
    const { seed } = this.#options;
    const noise = Buffer.from(
      Array.from({ length: Math.min(byteCount, MAX_GARBAGE_BYTES) }, (_, i) =>
        below(256, seed, "garbage", this.#garbageSent + i),
      ),
    );
    this.#garbageSent += noise.length;
    return this.#line.write(Buffer.concat([noise, Buffer.from("\n")]));
  }

  /** The board falls silent; what it wrote stays on its way. */
  stopSending(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  status(): BoardStatus {
    return {
      plugged: this.#line.isPlugged,
      open: this.#line.isOpen,
      counter: this.#counter,
      lines: this.#lines,
      dropped: this.#dropped,
      waitingBytes: this.#line.waitingBytes,
    };
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.stopSending();
    await this.#line.close();
    this.#options.numbers.release(GROUP, this.#counter);
  }

  #beat(): void {
    const { sensor, seed, hz, clock, numbers, truth, anomalies } = this.#options;
    const counter = this.#counter++;
    numbers.use(GROUP, counter);
    const anomaly = this.#plan.at(sensor, counter);
    const atUs = clock.nowUs();
    anomalies.note(sensor, anomaly, atUs);
    // A board whose probe drops out still talks: the field is missing, the counter goes on.
    const reading = {
      counter,
      temperature: this.#temperature.at(counter, anomaly),
      humidity: this.#humidity.at(counter),
      battery: batteryAt(seed, sensor, counter, hz),
    };
    if (!this.#line.write(`${JSON.stringify({ sensor, ...reading })}\n`)) {
      this.#dropped++;
      return;
    }
    this.#lines++;
    const { counter: _, ...values } = reading;
    truth.append({ counter, atUs, ...values });
  }
}
