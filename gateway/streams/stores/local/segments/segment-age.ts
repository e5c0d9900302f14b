/**
 * How old the records of a segment are at most, for retention.
 *
 * Arrival times never fall, so one moment of a clock that was far ahead gives that time to all that
 * comes behind it, for ever: by arrival alone nothing would be too old until that day. A segment's
 * creation is by the clock as it was, and nothing comes into a segment once the next one stands. So
 * where the newest arrival lies in the future, the creation of a later segment tells.
 */

export interface AgedSegment {
  /** By the wall clock; 0 where its head is damaged. */
  readonly createdMs: number;
  readonly newestMs: number;
}

/**
 * When the last record of segment `index` had arrived; undefined where nothing tells. A clock that was
 * far behind for a while makes nothing older: what was made in its time is passed over.
 * @param segments of one log, in order
 */
export function arrivedByMs(
  segments: readonly AgedSegment[],
  index: number,
  nowMs: number,
): number | undefined {
  const { newestMs } = segments[index]!;
  if (newestMs <= nowMs) return newestMs;
  let known = 0;
  for (let i = 0; i <= index; i++) {
    const { createdMs } = segments[i]!;
    if (createdMs <= nowMs) known = Math.max(known, createdMs);
  }
  for (let i = index + 1; i < segments.length; i++) {
    const { createdMs } = segments[i]!;
    if (createdMs > 0 && createdMs >= known && createdMs <= nowMs) return createdMs;
  }
  return undefined;
}
