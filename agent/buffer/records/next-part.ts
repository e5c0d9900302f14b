/**
 * The part that is written to next, made while the one before it still takes records. Nothing is stored in
 * it yet, so a failure says nothing of what is: it is made again, with pauses between, for as long as the
 * present one has room, and `patienceMs` more while a writer waits. A crash leaves an empty part, or some of
 * its files, which the next open removes.
 */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { syncFolder } from "../../../runtime/durable.ts";
import { type Database, openDatabase } from "../level/leveldb.ts";
import { type ChainPart, newPart, partName } from "./chain-part.ts";
import { explanation, type RepeatOptions, repeat } from "./repeat.ts";

export interface OpenPart {
  readonly part: ChainPart;
  readonly database: Database;
  /** Marks that are in no other place yet. */
  readonly marks: Map<string, Uint8Array>;
  writtenBytes: number;
}

export interface NextPartOptions extends RepeatOptions {
  /** Holds the parts. */
  readonly dir: string;
  /** LevelDB's memtable: more than a part ever gets. */
  readonly memoryBytes: number;
  /** Aborted when nothing will be written any more: what failed is not tried again. */
  readonly ending: AbortSignal;
}

export class NextPart {
  readonly #options: NextPartOptions;
  #number: number;
  #making: Promise<OpenPart> | undefined;
  #isReady = false;
  #awaitedSinceMs: number | undefined;

  /** @param number no part of this number or a higher one exists */
  constructor(options: NextPartOptions, number: number) {
    this.#options = options;
    this.#number = number;
  }

  get isReady(): boolean {
    return this.#isReady;
  }

  /** The first one: there is no other that records could go to meanwhile, so it is tried once. */
  first(): Promise<OpenPart> {
    return this.#make(this.#number++);
  }

  prepare(): void {
    if (this.#making !== undefined) return;
    const number = this.#number++;
    const waitingSinceMs = (): number | undefined => this.#awaitedSinceMs;
    const { ending } = this.#options;
    const making = repeat(() => this.#make(number), waitingSinceMs, this.#options, ending);
    this.#making = making;
    making.then(
      () => {
        this.#isReady = true;
      },
      () => {},
    );
  }

  /** @throws what stood in the way, once a writer has waited `patienceMs` */
  async take(): Promise<OpenPart> {
    this.prepare();
    this.#awaitedSinceMs = this.#options.clock.monotonicMs();
    try {
      const made = await this.#making!;
      this.#isReady = false;
      return made;
    } catch (error) {
      throw new Error(`the next part cannot be made: ${explanation(error)}`, { cause: error });
    } finally {
      this.#making = undefined;
      this.#awaitedSinceMs = undefined;
    }
  }

  async #make(number: number): Promise<OpenPart> {
    const { dir, memoryBytes } = this.#options;
    const folder = join(dir, partName(number));
    // Of an earlier try: a part is never opened a second time.
    await rm(folder, { recursive: true, force: true });
    const database = await openDatabase(folder, true, memoryBytes);
    try {
      // The log's own name too must survive a power cut, before anything in it is acknowledged. Both at
      // once, as one commit of the file system's journal then serves both.
      await Promise.all([syncFolder(folder), syncFolder(dir)]);
    } catch (error) {
      await database.close();
      throw error;
    }
    return { part: newPart(number, 0, 0n), database, marks: new Map(), writtenBytes: 0 };
  }

  /** Removes one that was made and not taken. `ending` is aborted. */
  async close(): Promise<void> {
    const made = await this.#making?.catch(() => undefined);
    if (made === undefined) return;
    await made.database.close();
    await rm(join(this.#options.dir, made.part.name), { recursive: true, force: true });
  }
}
