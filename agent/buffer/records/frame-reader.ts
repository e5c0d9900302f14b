/**
 * Reads waiting frames back, oldest first, and checks each. What cannot be read is found out once,
 * told with its extent, and from then on passed over; it does not stand in the way of what is behind.
 */
import { decodeFrame, type Frame, type FrameSequence } from "../../../protocol/frame.ts";
import { findLevelDamage } from "../level/level-files.ts";
import { unlessShort } from "../level/shortage.ts";
import type { FramePlace } from "../record-buffer.ts";
import { type ChainPart, holesIn, PartReader, scanPart, sizeOf } from "./chain-part.ts";
import { type EpochLedger, noteGone } from "./epoch-ledger.ts";
import type { RecordChain } from "./record-chain.ts";

/** Where reading goes on: one for each lane of the uplink, one that looks, and one that is being left. */
const MAX_CURSORS = 4;
const MAX_SIZES = 50_000;
/** In so many parts from the head on sizes are kept: what is read far ahead of it is not removed soon. */
const SIZED_PARTS = 4;

interface Cursor {
  readonly part: ChainPart;
  readonly reader: PartReader;
  /** Read, and not yet asked for. */
  ahead: Frame | undefined;
  /** The frame that was read last, or skipped. */
  at: FrameSequence;
}

/** What a part lacks of what waits. */
interface Learnt {
  readonly holes: [FrameSequence, FrameSequence][];
  /** Sentences. */
  readonly damage: readonly string[];
  readonly records: number;
  readonly bytes: number;
}

export interface FrameReaderOptions {
  readonly chain: RecordChain;
  readonly ledger: EpochLedger;
  /** Told of frames that no part holds, which must not be. */
  readonly onMissing: (what: string) => Promise<void>;
  /** Told once of what a part lacks; resolves when the report is on disk. */
  readonly onDamage: (
    part: ChainPart,
    details: readonly string[],
    records: number,
    bytes: number,
  ) => Promise<void>;
}

export class FrameReader {
  readonly #options: FrameReaderOptions;
  #cursors: Cursor[] = [];
  /** Parts whose holes are in the ledger. */
  readonly #known = new WeakSet<ChainPart>();
  #last: Promise<unknown> = Promise.resolve();

  constructor(options: FrameReaderOptions) {
    this.#options = options;
  }

  /** As `RecordBuffer.read`. */
  read(after: FramePlace | undefined, maxBytes: number): Promise<Frame[]> {
    return this.#inTurn(() => this.#read(after, maxBytes));
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#last.then(work);
    this.#last = result.catch(() => {});
    return result;
  }

  async #read(after: FramePlace | undefined, maxBytes: number): Promise<Frame[]> {
    const { ledger } = this.#options;
    const frames: Frame[] = [];
    let bytes = 0;
    let behind = after;
    const sizedTo = this.#sizedTo();
    while (frames.length === 0 || bytes < maxBytes) {
      const place = ledger.firstBehind(behind);
      if (place === undefined) break;
      const cursor = await this.#cursorAt(place.start, place.sequence);
      // What was sought is gone, and the ledger knows.
      if (cursor === undefined) continue;
      const frame = cursor.ahead!;
      if (frames.length > 0 && bytes + frame.bytes.length > maxBytes) break;
      cursor.ahead = undefined;
      cursor.at = frame.sequence;
      frames.push(frame);
      bytes += frame.bytes.length;
      behind = frame;
      const { sizes, number } = cursor.part;
      if (number <= sizedTo && sizes.size < MAX_SIZES) sizes.set(frame.sequence, sizeOf(frame));
    }
    return frames;
  }

  /** The last part that is near the head. */
  #sizedTo(): number {
    const { chain, ledger } = this.#options;
    const head = ledger.firstBehind(undefined);
    const at = chain.parts.findIndex(
      ({ epochStart, last }) => head !== undefined && epochStart === head.start && last >= head.sequence,
    );
    return chain.parts[at + SIZED_PARTS - 1]?.number ?? Number.POSITIVE_INFINITY;
  }

  /** @returns with the frame in `ahead`; undefined when it is not there */
  async #cursorAt(start: number, sequence: FrameSequence): Promise<Cursor | undefined> {
    const { chain } = this.#options;
    let cursor: Cursor | undefined;
    for (const each of this.#cursors) {
      const { part, at, ahead } = each;
      const holds = part.epochStart === start && part.first <= sequence && sequence <= part.last;
      const isBefore = ahead === undefined ? at < sequence : ahead.sequence <= sequence;
      // The nearest: one farther back is where another lane goes on.
      if (holds && isBefore && at >= (cursor?.at ?? 0n)) cursor = each;
    }
    if (cursor === undefined) {
      const part = chain.parts.find(
        (each) => each.epochStart === start && each.first <= sequence && sequence <= each.last,
      );
      if (part === undefined) {
        await this.#passOver(start, sequence);
        return undefined;
      }
      cursor = await this.#open(part);
      if (cursor === undefined) return undefined;
    } else if (cursor !== this.#cursors.at(-1)) {
      // The one that is left for longest is closed first.
      this.#cursors = [...this.#cursors.filter((each) => each !== cursor), cursor];
    }
    while (cursor.ahead === undefined || cursor.ahead.sequence < sequence) {
      const next = await this.#next(cursor, sequence);
      if (next === undefined) break;
      cursor.ahead = next;
    }
    if (cursor.ahead?.sequence === sequence) return cursor;
    await this.#noticeDamage(cursor.part);
    // Should the frame be there after all, the cursor is in a wrong place.
    await this.#forget(cursor);
    return undefined;
  }

  /** @returns the next frame from `from` on that decodes */
  async #next(cursor: Cursor, from: FrameSequence): Promise<Frame | undefined> {
    for (;;) {
      const stored = await cursor.reader.next();
      if (stored === undefined) return undefined;
      if (stored.sequence < from) continue;
      try {
        return decodeFrame(stored.bytes);
      } catch {
        // It is missing from the sequence, as is one that was not there at all.
      }
    }
  }

  async #open(part: ChainPart): Promise<Cursor | undefined> {
    const { chain } = this.#options;
    if (part.sealed && !this.#known.has(part)) {
      if (part.holes || (await this.#levelDamage(part)).length > 0) await this.#noticeDamage(part);
      this.#known.add(part);
    }
    const reader = await chain.undisturbed(() =>
      PartReader.open(chain.folderOf(part)).catch((error: unknown) => unlessShort(error, undefined)),
    );
    if (reader === undefined) {
      await this.#noticeDamage(part);
      return undefined;
    }
    const cursor: Cursor = { part, reader, ahead: undefined, at: 0n };
    this.#cursors.push(cursor);
    if (this.#cursors.length > MAX_CURSORS) await this.#forget(this.#cursors[0]!);
    return cursor;
  }

  async #forget(cursor: Cursor): Promise<void> {
    this.#cursors = this.#cursors.filter((each) => each !== cursor);
    await cursor.reader.close();
  }

  /** Reads the whole part. */
  async #learnHoles(part: ChainPart): Promise<Learnt> {
    const { chain, ledger } = this.#options;
    const state = ledger.at(part.epochStart);
    const [promised, scan] = await chain.undisturbed(async () => {
      // Before it is read: what is stored meanwhile counts neither as a hole nor in place of one.
      const { records, removedRecords, bytes, removedBytes, last } = part;
      const head = state?.removedTo ?? 0n;
      const waits = { records: records - removedRecords, bytes: bytes - removedBytes, last, head };
      return [waits, await scanPart(chain.folderOf(part), part)] as const;
    });
    const { last, head } = promised;
    const holes = holesIn(scan.frames, head < part.first ? part.first : head + 1n, last);
    // What bad bytes made of frames that the gateway has is no loss.
    if (holes.length === 0) return { holes, damage: scan.damage, records: 0, bytes: 0 };
    if (state !== undefined) for (const [from, to] of holes) noteGone(state, from, to);
    let { records, bytes } = promised;
    for (const [sequence, size] of scan.frames) {
      if (sequence > last) break;
      if (sequence <= head) continue;
      records -= size.records;
      bytes -= size.bytes;
    }
    return { holes, damage: scan.damage, records: Math.max(0, records), bytes: Math.max(0, bytes) };
  }

  /** Tells what the part lacks and was not told of before, and makes the ledger agree. */
  async #noticeDamage(part: ChainPart): Promise<void> {
    const { chain, ledger, onDamage } = this.#options;
    const state = ledger.at(part.epochStart);
    const { holes, damage, records, bytes } = await this.#learnHoles(part);
    // It was dropped, or acknowledged, since its frame was asked for: nothing of it is missing.
    if (!chain.parts.includes(part) || state === undefined) return;
    // Which of its holes are new is not known, but whether records went.
    if (part.holes && records === 0) return;
    const details = [...(await this.#levelDamage(part)), ...damage];
    if (part.holes) details.push(`${part.name} lacks ${records} of ${part.records} records`);
    else
      for (const [from, to] of holes) details.push(`epoch ${part.epochStart} lacks frames ${from} to ${to}`);
    if (details.length === 0) return;
    part.holes = true;
    await onDamage(part, details, records, bytes);
  }

  /** What the part lacks is told of when it resolves: it is about to be dropped, or written again without that. */
  tellDamage(part: ChainPart): Promise<void> {
    return this.#inTurn(() => this.#noticeDamage(part));
  }

  #levelDamage(part: ChainPart): Promise<string[]> {
    const { chain } = this.#options;
    return chain.undisturbed(() => findLevelDamage(chain.folderOf(part)));
  }

  /** No part holds the frame: nothing up to the next one does. */
  async #passOver(start: number, sequence: FrameSequence): Promise<void> {
    const { chain, ledger, onMissing } = this.#options;
    const state = ledger.at(start)!;
    const next = chain.parts.find((part) => part.epochStart === start && part.first > sequence);
    const to = next === undefined ? state.last : next.first - 1n;
    noteGone(state, sequence, to);
    await onMissing(`epoch ${start} lacks frames ${sequence} to ${to}`);
  }

  /** The part was written again, with fewer frames. */
  refresh(part: ChainPart): Promise<void> {
    return this.#inTurn(async () => {
      this.#known.delete(part);
      for (const cursor of this.#cursors.filter((each) => each.part === part)) await this.#forget(cursor);
      // They may have read on in the old one, and what they read was counted out with it.
      part.sizes.clear();
    });
  }

  async close(): Promise<void> {
    await this.#last;
    for (const cursor of [...this.#cursors]) await this.#forget(cursor);
  }
}
