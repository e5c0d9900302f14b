/**
 * An expression of the config, JavaScript or jq, that decides what is stored of a reading. It runs in
 * a worker with little memory; one that takes too long is killed with its worker, and only the reading
 * on which that happened pays.
 *
 *   readings ─JSON→ worker ─JSON→ readings          one batch at a time, in order
 *
 * A reading on which it fails is kept as it was, with the reason in `filter_error`, or dropped, as the
 * config says; both are counted. After several kills in a row the filter rests for a while, and
 * meanwhile every reading counts as failed: a hanging filter must not stop the source.
 */
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { Worker } from "node:worker_threads";
import type { FilterConfig } from "../../../config/source-config.ts";
import type { Clock } from "../../../runtime/clock.ts";
import { HeadwaterError } from "../../../runtime/errors.ts";
import { assertShallow, type Fields, readingOf } from "../decode/json-object.ts";
import { timeText } from "../decode/sensor-time.ts";
import type { Arrival, SensorReading } from "../source.ts";
import type { SourceMeters } from "../source-meters.ts";
import { FILTER_PROGRAM } from "./filter-program.ts";

/** What one reading may become. */
const MAX_RESULTS = 100;
const BATCH_READINGS = 500;
/** A worker that is not ready after so long will not be. */
const READY_MS = 10_000;
/** Kills in a row after which it rests, and for how long. */
const MAX_KILLS = 3;
const REST_MS = 30_000;

/** The expression cannot be run at all. The source does not start. */
export class FilterInvalidError extends HeadwaterError {
  constructor(source: string, reason: string) {
    super("FILTER_INVALID", {
      message: `${source}: the filter cannot be used: ${reason}`,
      hint: "correct shape.filter in agent.yaml; docs/guide/sources.md has examples",
    });
  }
}

type Answer = { readonly results: string } | { readonly failed: string };

interface Running {
  readonly worker: Worker;
  readonly progress: Int32Array;
}

export class Filter {
  readonly #source: string;
  readonly #config: FilterConfig;
  readonly #meters: SourceMeters;
  readonly #clock: Clock;
  #running: Running | undefined;
  #last: Promise<unknown> = Promise.resolve();
  #kills = 0;
  #restUntilMs = 0;
  #closed = false;

  constructor(source: string, config: FilterConfig, meters: SourceMeters, clock: Clock) {
    this.#source = source;
    this.#config = config;
    this.#meters = meters;
    this.#clock = clock;
  }

  /** @throws FilterInvalidError */
  async start(): Promise<void> {
    this.#running = await this.#startWorker();
  }

  /** For each reading what is stored of it, in order. Never rejects. */
  apply(arrived: readonly Arrival[]): Promise<SensorReading[][]> {
    const answered = this.#last.then(() => this.#apply(arrived));
    this.#last = answered;
    return answered;
  }

  async #apply(arrived: readonly Arrival[]): Promise<SensorReading[][]> {
    const made: SensorReading[][] = [];
    for (let at = 0; at < arrived.length; at += BATCH_READINGS) {
      const batch = arrived.slice(at, at + BATCH_READINGS);
      const answers = await this.#ask(batch.map(({ reading }) => textOf(reading)));
      batch.forEach((one, i) => {
        made.push(this.#outcome(one, answers[i]!));
      });
    }
    return made;
  }

  #outcome({ reading, arrivalUs }: Arrival, answer: Answer): SensorReading[] {
    if ("failed" in answer) return this.#failed(reading, answer.failed);
    const results = JSON.parse(answer.results) as (boolean | null | Fields)[];
    try {
      assertShallow(results);
    } catch (error) {
      return this.#failed(reading, (error as SyntaxError).message);
    }
    return results.flatMap((result) => {
      if (result === null || result === false) return [];
      return result === true ? [reading] : [readingFrom(result, reading, arrivalUs)];
    });
  }

  #failed(reading: SensorReading, reason: string): SensorReading[] {
    this.#meters.unfiltered(reason);
    if (this.#config.onError === "drop") return [];
    return [{ ...reading, fields: { ...reading.fields, filter_error: reason } }];
  }

  /** Never rejects: where the worker dies, the reading that it was at is answered as failed. */
  async #ask(texts: readonly string[]): Promise<Answer[]> {
    const answers: Answer[] = [];
    let left = texts;
    while (left.length > 0) {
      const outcome = await this.#askOnce(left);
      if (outcome.answers !== undefined) {
        this.#kills = 0;
        return [...answers, ...outcome.answers];
      }
      // Those before it were answered in the worker that is gone: they are asked again, it is not.
      const before = outcome.at === 0 ? [] : await this.#ask(left.slice(0, outcome.at));
      answers.push(...before, { failed: outcome.reason });
      left = left.slice(outcome.at + 1);
    }
    return answers;
  }

  async #askOnce(
    texts: readonly string[],
  ): Promise<{ answers: Answer[] } | { answers?: never; at: number; reason: string }> {
    if (this.#closed) return { answers: texts.map(() => ({ failed: "the source was closed" })) };
    if (this.#clock.monotonicMs() < this.#restUntilMs)
      return { answers: texts.map(() => ({ failed: "the filter rests, as it was killed too often" })) };
    try {
      this.#running ??= await this.#startWorker();
    } catch (error) {
      this.#rest();
      const failed = error instanceof Error ? error.message : String(error);
      return { answers: texts.map(() => ({ failed })) };
    }
    const running = this.#running;
    const outcome = await this.#race(running, texts);
    if (typeof outcome !== "string") return { answers: outcome };
    const at = Math.min(Atomics.load(running.progress, 0), texts.length - 1);
    this.#running = undefined;
    await running.worker.terminate();
    if (++this.#kills >= MAX_KILLS) this.#rest();
    return { at, reason: outcome };
  }

  #rest(): void {
    this.#kills = 0;
    this.#restUntilMs = this.#clock.monotonicMs() + REST_MS;
  }

  /** The answers, or the reason why there will be none. */
  #race({ worker, progress }: Running, texts: readonly string[]): Promise<Answer[] | string> {
    const { timeoutMs } = this.#config;
    return new Promise((resolve) => {
      let seen = 0;
      let seenAtMs = this.#clock.monotonicMs();
      Atomics.store(progress, 0, 0);
      // One timer for the batch looks whether it has come further, instead of one a reading.
      const watch = setInterval(() => {
        const at = Atomics.load(progress, 0);
        const nowMs = this.#clock.monotonicMs();
        if (at !== seen) {
          seen = at;
          seenAtMs = nowMs;
        } else if (nowMs - seenAtMs >= timeoutMs) settle(`it took longer than ${timeoutMs} ms`);
      }, timeoutMs);
      const settle = (outcome: Answer[] | string): void => {
        clearInterval(watch);
        worker.removeAllListeners("message");
        worker.removeAllListeners("exit");
        resolve(outcome);
      };
      worker.once("message", ({ answers }: { answers: Answer[] }) => settle(answers));
      worker.once("exit", () => settle(`it took more than ${this.#config.memoryMiB} MiB of memory`));
      worker.postMessage(texts);
    });
  }

  #startWorker(): Promise<Running> {
    const { javascript, jq, maxBytes, memoryMiB } = this.#config;
    const place = new SharedArrayBuffer(4);
    const worker = new Worker(FILTER_PROGRAM, {
      eval: true,
      env: {},
      execArgv: [],
      stdin: false,
      resourceLimits: { maxOldGenerationSizeMb: memoryMiB, maxYoungGenerationSizeMb: 2, stackSizeMb: 2 },
      workerData: {
        kind: jq === undefined ? "javascript" : "jq",
        expression: jq ?? javascript ?? "true",
        jqPath: jq === undefined ? "" : jqModule(),
        maxBytes,
        maxResults: MAX_RESULTS,
        place,
      },
    });
    // What follows is its `exit`, which is listened for.
    worker.on("error", () => {});
    worker.unref();
    return new Promise((resolve, reject) => {
      const fail = (reason: string): void => {
        clearTimeout(late);
        void worker.terminate();
        reject(new FilterInvalidError(this.#source, reason));
      };
      const late = setTimeout(() => fail(`not ready after ${READY_MS} ms`), READY_MS);
      const ended = (): void => fail("its worker ended");
      worker.once("exit", ended);
      worker.once("message", (said: { broken?: string }) => {
        worker.off("exit", ended);
        if (said.broken !== undefined) return fail(said.broken);
        clearTimeout(late);
        resolve({ worker, progress: new Int32Array(place) });
      });
    });
  }

  /** Safe to call twice. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#last;
    await this.#running?.worker.terminate();
    this.#running = undefined;
  }
}

/** Text has no folder from which it could import by name. */
function jqModule(): string {
  return pathToFileURL(createRequire(import.meta.url).resolve("@michaelhomer/jqjs")).href;
}

function textOf({ sensor, timeUs, fields }: SensorReading): string {
  return JSON.stringify({ sensor, ...(timeUs !== undefined && { time: timeText(timeUs) }), ...fields });
}

function readingFrom(result: Fields, before: SensorReading, arrivalUs: number): SensorReading {
  const { sensor, ...fields } = result;
  const name = typeof sensor === "string" && sensor !== "" ? sensor : before.sensor;
  const reading = readingOf(name, fields, "time", arrivalUs);
  // Its text has milliseconds only; a time that the filter left alone keeps its microseconds.
  const untouched = before.timeUs !== undefined && fields.time === timeText(before.timeUs);
  return untouched ? { ...reading, timeUs: before.timeUs } : reading;
}
