/** The epochs whose frames may still wait, and what is known of them without asking LevelDB. */
import type { Epoch, FrameSequence } from "../../protocol/frame.ts";
import type { FramePlace } from "./record-buffer.ts";
import { type EpochState, isDrained, newEpochState, waitingBytes, waitingRecords } from "./record-keys.ts";

export class EpochLedger {
  /** Oldest first; the last is the current one. */
  readonly epochs: EpochState[];
  readonly current: EpochState;
  /** When the oldest waiting frame was stored, µs; undefined when none waits. */
  oldestUs: number | undefined;

  constructor(earlier: readonly EpochState[], current: EpochState) {
    this.current = current;
    this.epochs = [...earlier, current];
  }

  at(start: number): EpochState {
    return this.epochs.find((epoch) => epoch.start === start) ?? newEpochState(start, 0n);
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
    for (const epoch of this.epochs) {
      if (epoch.start < afterStart) continue;
      const behind = epoch.start === afterStart && after !== undefined ? after.sequence : 0n;
      const done = behind > epoch.removedTo ? behind : epoch.removedTo;
      if (done < epoch.last) return { start: epoch.start, sequence: done + 1n };
    }
    return undefined;
  }

  /** Earlier epochs of which no frame is left. */
  drained(): EpochState[] {
    return this.epochs.filter((epoch) => epoch !== this.current && isDrained(epoch));
  }

  get waitingRecords(): number {
    return this.epochs.reduce((sum, epoch) => sum + waitingRecords(epoch), 0);
  }

  get waitingBytes(): number {
    return this.epochs.reduce((sum, epoch) => sum + waitingBytes(epoch), 0);
  }
}
