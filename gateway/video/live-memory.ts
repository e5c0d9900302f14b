/**
 * What the live views of all cameras keep together for joiners. Where it is too much the largest lets go: its next
 * joiner waits for a key frame. Nobody who watches already misses anything.
 */

const MAX_BYTES = 128 * 1_048_576;

export interface KeptGroups {
  /** Keeps nothing any more, until the next key frame. */
  letGo(): void;
}

export class LiveMemory {
  readonly #maxBytes: number;
  readonly #kept = new Map<KeptGroups, number>();
  #keptBytes = 0;
  #lettingGo = false;

  constructor(maxBytes = MAX_BYTES) {
    this.#maxBytes = maxBytes;
  }

  get keptBytes(): number {
    return this.#keptBytes;
  }

  keeps(view: KeptGroups, bytes: number): void {
    this.#set(view, bytes);
    while (this.#keptBytes > this.#maxBytes && !this.#lettingGo) {
      let largest: [KeptGroups, number] = [view, 0];
      for (const entry of this.#kept) if (entry[1] > largest[1]) largest = entry;
      // What it holds back for the order of showing goes out now, and would be told again.
      this.#lettingGo = true;
      try {
        largest[0].letGo();
      } finally {
        this.#lettingGo = false;
      }
      this.#set(largest[0], 0);
    }
  }

  #set(view: KeptGroups, bytes: number): void {
    this.#keptBytes += bytes - (this.#kept.get(view) ?? 0);
    if (bytes === 0) this.#kept.delete(view);
    else this.#kept.set(view, bytes);
  }
}
