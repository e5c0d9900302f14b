/** The memory into which files are read: one window for all files of a source, so each has it in turn. */
export const WINDOW_BYTES = 524_288;

export class Window {
  readonly #bytes = Buffer.allocUnsafe(WINDOW_BYTES);
  #last: Promise<unknown> = Promise.resolve();

  /** @param work may use the bytes until it resolves */
  use<T>(work: (bytes: Buffer) => Promise<T>): Promise<T> {
    const used = this.#last.then(() => work(this.#bytes));
    this.#last = used.catch(() => {});
    return used;
  }
}
