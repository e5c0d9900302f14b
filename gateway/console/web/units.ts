/** Numbers as people read them, always with their unit. */

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const dayAndClock = new Intl.DateTimeFormat("en-GB", {
  day: "numeric",
  month: "short",
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
});

const BYTE_UNITS = ["B", "KiB", "MiB", "GiB", "TiB"] as const;
const DAY_MS = 86_400_000;

export function count(value: number): string {
  return whole.format(value);
}

export function counted(value: number, one: string, many = `${one}s`): string {
  return `${whole.format(value)} ${value === 1 ? one : many}`;
}

export function bytes(value: number): string {
  let amount = value;
  let unit = 0;
  while (amount >= 1_024 && unit < BYTE_UNITS.length - 1) {
    amount /= 1_024;
    unit++;
  }
  return `${unit === 0 || amount >= 100 ? whole.format(amount) : amount.toFixed(1)} ${BYTE_UNITS[unit]}`;
}

export function rate(perSecond: number): string {
  return `${perSecond >= 100 || perSecond === 0 ? whole.format(perSecond) : perSecond.toFixed(1)}/s`;
}

/** A length of time: `0.4 s`, `2 min 5 s`, `3 h 10 min`, `2 d 4 h`. */
export function duration(ms: number): string {
  const seconds = Math.max(0, ms) / 1_000;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.floor(seconds % 60)} s`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

export function ago(ms: number): string {
  return ms < 1_500 ? "just now" : `${duration(ms)} ago`;
}

/** The time of day, and the day too where it is not today. */
export function time(ms: number, nowMs: number): string {
  return (nowMs - ms < DAY_MS / 2 ? clock : dayAndClock).format(ms);
}

/** A measured value, with the same number of decimals from one to the next. */
export function measure(value: number, decimals: number): string {
  return value.toLocaleString("en", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
}

/** How many decimals values of this kind need. */
export function decimalsOf(values: readonly number[]): number {
  if (values.every(Number.isInteger)) return 0;
  return values.every((value) => Number.isInteger(Math.round(value * 1e6) / 1e5)) ? 1 : 2;
}

/** A cell of a result that can be anything; a date-time becomes a time of day. */
export function anything(value: unknown, nowMs: number): string {
  if (value === null || value === undefined) return "–";
  if (typeof value === "number") {
    return Number.isInteger(value) ? whole.format(value) : Number(value.toFixed(3)).toString();
  }
  if (isTime(value)) return time(Date.parse(value), nowMs);
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

/** A date with a time, as SQL and RFC 3339 write it. */
export function isTime(value: unknown): value is string {
  return (
    typeof value === "string" &&
    /^\d{4}-\d\d-\d\d[T ]\d\d:\d\d/.test(value) &&
    Number.isFinite(Date.parse(value))
  );
}
