/** The kernel's own accounts in /proc and /sys, as numbers. Every function takes the text of a file and never throws. */

export type Figures = Readonly<Record<string, number>>;

export interface CpuTimes {
  readonly busy: number;
  readonly total: number;
}

/** The first line of /proc/stat, proc(5): user nice system idle iowait irq softirq steal guest guest_nice. */
export function cpuTimes(stat: string): CpuTimes | undefined {
  const line = /^cpu +(.+)$/m.exec(stat)?.[1];
  // Guest time is already in user and nice.
  const times = line?.split(" ").slice(0, 8).map(Number) ?? [];
  if (times.length < 4 || !times.every(Number.isFinite)) return undefined;
  const total = times.reduce((sum, time) => sum + time, 0);
  return { busy: total - times[3]! - (times[4] ?? 0), total };
}

export function cpuPercent(before: CpuTimes, now: CpuTimes): number | undefined {
  const total = now.total - before.total;
  return total > 0
    ? rounded(Math.max(0, Math.min(100, (100 * (now.busy - before.busy)) / total)))
    : undefined;
}

/** /proc/loadavg */
export function loadFigures(text: string): Figures {
  const [one, five, fifteen] = text.split(" ").map(Number);
  return finite({ load_1: one, load_5: five, load_15: fifteen });
}

/** /proc/meminfo, which counts in KiB. */
export function memoryFigures(text: string): Figures {
  const bytes = (name: string): number | undefined => {
    const found = new RegExp(`^${name}: +(\\d+) kB$`, "m").exec(text)?.[1];
    return found === undefined ? undefined : Number(found) * 1024;
  };
  const total = bytes("MemTotal");
  const available = bytes("MemAvailable");
  const swap = bytes("SwapTotal");
  const swapFree = bytes("SwapFree");
  return finite({
    memory_total_bytes: total,
    memory_available_bytes: available,
    memory_used_percent:
      total !== undefined && available !== undefined && total > 0
        ? rounded((100 * (total - available)) / total)
        : undefined,
    swap_used_bytes: swap !== undefined && swapFree !== undefined ? swap - swapFree : undefined,
  });
}

export interface NetworkCounters {
  readonly receivedBytes: number;
  readonly receivedErrors: number;
  readonly sentBytes: number;
  readonly sentErrors: number;
}

/** /proc/net/dev, by interface. */
export function networkCounters(text: string): Map<string, NetworkCounters> {
  const found = new Map<string, NetworkCounters>();
  for (const line of text.split("\n")) {
    const match = /^ *([^ :]{1,64}): *(.+)$/.exec(line);
    if (match === null) continue;
    const numbers = match[2]!.trim().split(/ +/).map(Number);
    if (numbers.length < 11 || !numbers.every(Number.isFinite)) continue;
    found.set(match[1]!, {
      receivedBytes: numbers[0]!,
      receivedErrors: numbers[2]!,
      sentBytes: numbers[8]!,
      sentErrors: numbers[10]!,
    });
  }
  return found;
}

/** Counters start again at 0 when a driver is loaded anew; then there is no rate. */
export function networkFigures(before: NetworkCounters, now: NetworkCounters, seconds: number): Figures {
  if (seconds <= 0 || now.receivedBytes < before.receivedBytes || now.sentBytes < before.sentBytes) return {};
  return {
    received_bytes_per_second: rounded((now.receivedBytes - before.receivedBytes) / seconds),
    sent_bytes_per_second: rounded((now.sentBytes - before.sentBytes) / seconds),
    received_errors: now.receivedErrors - before.receivedErrors,
    sent_errors: now.sentErrors - before.sentErrors,
  };
}

/** /sys/class/thermal/thermal_zone<n>/temp, in thousandths of a degree. */
export function celsius(text: string): number | undefined {
  const value = Number(text.trim());
  return text.trim() !== "" && Number.isFinite(value) && Math.abs(value) < 1e6 ? value / 1_000 : undefined;
}

export function rounded(value: number): number {
  return Math.round(value * 100) / 100;
}

function finite(figures: Readonly<Record<string, number | undefined>>): Figures {
  return Object.fromEntries(
    Object.entries(figures).filter((entry): entry is [string, number] => Number.isFinite(entry[1])),
  );
}
