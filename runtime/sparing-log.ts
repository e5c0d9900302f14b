/**
 * Warnings of what clients do wrong. Whoever does wrong can do it thousands of times a second, and shall
 * neither fill the disk nor hold up the others with it: of each kind a few lines a minute are
 * written, and the next one says how many were not. The metrics count all.
 */
import type { Log, LogFields } from "./log.ts";

const LINES_A_MINUTE = 10;
const MINUTE_US = 60_000_000;

/** Of one kind. */
interface Budget {
  sinceUs: number;
  lines: number;
  unsaid: number;
}

export class SparingLog {
  readonly #log: Log;
  readonly #budgets = new Map<string, Budget>();

  constructor(log: Log) {
    this.#log = log;
  }

  /** @param message also says of which kind it is, so it holds nothing that a client has a hand in */
  warn(nowUs: number, fields: LogFields, message: string): void {
    let budget = this.#budgets.get(message);
    // The clock may have been set back, too.
    if (budget === undefined || Math.abs(nowUs - budget.sinceUs) >= MINUTE_US) {
      budget = { sinceUs: nowUs, lines: 0, unsaid: budget?.unsaid ?? 0 };
      this.#budgets.set(message, budget);
    }
    if (budget.lines >= LINES_A_MINUTE) {
      budget.unsaid++;
      return;
    }
    budget.lines++;
    const { unsaid } = budget;
    budget.unsaid = 0;
    this.#log.warn({ ...fields, ...(unsaid > 0 && { unsaid }) }, message);
  }
}
