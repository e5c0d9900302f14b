/**
 * Times that are written while the time of day is unknown. They lie before 2020, where no true one
 * does, and each says of itself in which boot it was taken:
 *
 *   time = slot of the boot · 100 days + µs since that boot
 *
 * So a record can be brought to UTC once its boot's moment is known, whatever frame it is in.
 */

/** 2020-01-01. No program of ours is older, so no true time is before. */
export const CLOCK_SET_US = 1_577_836_800_000_000;
/** 100 days: a boot that stays without the time of day for longer writes the last moment of them. */
const SLOT_US = 100 * 86_400_000_000;
/** Slot 0 is for what is written before a slot is known. */
export const FIRST_SLOT = 1;
export const LAST_SLOT = Math.floor(CLOCK_SET_US / SLOT_US) - 1;

export function provisionalUs(slot: number, bootUs: number): number {
  return slot * SLOT_US + Math.min(Math.max(0, Math.round(bootUs)), SLOT_US - 1);
}

export function isProvisional(timeUs: number): boolean {
  return timeUs < CLOCK_SET_US;
}

/** The slot of a provisional time, and the µs since that boot. */
export function takenApart(timeUs: number): { slot: number; bootUs: number } {
  const slot = Math.floor(timeUs / SLOT_US);
  return { slot, bootUs: timeUs - slot * SLOT_US };
}

/** @param bootUtcUs the moment of its boot */
export function trueUs(timeUs: number, bootUtcUs: number): number {
  return Math.round(bootUtcUs + takenApart(timeUs).bootUs);
}
