/**
 * Lines that were read and are not yet stored. Bounded: when it is full its source reads no more until
 * there is room. Lines are stored in their order, one group at a time.
 */
export interface QueuedLine {
  readonly line: Buffer;
  readonly arrivalUs: number;
}

/** When so much is read and not yet stored, the source is not read on. */
const MAX_UNSTORED_BYTES = 65_536;
/** Handed over at once, about. */
const GROUP_BYTES = 8_192;
/** An empty line costs something, too. */
const LINE_OVERHEAD_BYTES = 64;

export interface LineQueueOptions {
  /** Never rejects. */
  readonly store: (lines: readonly QueuedLine[]) => Promise<void>;
  readonly onFull: () => void;
  readonly onRoom: () => void;
}

export class LineQueue {
  readonly #options: LineQueueOptions;
  #lines: QueuedLine[] = [];
  #bytes = 0;
  #storing: Promise<void> | undefined;

  constructor(options: LineQueueOptions) {
    this.#options = options;
  }

  get isFull(): boolean {
    return this.#bytes > MAX_UNSTORED_BYTES;
  }

  push(lines: readonly Buffer[], arrivalUs: number): void {
    for (const line of lines) {
      this.#lines.push({ line, arrivalUs });
      this.#bytes += line.length + LINE_OVERHEAD_BYTES;
    }
    if (this.isFull) this.#options.onFull();
    if (this.#lines.length === 0) return;
    this.#storing ??= this.#store().finally(() => {
      this.#storing = undefined;
    });
  }

  /** Resolves when everything pushed so far is stored. */
  async stored(): Promise<void> {
    await this.#storing;
  }

  async #store(): Promise<void> {
    while (this.#lines.length > 0) {
      let bytes = 0;
      const beyond = this.#lines.findIndex(({ line }, i) => {
        bytes += line.length + LINE_OVERHEAD_BYTES;
        return i > 0 && bytes > GROUP_BYTES;
      });
      const group = this.#lines.splice(0, beyond < 0 ? this.#lines.length : beyond);
      await this.#options.store(group);
      const wasFull = this.isFull;
      this.#bytes = this.#lines.reduce((sum, { line }) => sum + line.length + LINE_OVERHEAD_BYTES, 0);
      if (wasFull && !this.isFull) this.#options.onRoom();
    }
  }
}
