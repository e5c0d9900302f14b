/** Readers of enhanced fan-out, registered in the list of streams. */
import {
  changed,
  ReaderExistsError,
  ReaderNotFoundError,
  type ReadersCheck,
  type RegisteredReader,
  StreamNotFoundError,
  type TagChange,
} from "../../../streams.ts";
import type { StreamRegistry } from "./stream-registry.ts";

export class RegisteredReaders {
  readonly #registry: StreamRegistry;

  constructor(registry: StreamRegistry) {
    this.#registry = registry;
  }

  /** Sorted by name. */
  list(stream: string): readonly RegisteredReader[] {
    const readers = this.#registry.list.records[stream]?.readers ?? [];
    return [...readers].sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** @throws ReaderExistsError */
  async register(
    stream: string,
    name: string,
    tags: RegisteredReader["tags"],
    check?: ReadersCheck,
  ): Promise<RegisteredReader> {
    let reader!: RegisteredReader;
    await this.#change(stream, (readers) => {
      if (readers.some((one) => one.name === name)) throw new ReaderExistsError(stream, name);
      check?.(readers);
      reader = { name, createdMs: this.#registry.seconds.dateReader(stream, name), tags };
      return [...readers, reader];
    });
    return reader;
  }

  /** @throws ReaderNotFoundError */
  async update(stream: string, name: string, tags: TagChange): Promise<RegisteredReader> {
    await this.#change(stream, (readers) => {
      if (!readers.some((one) => one.name === name)) throw new ReaderNotFoundError(stream, name);
      return readers.map((one) => (one.name === name ? { ...one, tags: changed(one.tags, tags) } : one));
    });
    const reader = this.list(stream).find((one) => one.name === name);
    if (reader === undefined) throw new ReaderNotFoundError(stream, name);
    return reader;
  }

  /** @throws ReaderNotFoundError */
  async deregister(stream: string, name: string): Promise<void> {
    await this.#change(stream, (readers) => {
      if (!readers.some((one) => one.name === name)) throw new ReaderNotFoundError(stream, name);
      return readers.filter((one) => one.name !== name);
    });
  }

  async #change(
    stream: string,
    change: (readers: readonly RegisteredReader[]) => readonly RegisteredReader[],
  ): Promise<void> {
    const streamId = this.#registry.streams.get(stream)?.streamId;
    if (streamId === undefined) throw new StreamNotFoundError(stream);
    await this.#registry.list.updateStream(stream, streamId, (record) => ({
      ...record,
      readers: change(record.readers),
    }));
    // Another gateway deleted it meanwhile: nothing was written.
    if (this.#registry.list.records[stream]?.streamId !== streamId) throw new StreamNotFoundError(stream);
    this.#registry.tellAll();
  }
}
