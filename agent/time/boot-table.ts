/**
 * The boots whose records were written with provisional times, on disk among the buffer's marks: one
 * mark for each, `clock/boot/<slot>`. A boot's moment is on disk here before a record of it is sent,
 * so that a frame that is sent again is the same to the byte.
 */
import type { Mark, RecordBuffer } from "../buffer/record-buffer.ts";
import type { BootMoment, TimeKnownBy } from "./agent-clock.ts";
import { FIRST_SLOT, LAST_SLOT } from "./provisional-time.ts";

export interface BootEntry {
  readonly slot: number;
  readonly bootId: string;
  /** Rises from boot to boot. */
  readonly order: number;
  /** A time of day that was past already when the boot began; 0 when none is known. */
  readonly afterUs: number;
  readonly moment?: KnownMoment;
}

export interface KnownMoment {
  readonly utcUs: number;
  readonly by: TimeKnownBy | "estimated";
  readonly boundUs: number;
}

const PREFIX = "clock/boot/";
const LAST_KNOWN = "clock/last-known";
const KEPT_BOOTS = 4;

/** The last time of day that was known to this device, and how it was then reckoned. */
export interface LastKnown {
  readonly utcUs: number;
  readonly bootId?: string;
  readonly moment?: BootMoment;
}

export class BootTable {
  readonly #buffer: RecordBuffer;
  readonly #entries = new Map<number, BootEntry>();
  #lastKnown: LastKnown = { utcUs: 0 };

  constructor(buffer: RecordBuffer) {
    this.#buffer = buffer;
  }

  get entries(): readonly BootEntry[] {
    return [...this.#entries.values()].sort((a, b) => a.order - b.order);
  }

  /** As it was last reckoned in this boot: corrected since the first, perhaps. */
  lastMoment(bootId: string): BootMoment | undefined {
    return this.#lastKnown.bootId === bootId ? this.#lastKnown.moment : undefined;
  }

  get(slot: number): BootEntry | undefined {
    return this.#entries.get(slot);
  }

  async read(): Promise<void> {
    for (const name of await this.#buffer.marks(PREFIX)) {
      const entry = parsed<BootEntry>(await this.#buffer.mark(name));
      if (entry !== undefined) this.#entries.set(entry.slot, entry);
    }
    this.#lastKnown = parsed<LastKnown>(await this.#buffer.mark(LAST_KNOWN)) ?? this.#lastKnown;
  }

  /**
   * Nothing waits any more that was written in boots before this one. The last of them stay: a source's
   * mark may still say when it was last heard, for the report of a gap.
   */
  async forgetAllBut(bootId: string): Promise<void> {
    const others = this.entries.filter((entry) => entry.bootId !== bootId);
    const kept = new Set(others.filter(({ moment }) => moment !== undefined).slice(-KEPT_BOOTS));
    const gone = others.filter((entry) => !kept.has(entry));
    if (gone.length === 0) return;
    const none = new Uint8Array(0);
    await this.#buffer.setMarks(gone.map(({ slot }) => ({ source: nameOf(slot), value: none })));
    for (const { slot } of gone) this.#entries.delete(slot);
  }

  /**
   * A slot for a boot that has none. After 181 boots without the time of day the oldest one's slot is
   * used again: what still waits of that boot would be taken for this one's.
   */
  async add(bootId: string): Promise<BootEntry> {
    const last = this.entries.at(-1);
    const slot = last === undefined || last.slot >= LAST_SLOT ? FIRST_SLOT : last.slot + 1;
    const entry = { slot, bootId, order: (last?.order ?? 0) + 1, afterUs: this.#lastKnown.utcUs };
    await this.save([entry]);
    return entry;
  }

  /** In one synced write. */
  async save(entries: readonly BootEntry[], known?: LastKnown): Promise<void> {
    const marks: Mark[] = entries.map((entry) => ({ source: nameOf(entry.slot), value: written(entry) }));
    if (known !== undefined) marks.push({ source: LAST_KNOWN, value: written(known) });
    await this.#buffer.setMarks(marks);
    for (const entry of entries) this.#entries.set(entry.slot, entry);
    if (known !== undefined) this.#lastKnown = known;
  }
}

function nameOf(slot: number): string {
  return `${PREFIX}${slot}`;
}

function written(value: unknown): Uint8Array {
  return Buffer.from(JSON.stringify(value));
}

function parsed<T>(value: Uint8Array | undefined): T | undefined {
  return value === undefined ? undefined : (JSON.parse(Buffer.from(value).toString()) as T);
}
