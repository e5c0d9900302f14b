/**
 * One small LevelDB of the record chain: at most a few MiB of frames of one epoch, written once from
 * front to back, then read once, then removed whole. Its memtable is larger than it ever gets, so all
 * that it holds stands in its one log, and no byte is written twice.
 *
 * A part that is still written to is a folder `<number>`. A closed one says in its name what it holds,
 * so that thousands of them are known without opening any:
 *
 *   <number>.<epoch start>.<epoch>.<first>.<last>.<records>.<bytes>.<oldest µs>.<newest µs>[.holes]
 *
 * `holes`: not every frame from first to last is there, and that was reported.
 */
import { open, readdir } from "node:fs/promises";
import { join } from "node:path";
import {
  decodeFrame,
  type Epoch,
  epochName,
  type Frame,
  type FrameSequence,
} from "../../../protocol/frame.ts";
import { LogReader } from "../level/log-reader.ts";
import { unlessShort } from "../level/shortage.ts";
import { framePrefix, markPrefix, placeInKey } from "./record-keys.ts";
import { decodeWriteBatch } from "./write-batch.ts";

export interface ChainPart {
  /** Rises along the chain; never used twice. */
  readonly number: number;
  /** Its folder's name now. */
  name: string;
  sealed: boolean;
  holes: boolean;
  epochStart: number;
  epoch: Epoch;
  /** 0n while it holds no frame. */
  first: FrameSequence;
  last: FrameSequence;
  records: number;
  bytes: number;
  oldestUs: number;
  newestUs: number;
  /** Of these, what was acknowledged or dropped. */
  removedRecords: number;
  removedBytes: number;
  /** Sizes of frames that were read, so that their removal need not read them again. */
  readonly sizes: Map<FrameSequence, FrameSize>;
}

export interface FrameSize {
  readonly bytes: number;
  readonly records: number;
  readonly storedUs: number;
}

export function sizeOf(frame: Frame): FrameSize {
  return { bytes: frame.bytes.length, records: frame.recordCount, storedUs: frame.storedUs };
}

export function newPart(number: number, epochStart: number, epoch: Epoch): ChainPart {
  return {
    number,
    name: partName(number),
    sealed: false,
    holes: false,
    epochStart,
    epoch,
    first: 0n,
    last: 0n,
    records: 0,
    bytes: 0,
    oldestUs: 0,
    newestUs: 0,
    removedRecords: 0,
    removedBytes: 0,
    sizes: new Map(),
  };
}

/** Of a part that is written to. */
export const partName = (number: number): string => String(number).padStart(8, "0");

export function sealedName(part: ChainPart): string {
  const { number, epochStart, epoch, first, last, records, bytes, oldestUs, newestUs, holes } = part;
  const fields = [
    partName(number),
    epochStart,
    epochName(epoch),
    first,
    last,
    records,
    bytes,
    oldestUs,
    newestUs,
  ];
  return holes ? `${fields.join(".")}.holes` : fields.join(".");
}

const NAME =
  /^(\d{8,15})(?:\.(\d{1,10})\.([0-9a-f]{16})\.(\d{1,20})\.(\d{1,20})\.(\d{1,15})\.(\d{1,15})\.(\d{1,16})\.(\d{1,16})(\.holes)?)?$/;

/** @returns undefined for what is no part of a chain */
export function parsePartName(name: string): ChainPart | undefined {
  const fields = NAME.exec(name);
  if (fields === null) return undefined;
  const [, number, start, epoch, first, last, records, bytes, oldestUs, newestUs, holes] = fields;
  const part = newPart(Number(number), Number(start ?? 0), BigInt(`0x${epoch ?? "0"}`));
  part.name = name;
  if (start === undefined) return part;
  part.sealed = true;
  part.holes = holes !== undefined;
  part.first = BigInt(first!);
  part.last = BigInt(last!);
  part.records = Number(records);
  part.bytes = Number(bytes);
  part.oldestUs = Number(oldestUs);
  part.newestUs = Number(newestUs);
  if (part.first === 0n || part.last < part.first) return undefined;
  return part;
}

/** A frame as it stands in a log. */
export interface StoredFrame {
  readonly sequence: FrameSequence;
  readonly bytes: Buffer;
}

/** Reads the entries of a part in the order in which they were written, also while it is written to. */
export class PartReader {
  readonly #log: LogReader;
  /** Entries of the batch that is being handed out. */
  readonly #ready: StoredFrame[] = [];
  readonly #onMark: ((source: string, value: Buffer) => void) | undefined;
  #badBatches = 0;

  private constructor(log: LogReader, onMark: ((source: string, value: Buffer) => void) | undefined) {
    this.#log = log;
    this.#onMark = onMark;
  }

  /** @returns undefined when its log is missing */
  static async open(
    folder: string,
    onMark?: (source: string, value: Buffer) => void,
  ): Promise<PartReader | undefined> {
    const names = await readdir(folder).catch((error: unknown) => unlessShort(error, []));
    // The one that LevelDB made at the opening; a part is never opened a second time.
    const log = names.filter((name) => /^\d+\.log$/.test(name)).sort()[0];
    if (log === undefined) return undefined;
    return new PartReader(new LogReader(await open(join(folder, log), "r")), onMark);
  }

  get damaged(): number {
    return this.#log.damaged + this.#badBatches;
  }

  get firstDamageAt(): number | undefined {
    return this.#log.firstDamageAt;
  }

  async next(): Promise<StoredFrame | undefined> {
    while (this.#ready.length === 0) {
      const record = await this.#log.next();
      if (record === undefined) return undefined;
      const entries = decodeWriteBatch(record);
      if (entries === undefined) this.#badBatches++;
      for (const { key, value } of entries ?? []) {
        if (value === undefined) continue;
        const place = key.startsWith(framePrefix) ? placeInKey(key) : undefined;
        if (place !== undefined) this.#ready.push({ sequence: place.sequence, bytes: value });
        else if (key.startsWith(markPrefix)) this.#onMark?.(key.slice(markPrefix.length), value);
      }
    }
    return this.#ready.shift();
  }

  close(): Promise<void> {
    return this.#log.close();
  }
}

/** What a part holds, by what its frames say themselves. */
export interface PartScan {
  /** Without frames, `first` is 0n. */
  readonly found: ChainPart;
  readonly frames: Map<FrameSequence, FrameSize>;
  /** The last value of each source's mark; empty ones remove it. */
  readonly marks: Map<string, Buffer>;
  /** Sentences; empty when nothing was found wrong. */
  readonly damage: string[];
}

/**
 * Reads all of a part. Never throws for what it reads, but when nothing can be opened now.
 * @param visit is given each frame that is good
 */
export async function scanPart(
  folder: string,
  part: ChainPart,
  visit?: (frame: Frame) => void,
): Promise<PartScan> {
  const found = newPart(part.number, part.epochStart, part.epoch);
  const scan: PartScan = { found, frames: new Map(), marks: new Map(), damage: [] };
  const reader = await PartReader.open(folder, (source, value) => {
    scan.marks.set(source, Buffer.from(value));
  }).catch((error: Error) => {
    scan.damage.push(`${part.name}: ${error.message}`);
    return unlessShort(error, undefined);
  });
  if (reader === undefined) {
    scan.damage.push(`${part.name}: its log is missing`);
    return scan;
  }
  try {
    for (let stored = await reader.next(); stored !== undefined; stored = await reader.next()) {
      try {
        const frame = decodeFrame(stored.bytes);
        if (found.first === 0n) {
          Object.assign(found, { epochStart: frame.epochStart, epoch: frame.epoch, first: frame.sequence });
          found.oldestUs = frame.storedUs;
        }
        if (frame.epoch !== found.epoch || frame.sequence <= found.last) throw new Error("out of its place");
        found.last = frame.sequence;
        found.records += frame.recordCount;
        found.bytes += stored.bytes.length;
        found.newestUs = frame.storedUs;
        scan.frames.set(frame.sequence, sizeOf(frame));
        visit?.(frame);
      } catch (error) {
        scan.damage.push(`${part.name}: frame ${stored.sequence}: ${(error as Error).message}`);
      }
    }
    if (reader.damaged > 0) {
      scan.damage.push(
        `${part.name}: its log is damaged in ${reader.damaged} places, first at byte ${reader.firstDamageAt}`,
      );
    }
  } finally {
    await reader.close();
  }
  return scan;
}

/** The ranges from `from` to `to` of which no frame is in `frames`. */
export function holesIn(
  frames: ReadonlyMap<FrameSequence, FrameSize>,
  from: FrameSequence,
  to: FrameSequence,
): [FrameSequence, FrameSequence][] {
  const holes: [FrameSequence, FrameSequence][] = [];
  let expected = from;
  for (const sequence of frames.keys()) {
    if (sequence > to) break;
    if (sequence > expected) holes.push([expected, sequence - 1n]);
    if (sequence >= expected) expected = sequence + 1n;
  }
  if (expected <= to) holes.push([expected, to]);
  return holes;
}
