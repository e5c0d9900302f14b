/** Cuts a byte stream into lines. A line that is too long is dropped whole, and counted. */
export const MAX_LINE_BYTES = 65_536;

export class LineSplitter {
  #begun: Buffer[] = [];
  #begunBytes = 0;
  #skipping = false;
  readonly #onTooLong: () => void;

  constructor(onTooLong: () => void) {
    this.#onTooLong = onTooLong;
  }

  /** The lines that `chunk` completes, without their ends; empty ones are left out. */
  push(chunk: Buffer): Buffer[] {
    const lines: Buffer[] = [];
    let at = 0;
    for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, at)) {
      this.#keep(chunk.subarray(at, end));
      const line = this.#take();
      if (line !== undefined) lines.push(line);
      at = end + 1;
    }
    this.#keep(chunk.subarray(at));
    return lines;
  }

  /** Forgets a line that was begun: what follows does not belong to it. */
  reset(): void {
    this.#begun = [];
    this.#begunBytes = 0;
    this.#skipping = false;
  }

  #keep(bytes: Buffer): void {
    if (this.#skipping) return;
    this.#begunBytes += bytes.length;
    if (this.#begunBytes > MAX_LINE_BYTES) {
      this.#begun = [];
      this.#skipping = true;
      this.#onTooLong();
    } else if (bytes.length > 0) this.#begun.push(bytes);
  }

  #take(): Buffer | undefined {
    const line = Buffer.concat(this.#begun);
    const skipped = this.#skipping;
    this.reset();
    const end = line.at(-1) === 13 ? line.length - 1 : line.length;
    return skipped || end === 0 ? undefined : line.subarray(0, end);
  }
}
