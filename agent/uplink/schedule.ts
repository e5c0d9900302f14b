/**
 * The week's timetable of the uplink: when which mode and which cap hold, by the clock on the wall
 * (the system's time zone, or TZ). Of several windows that hold now the first decides; outside of all
 * of them holds what the config says without a schedule.
 *
 * When summer time begins, a window that would begin or end within the hour that is left out does so at
 * the jump. When it ends, an hour comes twice, and so does what is planned for it.
 */

/** `metered`: each byte costs. `paused`: nothing but the agent's status is sent. */
export type LinkMode = "full" | "metered" | "paused";

export interface LinkSetting {
  readonly mode: LinkMode;
  /** Infinity for no cap. */
  readonly maxBytesPerSecond: number;
}

export interface ScheduleEntry extends LinkSetting {
  /** On which days it begins; 0 is Sunday. */
  readonly days: readonly number[];
  /** Minutes after midnight, 0 to 1439. */
  readonly fromMinute: number;
  /** 1 to 1440; not after `fromMinute`: on the next day. */
  readonly toMinute: number;
}

const MINUTE_MS = 60_000;
/** A week repeats itself; one day more, for a window over midnight. */
const DAYS_AHEAD = 8;

export class Schedule {
  readonly #entries: readonly ScheduleEntry[];
  readonly #otherwise: LinkSetting;

  constructor(entries: readonly ScheduleEntry[], otherwise: LinkSetting) {
    this.#entries = entries;
    this.#otherwise = otherwise;
  }

  /** Outside of all windows. */
  get otherwise(): LinkSetting {
    return this.#otherwise;
  }

  /** What holds at this moment, ms since 1970 UTC. */
  at(utcMs: number): LinkSetting {
    const date = new Date(utcMs);
    const minute = date.getHours() * 60 + date.getMinutes();
    return this.#entries.find((entry) => holds(entry, date.getDay(), minute)) ?? this.#otherwise;
  }

  /** When something else will hold, ms since 1970 UTC; undefined when that is not within a week. */
  nextChangeMs(utcMs: number): number | undefined {
    const now = this.at(utcMs);
    const moments = this.#moments(utcMs).filter((moment) => moment > utcMs);
    moments.sort((a, b) => a - b);
    return moments.find((moment) => !same(this.at(moment), now));
  }

  /** Whenever a window may begin or end in the days around. */
  #moments(utcMs: number): number[] {
    const moments: number[] = [];
    const today = new Date(utcMs);
    const minutes = new Set(this.#entries.flatMap(({ fromMinute, toMinute }) => [fromMinute, toMinute]));
    for (let ahead = -1; ahead <= DAYS_AHEAD; ahead++) {
      const day = [today.getFullYear(), today.getMonth(), today.getDate() + ahead] as const;
      const changed = clockChange(...day);
      if (changed !== undefined) moments.push(changed.utcMs);
      for (const minute of minutes) {
        const moment = new Date(...day, 0, minute).getTime();
        moments.push(moment);
        // An hour that comes twice: its moments are a change of the clock apart.
        if (changed !== undefined) moments.push(moment - changed.byMs, moment + changed.byMs);
      }
    }
    return moments;
  }
}

function holds({ days, fromMinute, toMinute }: ScheduleEntry, day: number, minute: number): boolean {
  const begunToday = days.includes(day) && minute >= fromMinute;
  if (fromMinute < toMinute) return begunToday && minute < toMinute;
  return begunToday || (days.includes((day + 6) % 7) && minute < toMinute);
}

function same(a: LinkSetting, b: LinkSetting): boolean {
  return a.mode === b.mode && a.maxBytesPerSecond === b.maxBytesPerSecond;
}

/** The moment in this day, or in the hours around it, when the clock on the wall was turned. */
function clockChange(
  year: number,
  month: number,
  day: number,
): { readonly utcMs: number; readonly byMs: number } | undefined {
  const offset = (utcMs: number): number => new Date(utcMs).getTimezoneOffset();
  // Noon is never left out; the turn of the clock lies between two of them.
  let before = new Date(year, month, day - 1, 12).getTime();
  let after = new Date(year, month, day, 12).getTime();
  const from = offset(before);
  const byMs = Math.abs(offset(after) - from) * MINUTE_MS;
  if (byMs === 0) return undefined;
  while (after - before > 1) {
    const middle = Math.floor((before + after) / 2);
    if (offset(middle) === from) before = middle;
    else after = middle;
  }
  return { utcMs: after, byMs };
}
