/** The beginning of a publish whose end has not come yet. Its memory grows with what has come, not with what is announced. */

/** Memory that is kept for the next one. */
const KEPT_BYTES = 32 * 1_024;

export class CutPublish {
  #memory = Buffer.alloc(0);
  #have = 0;
  /** There must be so many to go on. */
  neededBytes = 0;

  get isEmpty(): boolean {
    return this.#have === 0;
  }

  get haveBytes(): number {
    return this.#have;
  }

  get isWhole(): boolean {
    return this.#have >= this.neededBytes;
  }

  /** What has come, in memory that the next one overwrites. */
  get bytes(): Buffer {
    return this.#memory.subarray(0, this.#have);
  }

  /** Copies from the chunk what is missing, as far as it is there. @returns where that ends */
  gather(chunk: Buffer, from: number): number {
    const have = this.#have;
    const bytes = Math.min(chunk.length - from, this.neededBytes - have);
    if (have + bytes > this.#memory.length) {
      const larger = Buffer.allocUnsafeSlow(
        Math.min(this.neededBytes, Math.max(have + bytes, 2 * this.#memory.length, KEPT_BYTES)),
      );
      this.#memory.copy(larger, 0, 0, have);
      this.#memory = larger;
    }
    chunk.copy(this.#memory, have, from, from + bytes);
    this.#have += bytes;
    return from + bytes;
  }

  /** It was taken. */
  letGo(): void {
    this.#have = 0;
    if (this.#memory.length > KEPT_BYTES) this.#memory = Buffer.alloc(0);
  }

  /** Its connection is gone. */
  forget(): void {
    this.#have = 0;
    this.#memory = Buffer.alloc(0);
  }
}
