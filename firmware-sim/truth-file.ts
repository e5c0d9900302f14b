/**
 * What really happened, one JSON object a line, for tests and benches to compare with what arrived.
 * Lines of one turn of the event loop are written together, at its end: a kill loses at most those.
 */
import { closeSync, mkdirSync, openSync, writeSync } from "node:fs";
import { dirname } from "node:path";

export class TruthFile {
  readonly #path: string;
  #file: number | undefined;
  #waiting = "";
  #flushing = false;

  constructor(path: string) {
    this.#path = path;
  }

  /** Goes on behind what an earlier run wrote. */
  open(): void {
    mkdirSync(dirname(this.#path), { recursive: true });
    this.#file = openSync(this.#path, "a");
  }

  append(fact: object): void {
    this.#waiting += `${JSON.stringify(fact)}\n`;
    if (this.#flushing) return;
    this.#flushing = true;
    setImmediate(() => {
      this.#flushing = false;
      this.flush();
    });
  }

  flush(): void {
    if (this.#file === undefined || this.#waiting === "") return;
    writeSync(this.#file, this.#waiting);
    this.#waiting = "";
  }

  /** Safe to call twice. */
  close(): void {
    this.flush();
    if (this.#file !== undefined) closeSync(this.#file);
    this.#file = undefined;
  }
}
