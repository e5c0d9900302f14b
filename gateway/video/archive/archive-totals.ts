/** What a camera's index holds, counted row by row. Times are µs since 1970 UTC. */
import { type FragmentRow, startUsOf } from "./fragment-index.ts";

export class ArchiveTotals {
  /** Without the damaged. */
  rows = 0;
  bytes = 0;
  quarantined = 0;
  damaged = 0;
  /** Of all rows there ever were. */
  longestUs = 0;
  oldestUs: number | undefined;
  /** The end of the newest. */
  newestUs: number | undefined;

  add(row: FragmentRow): void {
    const startUs = startUsOf(row);
    this.#count(row, 1);
    this.longestUs = Math.max(this.longestUs, row.durationUs);
    this.oldestUs = Math.min(this.oldestUs ?? startUs, startUs);
    this.newestUs = Math.max(this.newestUs ?? 0, startUs + row.durationUs);
  }

  /** Behind it the oldest is to be told anew. */
  subtract(row: FragmentRow): void {
    this.#count(row, -1);
  }

  #count({ state, bytes }: FragmentRow, times: 1 | -1): void {
    this.bytes += times * bytes;
    if (state === "damaged") this.damaged += times;
    else this.rows += times;
    if (state === "quarantined") this.quarantined += times;
  }

  /** @param row undefined when there is none */
  setOldest(row: FragmentRow | undefined): void {
    this.oldestUs = row && startUsOf(row);
    if (row === undefined) this.newestUs = undefined;
  }
}
