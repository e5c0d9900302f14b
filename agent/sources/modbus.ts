/**
 * Meters and drives on a Modbus RTU line: their registers are read in turn, every so often. One that
 * does not answer is counted and asked again the next time; the others are read all the same.
 *
 * The sensor is `<source>/<unit>` unless a register names another; what is read of a sensor in one
 * round is one record.
 */
import type { SerialPort } from "serialport";
import type { ModbusSourceConfig } from "../../config/source-config.ts";
import { pause } from "../../runtime/backoff.ts";
import { HeadwaterError } from "../../runtime/errors.ts";
import { Assembly } from "./assembly.ts";
import {
  decodeAnswer,
  encodeRequest,
  type ModbusAnswer,
  type ModbusRequest,
  planRequests,
  valueIn,
} from "./decode/modbus-rtu.ts";
import { ModbusPlan } from "./serial/modbus-plan.ts";
import { openSerialPort, REOPEN_WITHIN_MS, SerialPortError } from "./serial/serial-port.ts";
import type { SensorReading, Source, SourceParts, SourceReport } from "./source.ts";
import type { Life } from "./supervisor.ts";

export interface ModbusSourceOptions extends SourceParts {
  readonly config: ModbusSourceConfig;
}

/** No device of the line answers. */
export class ModbusSilentError extends HeadwaterError {
  constructor(path: string, reason: string) {
    super("MODBUS_SILENT", {
      retryable: true,
      message: `${path}: no device answers: ${reason}`,
      hint: "check the wires A and B, the units' addresses, baudRate and parity",
    });
  }
}

/** Serial Line §2.5.1.1: 3.5 characters of silence between frames, and never less than 1.75 ms. */
const MIN_SILENCE_MS = 2;
const SILENCE_CHARACTERS = 3.5;
const BITS_PER_CHARACTER = 11;
type Settled = Exclude<ModbusAnswer, { readonly incomplete: true }>;

/** Rounds without any answer after which the port is opened anew. */
const MAX_SILENT_ROUNDS = 3;

export class ModbusSource implements Source {
  readonly #options: ModbusSourceOptions;
  readonly #assembly: Assembly;
  readonly #plans: readonly ModbusPlan[];

  constructor(options: ModbusSourceOptions) {
    this.#options = options;
    const { config } = options;
    this.#plans = planRequests(config.registers).map((request) => new ModbusPlan(request));
    this.#assembly = new Assembly(options, (life) => this.#live(life), REOPEN_WITHIN_MS);
  }

  get name(): string {
    return this.#options.config.name;
  }

  async start(): Promise<void> {
    void this.#assembly.start();
  }

  async #live(life: Life): Promise<void> {
    const { path, baudRate, parity, everySeconds } = this.#options.config;
    const { clock } = this.#options;
    const port = await openSerialPort(path, baudRate, parity);
    const lost = new AbortController();
    let reason: Error | undefined;
    port.once("close", (error?: Error) => {
      reason ??= error ?? undefined;
      lost.abort();
    });
    port.on("error", (error) => {
      reason ??= error;
      lost.abort();
    });
    const signal = AbortSignal.any([life.signal, lost.signal]);
    try {
      life.running();
      for (let silentRounds = 0; !signal.aborted; ) {
        const startedMs = clock.monotonicMs();
        const problem = await this.#round(port, life, signal);
        silentRounds = problem === undefined ? 0 : silentRounds + 1;
        if (silentRounds >= MAX_SILENT_ROUNDS) throw new ModbusSilentError(path, problem ?? "");
        await pause(Math.max(0, everySeconds * 1_000 - (clock.monotonicMs() - startedMs)), signal);
      }
      if (!life.signal.aborted) throw new SerialPortError(path, reason ?? "it was closed");
    } finally {
      if (port.isOpen) await new Promise<void>((resolve) => port.close(() => resolve()));
    }
  }

  /** Asks for everything once and stores what came. @returns why nothing did */
  async #round(port: SerialPort, life: Life, signal: AbortSignal): Promise<string | undefined> {
    let problem: string | undefined;
    const sensors = new Map<string, [string, unknown][]>();
    const left = this.#plans.flatMap((plan) => plan.beginRound().map((request) => ({ plan, request })));
    for (let next = left.shift(); next !== undefined; next = left.shift()) {
      const { plan, request } = next;
      if (signal.aborted) break;
      const answer = await this.#ask(port, request, signal);
      if (!("data" in answer)) {
        if (signal.aborted) break;
        if ("problem" in answer) plan.failed();
        const instead = "refused" in answer ? plan.refused(request) : undefined;
        if (instead !== undefined) {
          left.unshift(...instead.map((one) => ({ plan, request: one })));
          continue;
        }
        const why = "refused" in answer ? answer.refused : answer.problem;
        const reason = `unit ${request.unit}, ${request.table} ${request.address}: ${why}`;
        problem ??= reason;
        this.#assembly.meters.fault(reason);
        continue;
      }
      plan.given(request);
      life.fed();
      for (const value of request.values) {
        const sensor = value.sensor ?? `${this.name}/${value.unit}`;
        const fields = sensors.get(sensor) ?? [];
        fields.push([value.field, valueIn(request, value, answer.data)]);
        sensors.set(sensor, fields);
      }
    }
    const arrivalUs = this.#options.clock.nowUs();
    const readings = [...sensors].map(
      ([sensor, fields]): SensorReading => ({
        sensor,
        timeUs: undefined,
        fields: Object.fromEntries(fields),
      }),
    );
    if (readings.length > 0)
      await this.#assembly.intake.store(
        readings.map((reading) => ({ reading, arrivalUs })),
        life.signal,
      );
    return sensors.size > 0 ? undefined : problem;
  }

  /** The answer's data, or the reason why there is none. */
  async #ask(port: SerialPort, request: ModbusRequest, signal: AbortSignal): Promise<Settled> {
    const { timeoutMs, baudRate } = this.#options.config;
    await pause(
      Math.max(MIN_SILENCE_MS, (SILENCE_CHARACTERS * BITS_PER_CHARACTER * 1_000) / baudRate),
      signal,
    );
    // Whatever is still there belongs to an earlier question.
    while (port.read() !== null) {}
    return new Promise((resolve) => {
      let received = Buffer.alloc(0);
      const settle = (outcome: Settled): void => {
        clearTimeout(late);
        port.off("readable", onReadable);
        signal.removeEventListener("abort", onAbort);
        resolve(outcome);
      };
      const late = setTimeout(() => settle({ problem: `no answer within ${timeoutMs} ms` }), timeoutMs);
      const onAbort = (): void => settle({ problem: "the port was closed" });
      const onReadable = (): void => {
        for (let chunk = port.read() as Buffer | null; chunk !== null; chunk = port.read() as Buffer | null)
          received = Buffer.concat([received, chunk]);
        const answer = decodeAnswer(request, received);
        if ("data" in answer) settle({ data: Buffer.from(answer.data) });
        else if (!("incomplete" in answer)) settle(answer);
      };
      signal.addEventListener("abort", onAbort, { once: true });
      if (signal.aborted) return onAbort();
      port.on("readable", onReadable);
      port.write(encodeRequest(request), (error) => {
        if (error) settle({ problem: error.message });
      });
    });
  }

  status(): SourceReport {
    return this.#assembly.report();
  }

  async close(): Promise<void> {
    await this.#assembly.close();
  }
}
