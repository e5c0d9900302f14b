/** How many file descriptors this process may have. */
import { readFileSync } from "node:fs";

/** As of now; Infinity where the system does not say. */
export function maxDescriptors(): number {
  try {
    const [, soft] = /^Max open files +(\S+)/m.exec(readFileSync("/proc/self/limits", "latin1")) ?? [];
    return soft !== undefined && /^\d+$/.test(soft) ? Number(soft) : Number.POSITIVE_INFINITY;
  } catch {
    return Number.POSITIVE_INFINITY;
  }
}
