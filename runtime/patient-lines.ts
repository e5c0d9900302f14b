/** Lines for a pipe or socket whose reader may be slow, or gone: the program that writes them never waits for it. */
import { writeSync } from "node:fs";

/** What is said of lines that did not fit. */
export const DROPPED = "lines of the log were dropped while it could not be written";
const MAX_WAITING_BYTES = 1_048_576;
const RETRY_MS = 1_000;
const LAST_TRIES = 40;
const LAST_PAUSE_MS = 50;

/**
 * A reader that is slow does not take a line (EAGAIN), and one that is gone takes none any more (EPIPE). Lines wait
 * until they are taken, what is more than fits is dropped and counted, and the program goes on.
 */
export class PatientLines {
  readonly #fd: number;
  readonly #droppedLine: (lines: number) => string;
  #waiting: Buffer[] = [];
  #waitingBytes = 0;
  #dropped = 0;
  #retry: NodeJS.Timeout | undefined;

  /**
   * @param fd non-blocking
   * @param droppedLine says, with its line feed, that so many lines were dropped
   */
  constructor(fd: number, droppedLine: (lines: number) => string) {
    this.#fd = fd;
    this.#droppedLine = droppedLine;
    process.once("exit", () => this.#end());
  }

  /** @param line with its line feed */
  write(line: string): void {
    this.#add(line);
    if (this.#passOn()) this.#tryLater();
  }

  #add(line: string): void {
    const bytes = Buffer.from(line);
    if (this.#waitingBytes + bytes.length > MAX_WAITING_BYTES) this.#dropped++;
    else {
      this.#waiting.push(bytes);
      this.#waitingBytes += bytes.length;
    }
  }

  /** It may be long until the next line, and this one says what to do now. */
  #tryLater(): void {
    this.#retry ??= setTimeout(() => {
      this.#retry = undefined;
      if (this.#passOn()) this.#tryLater();
    }, RETRY_MS).unref();
  }

  /** A program's last lines say why it ends: a slow reader gets some time for them. */
  #end(): void {
    const asleep = new Int32Array(new SharedArrayBuffer(4));
    for (let tries = 0; this.#passOn() && tries < LAST_TRIES; tries++)
      Atomics.wait(asleep, 0, 0, LAST_PAUSE_MS);
  }

  /** @returns whether lines wait that a slow reader may take later */
  #passOn(): boolean {
    let isSlow = this.#writeWaiting();
    if (this.#waiting.length === 0 && this.#dropped > 0) {
      this.#add(this.#droppedLine(this.#dropped));
      this.#dropped = 0;
      isSlow = this.#writeWaiting();
    }
    return isSlow;
  }

  /** @returns whether the reader is slow, and not gone */
  #writeWaiting(): boolean {
    let taken = 0;
    let isSlow = false;
    try {
      for (const bytes of this.#waiting) {
        for (let at = 0; at < bytes.length; ) {
          const written = writeSync(this.#fd, bytes, at);
          at += written;
          // Of a line that was not taken whole the rest comes first the next time.
          this.#waiting[taken] = bytes.subarray(at);
          this.#waitingBytes -= written;
        }
        taken++;
      }
    } catch (error) {
      isSlow = (error as NodeJS.ErrnoException).code === "EAGAIN";
    }
    this.#waiting.splice(0, taken);
    return isSlow;
  }
}
