/** The readings of one sensor within a span of time, in order, however they arrived. */
import type { Reading } from "./contract.ts";

const MAX_READINGS = 5_000;
/** A pause so much longer than usual is drawn as a gap, not as a line. */
const GAP_FACTOR = 6;
const MIN_GAP_S = 2;

export class ReadingSeries {
  #readings: Reading[] = [];

  /** What the gateway has on disk, and behind it what came live meanwhile. */
  setHistory(history: readonly Reading[]): void {
    const live = this.#readings;
    this.#readings = [...history].sort((a, b) => a.timeUs - b.timeUs);
    const lastUs = this.#readings.at(-1)?.timeUs ?? -Infinity;
    this.add(live.filter(({ timeUs }) => timeUs > lastUs));
  }

  add(readings: readonly Reading[]): void {
    for (const reading of readings) {
      let at = this.#readings.length;
      // Nearly always the last place; a late one finds its own.
      while (at > 0 && this.#readings[at - 1]!.timeUs > reading.timeUs) at--;
      this.#readings.splice(at, 0, reading);
    }
    const surplus = this.#readings.length - MAX_READINGS;
    if (surplus > 0) this.#readings.splice(0, surplus);
  }

  clear(): void {
    this.#readings = [];
  }

  /** Times in seconds and values of a field since `fromUs`, with a null in each gap. */
  points(field: string, fromUs: number): [times: number[], values: (number | null)[]] {
    const found = this.#readings.filter(
      ({ timeUs, values }) => timeUs >= fromUs && values[field] !== undefined,
    );
    const gapS = usualStepS(found) * GAP_FACTOR;
    const times: number[] = [];
    const values: (number | null)[] = [];
    for (const reading of found) {
      const second = reading.timeUs / 1e6;
      const last = times.at(-1);
      if (last !== undefined && second - last > Math.max(gapS, MIN_GAP_S)) {
        times.push(last + (second - last) / 2);
        values.push(null);
      }
      times.push(second);
      values.push(reading.values[field]!);
    }
    return [times, values];
  }
}

/** The median time between two readings. */
function usualStepS(readings: readonly Reading[]): number {
  const steps = readings.slice(1).map(({ timeUs }, i) => (timeUs - readings[i]!.timeUs) / 1e6);
  steps.sort((a, b) => a - b);
  return steps[Math.floor(steps.length / 2)] ?? 0;
}
