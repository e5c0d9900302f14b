/**
 * A thread that writes large pages of GetRecords, so that what else the gateway does need not wait for it:
 *
 *   batches of the log ─copied→ shared memory ─thread→ the page, in the same memory ─→ socket
 *
 * The API's own thread writes a page where the thread cannot: no memory is idle, or the page is too large
 * for it, or nothing has been read for a while and the thread has yet to start. Bytes are the same.
 */
import { Worker } from "node:worker_threads";
import type { Log } from "../../../../runtime/log.ts";
import type { Metrics } from "../../../../runtime/metrics.ts";
import type { Tally } from "../../../../runtime/tally.ts";
import type { SharedMemory } from "../../answers/answer-memory.ts";
import { type FromThread, type PageJob, placeJob, putFrame, type ToThread } from "./page-job.ts";

/** While one is sent, the next is written, and one is with a client that reads slowly. */
const MEMORIES = 3;
/** After so long without a page the thread ends once all memory is back, and what that took is free. */
const IDLE_MS = 60_000;
/** Of fewer records it is told for longer than it writes them. */
const MIN_RECORDS = 1_000;
/** It has hardly any objects. */
const RESOURCE_LIMITS = { maxOldGenerationSizeMb: 64, maxYoungGenerationSizeMb: 4 };

/** Whether a page of so many records is for the thread. */
export function isForThread(records: number): boolean {
  return records >= MIN_RECORDS;
}

interface Place {
  readonly number: number;
  readonly outAt: number;
  /** Not while it is lent: what is never given back is collected. */
  memory: SharedMemory | undefined;
  writing: ((end: number | undefined) => void) | undefined;
}

export interface PageThreadOptions {
  readonly log: Log;
  readonly metrics: Metrics;
  readonly idleMs?: number;
  /** For tests. */
  readonly program?: URL;
}

export class PageThread {
  readonly #options: PageThreadOptions;
  readonly #written: Tally;
  readonly #lost = new FinalizationRegistry<Place>((place) => this.#forget(place));
  #places: Array<Place | undefined> = [];
  #worker: Worker | undefined;
  #isMaking = false;
  #isOver = false;
  #rest: NodeJS.Timeout | undefined;

  constructor(options: PageThreadOptions) {
    this.#options = options;
    const { metrics } = options;
    const written = metrics.counter(
      "headwater_kinesis_thread_pages_total",
      "Large pages of GetRecords that were written beside the API's own thread",
    );
    this.#written = metrics.tally(written, {});
  }

  get isRunning(): boolean {
    return this.#worker !== undefined;
  }

  /**
   * What it needs of the stretches is copied when it returns.
   * @returns undefined, also as what is promised, when it is left to the caller
   */
  write(job: PageJob): Promise<Buffer | undefined> | undefined {
    if (this.#isOver) return undefined;
    const place = this.#places.find((one) => one?.memory !== undefined && one.writing === undefined);
    if (place === undefined) {
      this.#make();
      return undefined;
    }
    const memory = place.memory!;
    const bytes = Buffer.from(memory);
    const placed = placeJob(job, bytes, place.outAt);
    if (placed === undefined) return undefined;
    this.#rest?.refresh();
    this.#tell({ write: place.number, ...placed });
    return new Promise((resolve) => {
      place.writing = (end) => {
        place.writing = undefined;
        if (end === undefined) {
          resolve(undefined);
          return;
        }
        this.#written.add(1);
        this.#lend(place, memory);
        resolve(bytes.subarray(place.outAt, putFrame(job.frame, bytes, placed.at, end)));
      };
    });
  }

  /** Pages under way are left to their callers. Safe to call twice. */
  close(): void {
    this.#isOver = true;
    this.#end();
  }

  #lend(place: Place, memory: SharedMemory): void {
    place.memory = undefined;
    memory.giveBack = () => {
      memory.giveBack = undefined;
      if (this.#places[place.number] === place) place.memory = memory;
    };
  }

  /** Asks for one memory more, unless all are there: it is for a page to come. */
  #make(): void {
    if (this.#isMaking) return;
    const number = Array.from({ length: MEMORIES }).findIndex((_, i) => this.#places[i] === undefined);
    if (number < 0) return;
    this.#isMaking = true;
    try {
      this.#worker ??= this.#start();
    } catch (error) {
      // As where a machine gives no more threads.
      this.#fail(error as Error);
    }
    this.#tell({ make: number });
  }

  #start(): Worker {
    const { program = new URL("./page-writer.js", import.meta.url), idleMs = IDLE_MS } = this.#options;
    const worker = new Worker(program, { name: "pages", resourceLimits: RESOURCE_LIMITS });
    worker.unref();
    worker.on("message", (said: FromThread) => {
      if (worker === this.#worker) this.#hear(said);
    });
    worker.on("error", (error) => {
      if (worker === this.#worker) this.#fail(error);
    });
    this.#rest = setTimeout(() => this.#endWhenBack(), idleMs).unref();
    return worker;
  }

  #fail(error: Error): void {
    this.#options.log.warn(
      { error: error.message },
      "the thread that writes pages ended: they are written without it",
    );
    this.close();
  }

  #hear(said: FromThread): void {
    if ("written" in said) {
      this.#places[said.written]!.writing?.(said.end);
      return;
    }
    this.#isMaking = false;
    const { made, memory, outAt } = said;
    if (memory === undefined) {
      this.close();
      return;
    }
    const place: Place = { number: made, outAt, memory, writing: undefined };
    this.#places[made] = place;
    this.#rest?.refresh();
    this.#lost.register(memory, place);
  }

  /**
   * Its memory was collected here. The thread would keep it: V8 does not count shared memory, and the thread makes too
   * little garbage to have any collected. So it ends, with all that it has, and comes again for pages to come.
   */
  #forget(place: Place): void {
    if (this.#places[place.number] === place) this.#end();
  }

  /** Not while memory is lent: who made more then would have more than there may be. */
  #endWhenBack(): void {
    const isLent = this.#places.some((place) => place !== undefined && place.memory === undefined);
    if (isLent) this.#rest?.refresh();
    else this.#end();
  }

  #end(): void {
    const places = this.#places;
    clearTimeout(this.#rest);
    void this.#worker?.terminate();
    this.#worker = undefined;
    this.#isMaking = false;
    this.#places = [];
    for (const place of places) {
      if (place === undefined) continue;
      // What is told of memory that was collected must not keep it.
      place.memory = undefined;
      place.writing?.(undefined);
    }
  }

  #tell(what: ToThread): void {
    this.#worker?.postMessage(what);
  }
}
