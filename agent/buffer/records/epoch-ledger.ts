/** The epochs whose frames may still wait, and what is known of them without asking the disk. */
import type { Epoch, FrameSequence } from "../../../protocol/frame.ts";
import type { FramePlace } from "../record-buffer.ts";

export interface EpochState {
  readonly start: number;
  readonly epoch: Epoch;
  /** The last frame on disk; 0n before the first. */
  last: FrameSequence;
  /** Frames up to this one were acknowledged or dropped. */
  removedTo: FrameSequence;
  waitingRecords: number;
  waitingBytes: number;
  /** Ranges of which no frame is left though nobody acknowledged it; from low to high. */
  gone: [FrameSequence, FrameSequence][];
  /** Of these, what was reported and is in no part: the sidecar keeps it. */
  told: readonly (readonly [FrameSequence, FrameSequence])[];
  /** Commits under way, whose frames are not yet in `last`. */
  writing: number;
  /** Of each stream, up to which frame all are acknowledged, though others before it may wait. */
  readonly ahead: Map<string, FrameSequence>;
}

export function newEpochState(start: number, epoch: Epoch): EpochState {
  const counts = { last: 0n, removedTo: 0n, waitingRecords: 0, waitingBytes: 0, writing: 0 };
  return { start, epoch, ...counts, gone: [], told: [], ahead: new Map() };
}

export const isDrained = (state: EpochState): boolean => state.removedTo >= state.last;

/** Whether a frame was acknowledged, or dropped. */
export function isDone(state: EpochState, stream: string, sequence: FrameSequence): boolean {
  return sequence <= state.removedTo || sequence <= (state.ahead.get(stream) ?? 0n);
}

/** Frames `from` to `to` will never be read. Known ones may be told again. */
export function noteGone(state: EpochState, from: FrameSequence, to: FrameSequence): void {
  state.gone = [...state.gone.filter(([low, high]) => low < from || high > to), [from, to]];
  state.gone.sort(([a], [b]) => (a < b ? -1 : 1));
  advance(state, state.removedTo);
}

/** Moves the head to `to`, and over what is gone behind it. */
export function advance(state: EpochState, to: FrameSequence): void {
  if (to > state.removedTo) state.removedTo = to;
  state.gone = state.gone.filter(([from, end]) => {
    if (from > state.removedTo + 1n) return true;
    if (end > state.removedTo) state.removedTo = end;
    return false;
  });
}

export class EpochLedger {
  /** Oldest first; the last is the current one, or the one that is about to be. */
  readonly epochs: EpochState[];
  #current: EpochState;
  /** When the oldest waiting frame was stored, µs; undefined when none waits. */
  oldestUs: number | undefined;

  constructor(earlier: readonly EpochState[], current: EpochState) {
    this.#current = current;
    this.epochs = [...earlier, current];
  }

  /** What is stored now is of this one. */
  get current(): EpochState {
    return this.#current;
  }

  /** The sidecar shall name it before anything is stored in it. */
  announce(next: EpochState): void {
    this.epochs.push(next);
  }

  /** What is stored from now on is of `next`, which was announced. */
  enter(next: EpochState): void {
    this.#current = next;
  }

  at(start: number): EpochState | undefined {
    return this.epochs.find((state) => state.start === start);
  }

  of(epoch: Epoch): EpochState | undefined {
    return this.epochs.find((state) => state.epoch === epoch);
  }

  forget(state: EpochState): void {
    this.epochs.splice(this.epochs.indexOf(state), 1);
  }

  /** Where the next frame behind `after` should be; undefined when none waits there. */
  firstBehind(after: FramePlace | undefined): { start: number; sequence: FrameSequence } | undefined {
    const afterStart = after === undefined ? 0 : (this.of(after.epoch)?.start ?? 0);
    for (const state of this.epochs) {
      if (state.start < afterStart) continue;
      const behind = state.start === afterStart && after !== undefined ? after.sequence : 0n;
      let done = behind > state.removedTo ? behind : state.removedTo;
      for (const [from, to] of state.gone) if (from <= done + 1n && to > done) done = to;
      if (done < state.last) return { start: state.start, sequence: done + 1n };
    }
    return undefined;
  }

  /** Earlier epochs of which no frame is left. */
  drained(): EpochState[] {
    return this.epochs.filter(
      (state) => state.start < this.#current.start && state.writing === 0 && isDrained(state),
    );
  }

  /** Those of which frames may wait. */
  get open(): number {
    return this.epochs.filter((state) => state === this.#current || !isDrained(state)).length;
  }

  get waitingRecords(): number {
    return this.epochs.reduce((sum, state) => sum + state.waitingRecords, 0);
  }

  get waitingBytes(): number {
    return this.epochs.reduce((sum, state) => sum + state.waitingBytes, 0);
  }
}
