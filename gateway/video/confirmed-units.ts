/** The newest units of one session that are on disk: what its sender waits for, however long the archive's own list is. */
import type { PersistedRange } from "../../protocol/footage.ts";
import type { Epoch, FrameSequence } from "../../protocol/frame.ts";

/** More than an agent has in flight. */
const MAX_RANGES = 64;

export class ConfirmedUnits {
  readonly #ranges: PersistedRange[] = [];

  add(epoch: Epoch, sequence: FrameSequence): void {
    const last = this.#ranges.at(-1);
    if (last !== undefined && last.epoch === epoch && last.last + 1n === sequence) {
      this.#ranges[this.#ranges.length - 1] = { ...last, last: sequence };
    } else if (this.#ranges.push({ epoch, first: sequence, last: sequence }) > MAX_RANGES) {
      this.#ranges.shift();
    }
  }

  /** First what this session brought: the archive's list is cut where it grows too long for an answer. */
  aheadOf(listed: readonly PersistedRange[]): PersistedRange[] {
    const unlisted = this.#ranges.filter(
      (own) =>
        !listed.some((one) => one.epoch === own.epoch && one.first <= own.first && own.last <= one.last),
    );
    return [...unlisted, ...listed];
  }
}
