/**
 * What devices said of themselves (Home Assistant's discovery), kept as marks in the buffer: they say
 * it when they connect, and need not do so again because the agent was started anew.
 */
import type { RecordBuffer } from "../../buffer/record-buffer.ts";
import type { DiscoveryCatalog, DiscoveryEntry } from "../decode/home-assistant.ts";

/** Of more nothing is kept: a client may announce what it likes. */
const MAX_STORED = 5_000;

export class DiscoveryMemory {
  readonly #catalog: DiscoveryCatalog;
  readonly #buffer: RecordBuffer;
  readonly #prefix: string;
  /** Config topic → entry as it was stored last. */
  readonly #stored = new Map<string, string>();

  constructor(catalog: DiscoveryCatalog, buffer: RecordBuffer, sourceName: string) {
    this.#catalog = catalog;
    this.#buffer = buffer;
    this.#prefix = `discovery/${sourceName}/`;
  }

  async load(): Promise<void> {
    for (const name of await this.#buffer.marks(this.#prefix)) {
      const mark = await this.#buffer.mark(name);
      if (mark === undefined) continue;
      const text = Buffer.from(mark).toString();
      const entry = JSON.parse(text) as DiscoveryEntry;
      this.#stored.set(entry.topic, text);
      this.#catalog.remember(entry);
    }
  }

  /** Stores what the catalog knows of a topic, where that has changed. */
  keep(topic: string): void {
    const entry = this.#catalog.entry(topic);
    const text = entry === undefined ? undefined : JSON.stringify(entry);
    if (text === this.#stored.get(topic)) return;
    if (!this.#stored.has(topic) && this.#stored.size >= MAX_STORED) return;
    if (text === undefined) this.#stored.delete(topic);
    else this.#stored.set(topic, text);
    const mark = { source: this.#prefix + encodeURIComponent(topic), value: Buffer.from(text ?? "") };
    // Not waited for: without it a unit is missing for a while, and no reading.
    this.#buffer.setMarks([mark]).catch(() => {});
  }
}
