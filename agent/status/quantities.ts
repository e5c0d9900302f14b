/** Numbers as people read them, always with their unit. */

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const BYTE_UNITS = ["B", "KiB", "MiB", "GiB", "TiB"] as const;

export function count(value: number): string {
  return whole.format(value);
}

export function counted(value: number, one: string): string {
  return `${whole.format(value)} ${one}${value === 1 ? "" : "s"}`;
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
