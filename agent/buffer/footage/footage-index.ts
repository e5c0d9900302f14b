/**
 * Which units wait, in memory: so that no question about the queue reads footage from disk. A unit
 * costs about 150 bytes here; a buffer of 8 GiB of ordinary footage holds some ten thousand.
 */
import type { Epoch, FrameSequence } from "../../../protocol/frame.ts";
import type { UnitPlace } from "../footage-buffer.ts";

export interface UnitEntry extends UnitPlace {
  readonly camera: string;
  /** Rises by one with each epoch, and so orders them. */
  readonly epochStart: number;
  readonly bytes: number;
  readonly producerUs: number;
  readonly endUs: number;
}

/** Consecutive units of one camera and epoch. */
export interface UnitRange {
  readonly camera: string;
  readonly epoch: Epoch;
  readonly epochStart: number;
  readonly first: FrameSequence;
  readonly last: FrameSequence;
  readonly fromUs: number;
  readonly toUs: number;
}

/** The units of one camera and epoch, by rising sequence. */
interface Lane {
  readonly epoch: Epoch;
  readonly epochStart: number;
  readonly entries: UnitEntry[];
}

export class FootageIndex {
  readonly #lanes = new Map<string, Lane[]>();
  /** Also of epochs that have drained: a place in one still says what comes behind it. */
  readonly #epochStarts = new Map<Epoch, number>();
  #units = 0;
  #bytes = 0;

  get units(): number {
    return this.#units;
  }

  get bytes(): number {
    return this.#bytes;
  }

  add(entry: UnitEntry): void {
    this.#epochStarts.set(entry.epoch, entry.epochStart);
    const lanes = this.#lanes.get(entry.camera) ?? [];
    this.#lanes.set(entry.camera, lanes);
    let lane = lanes.find((one) => one.epoch === entry.epoch);
    if (lane === undefined) {
      lane = { epoch: entry.epoch, epochStart: entry.epochStart, entries: [] };
      lanes.push(lane);
      lanes.sort((a, b) => a.epochStart - b.epochStart);
    }
    lane.entries.splice(firstFrom(lane.entries, entry.sequence), 0, entry);
    this.#units++;
    this.#bytes += entry.bytes;
  }

  remove(entry: UnitEntry): void {
    const lanes = this.#lanes.get(entry.camera);
    const lane = lanes?.find((one) => one.epoch === entry.epoch);
    if (lanes === undefined || lane === undefined) return;
    const at = firstFrom(lane.entries, entry.sequence);
    if (lane.entries[at]?.sequence !== entry.sequence) return;
    lane.entries.splice(at, 1);
    this.#units--;
    this.#bytes -= entry.bytes;
    if (lane.entries.length === 0) lanes.splice(lanes.indexOf(lane), 1);
    if (lanes.length === 0) this.#lanes.delete(entry.camera);
  }

  /** The first unit behind `after`; a place in an epoch that was never seen counts as none. */
  next(camera: string, after: UnitPlace | undefined): UnitEntry | undefined {
    const lanes = this.#lanes.get(camera);
    const start = after === undefined ? undefined : this.#epochStarts.get(after.epoch);
    if (lanes === undefined || after === undefined || start === undefined) return lanes?.[0]?.entries[0];
    for (const lane of lanes) {
      if (lane.epochStart > start) return lane.entries[0];
      if (lane.epochStart < start) continue;
      const found = lane.entries[firstFrom(lane.entries, after.sequence + 1n)];
      if (found !== undefined) return found;
    }
    return undefined;
  }

  /** Those of one epoch from `first` to `last`. */
  between(camera: string, epoch: Epoch, first: FrameSequence, last: FrameSequence): UnitEntry[] {
    const entries = this.#lanes.get(camera)?.find((lane) => lane.epoch === epoch)?.entries ?? [];
    return entries.slice(firstFrom(entries, first), firstFrom(entries, last + 1n));
  }

  has(camera: string, epoch: Epoch, sequence: FrameSequence): boolean {
    return this.between(camera, epoch, sequence, sequence).length === 1;
  }

  /**
   * The oldest of all cameras: of the oldest epoch, and there by producer time, which says nothing of what came first
   * where a start of the agent did not know the time.
   */
  oldest(): UnitEntry | undefined {
    let oldest: UnitEntry | undefined;
    for (const [lane] of this.#lanes.values()) {
      const entry = lane?.entries[0];
      if (entry !== undefined && (oldest === undefined || isOlder(entry, oldest))) oldest = entry;
    }
    return oldest;
  }

  cameras(): string[] {
    return [...this.#lanes.keys()];
  }

  /** All that waits, in few words. */
  ranges(): UnitRange[] {
    const ranges: UnitRange[] = [];
    for (const lane of [...this.#lanes.values()].flat()) {
      let open: UnitEntry | undefined;
      let last: UnitEntry | undefined;
      const end = (): void => {
        if (open !== undefined && last !== undefined) ranges.push(rangeOf(open, last));
      };
      for (const entry of lane.entries) {
        if (last === undefined || entry.sequence !== last.sequence + 1n) {
          end();
          open = entry;
        }
        last = entry;
      }
      end();
    }
    return ranges;
  }
}

function isOlder(a: UnitEntry, b: UnitEntry): boolean {
  return a.epochStart === b.epochStart ? a.producerUs < b.producerUs : a.epochStart < b.epochStart;
}

function rangeOf(first: UnitEntry, last: UnitEntry): UnitRange {
  const { camera, epoch, epochStart } = first;
  return {
    camera,
    epoch,
    epochStart,
    first: first.sequence,
    last: last.sequence,
    fromUs: first.producerUs,
    toUs: last.endUs,
  };
}

/** Place of the first entry with at least this sequence; the length when there is none. */
function firstFrom(entries: readonly UnitEntry[], sequence: FrameSequence): number {
  let low = 0;
  let high = entries.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (entries[middle]!.sequence < sequence) low = middle + 1;
    else high = middle;
  }
  return low;
}
