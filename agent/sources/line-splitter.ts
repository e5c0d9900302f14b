/** Cuts a byte stream into lines, or into frames that another byte ends. One that is too long is dropped whole, and counted. */
export const MAX_LINE_BYTES = 65_536;
const LINE_FEED = 10;
const CARRIAGE_RETURN = 13;

export class LineSplitter {
  #begun: Buffer[] = [];
  #begunBytes = 0;
  #skipping = false;
  readonly #onTooLong: () => void;
  readonly #end: number;

  /** @param end the byte that ends a line; before a line feed a carriage return goes too */
  constructor(onTooLong: () => void, end = LINE_FEED) {
    this.#onTooLong = onTooLong;
    this.#end = end;
  }

  /** The lines that `chunk` completes, without their ends; empty ones are left out. */
  push(chunk: Buffer): Buffer[] {
    const lines: Buffer[] = [];
    let at = 0;
    for (let end = chunk.indexOf(this.#end); end >= 0; end = chunk.indexOf(this.#end, at)) {
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
    const end = this.#end === LINE_FEED && line.at(-1) === CARRIAGE_RETURN ? line.length - 1 : line.length;
    return skipped || end === 0 ? undefined : line.subarray(0, end);
  }
}
