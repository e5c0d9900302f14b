/** Looks once a second whether the disk answers the local store's logs: nothing else tells the operator of one that hangs. */
import type { LocalStream } from "./local-stream.ts";

const EVERY_MS = 1_000;

export class DiskWatch {
  readonly #streams: ReadonlyMap<string, LocalStream>;
  #timer: NodeJS.Timeout | undefined;

  constructor(streams: ReadonlyMap<string, LocalStream>) {
    this.#streams = streams;
  }

  start(): void {
    // Behind what has come meanwhile: where the process stood still, the disk's answers are there and not heard yet.
    this.#timer = setInterval(() => setImmediate(() => this.#look()), EVERY_MS);
    this.#timer.unref();
  }

  /** Safe to call twice. */
  close(): void {
    clearInterval(this.#timer);
  }

  #look(): void {
    for (const { log } of this.#streams.values()) log.lookAtDisk();
  }
}
