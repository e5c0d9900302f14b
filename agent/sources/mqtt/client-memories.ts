/**
 * The publish memories of all MQTT clients of one source: in memory for those that were seen
 * lately, as marks in the buffer for more. Both are bounded; the one longest not seen goes first.
 */
import type { Mark, RecordBuffer } from "../../buffer/record-buffer.ts";
import { PublishMemory } from "./publish-memory.ts";

const MAX_IN_MEMORY = 2_000;
const MAX_MARKS = 10_000;

export class ClientMemories {
  readonly #buffer: RecordBuffer;
  readonly #prefix: string;
  /** Longest not seen first. */
  readonly #memories = new Map<string, PublishMemory>();
  readonly #loading = new Map<string, Promise<PublishMemory>>();
  readonly #marks = new Set<string>();

  constructor(buffer: RecordBuffer, sourceName: string) {
    this.#buffer = buffer;
    this.#prefix = `mqtt/${sourceName}/`;
  }

  async start(): Promise<void> {
    for (const name of await this.#buffer.marks(this.#prefix)) this.#marks.add(name);
  }

  /** One memory a client, also when two of its connections ask at once. */
  open(clientId: string): Promise<PublishMemory> {
    const known = this.#memories.get(clientId);
    if (known !== undefined) {
      this.#memories.delete(clientId);
      this.#memories.set(clientId, known);
      return Promise.resolve(known);
    }
    const loading =
      this.#loading.get(clientId) ??
      this.#load(clientId).finally(() => {
        this.#loading.delete(clientId);
      });
    this.#loading.set(clientId, loading);
    return loading;
  }

  async #load(clientId: string): Promise<PublishMemory> {
    const memory = new PublishMemory(await this.#buffer.mark(this.markName(clientId)));
    this.#memories.set(clientId, memory);
    if (this.#memories.size > MAX_IN_MEMORY) {
      for (const [id, old] of this.#memories) {
        if (old.hasPending || old === memory) continue;
        this.#memories.delete(id);
        break;
      }
    }
    return memory;
  }

  markName(clientId: string): string {
    return this.#prefix + encodeURIComponent(clientId);
  }

  /** @returns marks to be removed in the same write, as one more is about to be stored. */
  touch(clientId: string, memory: PublishMemory): Mark[] {
    // Who is connected for long was opened long ago, but is not the one longest not seen.
    this.#memories.delete(clientId);
    this.#memories.set(clientId, memory);
    const name = this.markName(clientId);
    this.#marks.delete(name);
    this.#marks.add(name);
    if (this.#marks.size <= MAX_MARKS) return [];
    const [oldest] = this.#marks;
    this.#marks.delete(oldest!);
    return [{ source: oldest!, value: new Uint8Array() }];
  }

  /** After a clean DISCONNECT nothing will be sent again. Publishes that are being stored keep the memory. */
  async forget(clientId: string): Promise<void> {
    const memory = this.#memories.get(clientId);
    if (memory?.hasPending) return;
    memory?.clear();
    const name = this.markName(clientId);
    if (this.#marks.delete(name)) await this.#buffer.setMarks([{ source: name, value: new Uint8Array() }]);
  }
}
