/**
 * Reads waiting frames back and checks each. A frame that does not decode is set aside, and a hole
 * is told once; neither stands in the way of the frames behind.
 */
import { decodeFrame, type Frame, type FrameSequence } from "../../protocol/frame.ts";
import { describeError } from "../../runtime/errors.ts";
import type { EpochLedger } from "./epoch-ledger.ts";
import { type Database, writeSynced } from "./leveldb.ts";
import type { FramePlace } from "./record-buffer.ts";
import { asideKey, frameKey, placeInKey, within } from "./record-keys.ts";

export interface FrameReaderOptions {
  readonly database: Database;
  readonly ledger: EpochLedger;
  /** Told of each frame that is set aside. */
  readonly onSetAside: () => void;
  /** Told of what is lost. */
  readonly onDamage: (reason: string) => void;
  /** LevelDB itself could not read. */
  readonly onUnreadable: (error: Error) => Promise<never>;
}

export class FrameReader {
  readonly #options: FrameReaderOptions;
  readonly #database: Database;
  readonly #ledger: EpochLedger;
  /** Sizes of frames that were handed out, so that their removal need not read them again. */
  readonly #handedOut = new Map<string, { bytes: number; records: number }>();

  constructor(options: FrameReaderOptions) {
    this.#options = options;
    this.#database = options.database;
    this.#ledger = options.ledger;
  }

  /** As `RecordBuffer.read`. */
  async read(after: FramePlace | undefined, maxBytes: number): Promise<Frame[]> {
    const frames: Frame[] = [];
    let bytes = 0;
    let expected = this.#ledger.firstBehind(after);
    if (expected === undefined) return frames;
    try {
      const from = frameKey(expected.start, expected.sequence);
      for await (const [key, value] of this.#database.iterator({ gte: from, lt: within("f/").lt })) {
        const place = placeInKey(key);
        const { removedTo } = this.#ledger.at(place.start);
        // Removed while the iterator's snapshot still shows it.
        if (place.sequence <= removedTo) continue;
        const follows = place.start === expected.start && expected.sequence > removedTo;
        const start = follows ? expected.sequence : removedTo + 1n;
        if (place.sequence > start) await this.#noticeHole(place.start, start, place.sequence);
        expected = { start: place.start, sequence: place.sequence + 1n };
        const frame = await this.decode(key, value);
        if (frame === undefined) continue;
        if (frames.length > 0 && bytes + value.length > maxBytes) break;
        bytes += value.length;
        frames.push(frame);
        this.#handedOut.set(key, { bytes: value.length, records: frame.recordCount });
        if (bytes >= maxBytes) break;
      }
    } catch (error) {
      const { code } = error as { code?: string };
      if (code !== "LEVEL_CORRUPTION" && code !== "LEVEL_IO_ERROR") throw error;
      await this.#options.onUnreadable(error as Error);
    }
    return frames;
  }

  /** @returns undefined when it had to be set aside */
  async decode(key: string, value: Buffer): Promise<Frame | undefined> {
    try {
      return decodeFrame(value);
    } catch (error) {
      const { start, sequence } = placeInKey(key);
      await writeSynced(this.#database, [
        { type: "put", key: asideKey(start, sequence), value },
        { type: "del", key },
      ]);
      this.#options.onSetAside();
      this.#options.onDamage(`frame ${sequence} of epoch ${start} is set aside: ${describeError(error)}`);
      return undefined;
    }
  }

  /** Frames `from` up to `next` are not there, though nobody removed them. Says so once. */
  async #noticeHole(start: number, from: FrameSequence, next: FrameSequence): Promise<void> {
    for (let sequence = from; sequence < next; sequence++) {
      const aside = (await this.#database.get(asideKey(start, sequence))) as Buffer | undefined;
      if (aside?.length === 0) return;
      if (aside !== undefined) continue;
      await writeSynced(this.#database, [
        { type: "put", key: asideKey(start, sequence), value: Buffer.alloc(0) },
      ]);
      this.#options.onDamage(`epoch ${start} lacks frames ${sequence} to ${next - 1n}`);
      return;
    }
  }

  /** What the removal of a frame gives back; costs a read only for frames that were not handed out. */
  async sizeOf(key: string): Promise<{ bytes: number; records: number }> {
    const known = this.#handedOut.get(key);
    if (known !== undefined) return known;
    const value = (await this.#database.get(key)) as Buffer | undefined;
    if (value === undefined) return { bytes: 0, records: 0 };
    try {
      return { bytes: value.length, records: decodeFrame(value).recordCount };
    } catch {
      return { bytes: value.length, records: 0 };
    }
  }

  /** The frame is gone. */
  forget(key: string): void {
    this.#handedOut.delete(key);
  }
}
