/**
 * Drops frames to make room, or because they are too old: the oldest ones of the streams that matter
 * least. What goes is first reported, by stream, on disk: a crash in between leaves a report of a gap
 * that is none.
 *
 * A part of which all frames go is removed whole. One that also holds frames of a stream that matters
 * more is written again with those alone, so that the disk gets its space back.
 */
import type { Frame } from "../../../protocol/frame.ts";
import { forEachRecord } from "../../../protocol/record-batch.ts";
import { GAPS_STREAM, type GapRecord } from "../../../protocol/topics.ts";
import type { BufferRecord } from "../record-buffer.ts";
import { type ChainPart, scanPart } from "./chain-part.ts";
import { type EpochLedger, type EpochState, isDone } from "./epoch-ledger.ts";
import type { FrameReader } from "./frame-reader.ts";
import type { FrameRemover } from "./frame-remover.ts";
import type { RecordChain } from "./record-chain.ts";

/** Reports of gaps that go with a dropped part are told anew; more than so many become one a stream. */
const MAX_CARRIED = 200;

/** 2020: what was stored "earlier" was stored before the clock was set. */
const CLOCK_SET_US = 1_577_836_800_000_000;

/** What was in frames that are to be dropped, by their stream. */
export interface Dropped {
  readonly stream: string;
  readonly records: number;
  readonly fromUs: number;
  readonly toUs: number;
  readonly reason: string;
}

export interface FrameDropperOptions {
  readonly chain: RecordChain;
  readonly ledger: EpochLedger;
  readonly reader: FrameReader;
  readonly remover: FrameRemover;
  /** Streams of a higher number go later; 0 for those that are not named. */
  readonly priorities: Readonly<Record<string, number>>;
  /** Resolves when it is on disk. */
  readonly report: (gaps: readonly Dropped[], carried: readonly BufferRecord[]) => Promise<void>;
  /** Makes durable that a range is gone which no part holds any more. */
  readonly persistGone: () => Promise<void>;
}

/** What waits in a part. */
interface Contents {
  readonly streams: Map<string, Dropped>;
  readonly gaps: BufferRecord[];
}

export class FrameDropper {
  readonly #options: FrameDropperOptions;
  /** What was found in parts that were looked through before, so that they need not be read again. */
  readonly #seen = new WeakMap<ChainPart, ReadonlySet<string>>();

  constructor(options: FrameDropperOptions) {
    this.#options = options;
  }

  /** @returns how many records went; undefined when nothing waits but reports of what went before */
  drop(reason: string): Promise<number | undefined> {
    return this.#options.remover.exclusively(async () => {
      const levels = new Set([0, ...Object.values(this.#options.priorities)]);
      for (const level of [...levels].sort((a, b) => a - b)) {
        for (const part of this.#waiting()) {
          const streams = await this.#streamsOf(part);
          const goes = (stream: string): boolean =>
            stream !== GAPS_STREAM && this.#priorityOf(stream) <= level;
          // All that waits in it is acknowledged already.
          if (streams.size === 0) return this.#dropWhole(part, reason);
          if (![...streams].some(goes)) continue;
          const stays = [...streams].some((stream) => stream !== GAPS_STREAM && !goes(stream));
          return stays ? this.#thin(part, goes, reason) : this.#dropWhole(part, reason);
        }
      }
      // Reports alone: those of several parts come together in one, and that one stays.
      const [oldest, ...others] = this.#waiting();
      return oldest === undefined || others.length === 0 ? undefined : this.#dropWhole(oldest, reason);
    });
  }

  /**
   * Drops the oldest part when its newest frame, or that of a part behind it, was stored before `beforeUs`.
   * @returns how many records went; undefined when it may stay
   */
  dropOlder(beforeUs: number, reason: string): Promise<number | undefined> {
    return this.#options.remover.exclusively(async () => {
      const waiting = this.#waiting();
      // Times of a clock that was not set are no age; but what was stored before something too old is so, too.
      const dated = waiting.find(({ newestUs }) => newestUs >= CLOCK_SET_US);
      if (dated === undefined || dated.newestUs >= beforeUs) return undefined;
      return this.#dropWhole(waiting[0]!, reason);
    });
  }

  #priorityOf(stream: string): number {
    const { priorities } = this.#options;
    return Object.hasOwn(priorities, stream) ? priorities[stream]! : 0;
  }

  /** Parts with frames behind the head, oldest first. */
  #waiting(): ChainPart[] {
    const { chain, ledger } = this.#options;
    return chain.parts.filter((part) => {
      const { first, last, epochStart, records, removedRecords } = part;
      // One that was dropped before others is still there until its folder has gone.
      const wasDropped = records > 0 && removedRecords >= records;
      return first > 0n && !wasDropped && last > (ledger.at(epochStart)?.removedTo ?? 0n);
    });
  }

  async #streamsOf(part: ChainPart): Promise<ReadonlySet<string>> {
    const known = part.sealed ? this.#seen.get(part) : undefined;
    if (known !== undefined) return known;
    const { streams } = await this.#contents(part, () => true);
    const names = new Set(streams.keys());
    this.#seen.set(part, names);
    return names;
  }

  async #contents(part: ChainPart, wanted: (stream: string) => boolean, reason = ""): Promise<Contents> {
    const { chain, reader } = this.#options;
    const state = this.#stateOf(part);
    const contents: Contents = { streams: new Map(), gaps: [] };
    const { found } = await chain.undisturbed(() =>
      scanPart(chain.folderOf(part), part, (frame) => {
        const { sequence, stream, storedUs, recordCount } = frame;
        if (isDone(state, stream, sequence) || !wanted(stream)) return;
        const so = contents.streams.get(stream) ?? {
          stream,
          records: 0,
          fromUs: storedUs,
          toUs: storedUs,
          reason,
        };
        contents.streams.set(stream, { ...so, records: so.records + recordCount, toUs: storedUs });
        if (stream === GAPS_STREAM) collect(frame, contents.gaps);
      }),
    );
    // What cannot be read goes too, and is in no stream's count.
    if (part.sealed && found.records < part.records) await reader.tellDamage(part);
    return contents;
  }

  #stateOf(part: ChainPart): EpochState {
    return this.#options.ledger.at(part.epochStart)!;
  }

  async #dropWhole(part: ChainPart, reason: string): Promise<number> {
    const { chain, remover, report } = this.#options;
    if (part === chain.parts.at(-1)) await chain.rotate();
    const { streams, gaps } = await this.#contents(part, () => true, reason);
    // Their contents are told again, so that they themselves are no loss.
    streams.delete(GAPS_STREAM);
    const { merged, carried } = mergeGaps([...streams.values()], gaps, reason);
    await report(merged, carried);
    const state = this.#stateOf(part);
    const isOldest = this.#waiting()[0] === part;
    if (isOldest) remover.removeTo(state, part.last);
    else {
      remover.removeWithin(state, part);
      await this.#options.persistGone();
      chain.discard(part);
    }
    return recordsOf(streams);
  }

  /** Writes the part again without the streams that go. */
  async #thin(part: ChainPart, goes: (stream: string) => boolean, reason: string): Promise<number> {
    const { chain, reader, report } = this.#options;
    if (part === chain.parts.at(-1)) await chain.rotate();
    const { streams } = await this.#contents(part, goes, reason);
    await report([...streams.values()], []);
    const state = this.#stateOf(part);
    const before = { records: part.records - part.removedRecords, bytes: part.bytes - part.removedBytes };
    await chain.thin(part, ({ sequence, stream }) => !isDone(state, stream, sequence) && !goes(stream));
    await reader.refresh(part);
    this.#seen.delete(part);
    state.waitingRecords -= before.records - part.records;
    state.waitingBytes -= before.bytes - part.bytes;
    return recordsOf(streams);
  }
}

function recordsOf(streams: ReadonlyMap<string, Dropped>): number {
  return [...streams.values()].reduce((sum, { records }) => sum + records, 0);
}

function collect(frame: Frame, gaps: BufferRecord[]): void {
  for (const run of frame.runs) {
    forEachRecord(run, (payload, timeUs) => {
      gaps.push({ stream: GAPS_STREAM, partitionKey: run.key, timeUs, payload: Buffer.from(payload) });
    });
  }
}

/**
 * Earlier reports of drops become one with the new ones of their stream; others are carried as they are.
 * So is what a source was told to write to their stream, as far as it goes; the rest of it is dropped.
 */
function mergeGaps(
  dropped: readonly Dropped[],
  gaps: readonly BufferRecord[],
  dropReason: string,
): { merged: Dropped[]; carried: BufferRecord[] } {
  const merged = new Map(dropped.map((each) => [`${each.stream}/${each.reason}`, each]));
  const carried: BufferRecord[] = [];
  for (const gap of gaps) {
    const { stream, reason, fromUs, toUs, records } = gapIn(gap) ?? {
      stream: GAPS_STREAM,
      reason: dropReason,
      fromUs: gap.timeUs,
      toUs: gap.timeUs,
      records: 1,
    };
    const key = `${stream}/${reason}`;
    const same = merged.get(key);
    if (same === undefined && carried.length < MAX_CARRIED) {
      carried.push(gap);
      continue;
    }
    const so = same ?? { stream, reason, records: 0, fromUs, toUs };
    merged.set(key, {
      ...so,
      records: so.records + records,
      fromUs: Math.min(so.fromUs, fromUs),
      toUs: Math.max(so.toUs, toUs),
    });
  }
  return { merged: [...merged.values()], carried };
}

/** @returns undefined for what is no report of a gap */
function gapIn({ payload }: BufferRecord): Dropped | undefined {
  let gap: Partial<GapRecord> | null;
  try {
    gap = JSON.parse(Buffer.from(payload).toString()) as Partial<GapRecord> | null;
  } catch {
    return undefined;
  }
  const { stream, reason, fromUs, toUs, records = 0 } = gap ?? {};
  if (typeof stream !== "string" || typeof reason !== "string") return undefined;
  if (![fromUs, toUs, records].every(Number.isSafeInteger)) return undefined;
  return { stream, reason, fromUs: fromUs!, toUs: toUs!, records };
}
