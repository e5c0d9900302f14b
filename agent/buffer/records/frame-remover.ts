/**
 * Takes frames out of the buffer: those that the gateway has, and those that are dropped
 * (frame-dropper.ts). One removal at a time, as each moves an epoch's head.
 */
import type { Epoch, FrameSequence } from "../../../protocol/frame.ts";
import { type ChainPart, scanPart } from "./chain-part.ts";
import { advance, type EpochLedger, type EpochState, noteGone } from "./epoch-ledger.ts";
import type { RecordChain } from "./record-chain.ts";

export interface FrameRemoverOptions {
  readonly chain: RecordChain;
  readonly ledger: EpochLedger;
  /** Heads have moved. */
  readonly onMoved: () => void;
}

export class FrameRemover {
  readonly #options: FrameRemoverOptions;
  #last: Promise<unknown> = Promise.resolve();

  constructor(options: FrameRemoverOptions) {
    this.#options = options;
  }

  /** As `RecordBuffer.ack`. */
  ack(epoch: Epoch, last: FrameSequence): Promise<void> {
    return this.exclusively(async () => {
      const state = this.#options.ledger.of(epoch);
      if (state === undefined) return;
      const to = last < state.last ? last : state.last;
      if (to > state.removedTo) await this.#remove(state, to);
    });
  }

  /** Runs while nothing else is being removed. */
  exclusively<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#last.then(work);
    this.#last = result.catch(() => {});
    return result;
  }

  /** Only the head moves; a part goes when its last frame has gone. */
  async #remove(state: EpochState, to: FrameSequence): Promise<void> {
    const part = this.#options.chain.parts.find(
      (each) => each.epochStart === state.start && each.first > 0n && each.first <= to && each.last > to,
    );
    if (part !== undefined) take(state, part, await this.#sum(part, state, to));
    this.removeTo(state, to);
  }

  /** As an acknowledgement, where `to` is the last frame of a part or has been counted. */
  removeTo(state: EpochState, to: FrameSequence): void {
    const { chain, onMoved } = this.#options;
    let isWhole = false;
    for (const part of chain.parts) {
      if (part.epochStart !== state.start || part.first === 0n) continue;
      // They stand in their order: behind this one nothing is removed.
      if (part.last > to) break;
      take(state, part, rest(part));
      isWhole = true;
    }
    advance(state, to);
    this.findOldest();
    onMoved();
    if (isWhole) chain.sweep();
  }

  /** Takes out a part before which others wait. */
  removeWithin(state: EpochState, part: ChainPart): void {
    take(state, part, rest(part));
    noteGone(state, part.first, part.last);
    state.told = [...state.told, [part.first, part.last]];
    this.findOldest();
    this.#options.onMoved();
  }

  /** What the part's frames behind the head and up to `to` hold. */
  async #sum(
    part: ChainPart,
    state: EpochState,
    to: FrameSequence,
  ): Promise<{ records: number; bytes: number }> {
    const { chain } = this.#options;
    const from = state.removedTo < part.first ? part.first : state.removedTo + 1n;
    for (let sequence = from; sequence <= to; sequence++) {
      if (part.sizes.has(sequence)) continue;
      // They were never handed out, or are holes.
      const { frames } = await chain.undisturbed(() => scanPart(chain.folderOf(part), part));
      for (const [each, size] of frames) if (each >= from) part.sizes.set(each, size);
      break;
    }
    const sum = { records: 0, bytes: 0 };
    for (const [sequence, { records, bytes }] of part.sizes) {
      if (sequence > to) continue;
      part.sizes.delete(sequence);
      if (sequence < from) continue;
      sum.records += records;
      sum.bytes += bytes;
    }
    return sum;
  }

  /** Since when the oldest frame waits, as far as is known without reading it. */
  findOldest(): void {
    const { chain, ledger } = this.#options;
    const first = ledger.firstBehind(undefined);
    ledger.oldestUs = undefined;
    if (first === undefined) return;
    const part = chain.parts.find((each) => each.epochStart === first.start && each.last >= first.sequence);
    if (part === undefined) return;
    ledger.oldestUs = part.sizes.get(first.sequence)?.storedUs ?? part.oldestUs;
  }

  /** Resolves when nothing is being removed. */
  async settled(): Promise<void> {
    await this.#last;
  }
}

/** Never more than is left: what is acknowledged may have been dropped while it was under way. */
function take(state: EpochState, part: ChainPart, taken: { records: number; bytes: number }): void {
  const left = rest(part);
  const records = Math.min(taken.records, left.records);
  const bytes = Math.min(taken.bytes, left.bytes);
  part.removedRecords += records;
  part.removedBytes += bytes;
  state.waitingRecords -= records;
  state.waitingBytes -= bytes;
}

function rest(part: ChainPart): { records: number; bytes: number } {
  return { records: part.records - part.removedRecords, bytes: part.bytes - part.removedBytes };
}
