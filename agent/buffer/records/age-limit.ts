/** Drops what has waited longer than the config allows, looking every few seconds. */
import type { Clock } from "../../../runtime/clock.ts";
import type { EpochLedger } from "./epoch-ledger.ts";

const LOOK_EVERY_MS = 10_000;

export interface AgeLimitOptions {
  readonly clock: Clock;
  /** 0 for no limit. */
  readonly maxAgeHours: number;
  readonly ledger: EpochLedger;
  /** Drops the oldest part if all of it is older; false when it may stay. */
  readonly drop: (beforeUs: number, reason: string) => Promise<boolean>;
  readonly onFailure: (cause: unknown) => Error;
}

export class AgeLimit {
  readonly #options: AgeLimitOptions;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: AgeLimitOptions) {
    this.#options = options;
  }

  /** Resolves when what is too old by now is gone. */
  async start(): Promise<void> {
    if (this.#options.maxAgeHours === 0) return;
    await this.#look();
    this.#timer = setInterval(() => void this.#look().catch(this.#options.onFailure), LOOK_EVERY_MS);
    this.#timer.unref();
  }

  /** The newest frame of a part decides: a part goes whole or stays whole. */
  async #look(): Promise<void> {
    const { clock, maxAgeHours, ledger, drop } = this.#options;
    const maxAgeUs = maxAgeHours * 3_600_000_000;
    for (;;) {
      const nowUs = clock.nowUs();
      const oldest = ledger.oldestUs;
      if (oldest === undefined || nowUs - oldest < maxAgeUs) return;
      if (!(await drop(nowUs - maxAgeUs, `older than ${maxAgeHours} hours: the records were dropped`)))
        return;
    }
  }

  close(): void {
    clearInterval(this.#timer);
  }
}
