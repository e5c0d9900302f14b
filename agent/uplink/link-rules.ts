/**
 * What the uplinks may send now: the config's mode and cap, and the schedule's, with the one bucket
 * that records and footage share. Who waits because of a rule is told when the rules change.
 *
 *   full     everything
 *   metered  what is important enough, gathered into larger batches; the status seldom
 *   paused   the status, and only what is more important than the pause
 *
 * Questions about the time of day, and that epochs are drained, are always asked and said: they are small.
 */
import type { LinkConfig } from "../../config/link-config.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { Log } from "../../runtime/log.ts";
import type { Metrics } from "../../runtime/metrics.ts";
import { Pacer } from "./pacing.ts";
import { type LinkMode, type LinkSetting, Schedule } from "./schedule.ts";
import type { LaneRules } from "./uplink-lane.ts";

export interface LinkRulesOptions {
  readonly config: LinkConfig;
  /** Of streams; 0 for those not named. */
  readonly priorities: Readonly<Record<string, number>>;
  /** How often the gateway hears of the buffer in full mode. */
  readonly statusSeconds: number;
  readonly clock: Clock;
  /** False while the time of day is not known: then no window of the schedule holds. */
  readonly timeKnown?: () => boolean;
  readonly log: Log;
  readonly metrics: Metrics;
}

/** What a connection asks beside its lanes. */
export interface UplinkRules extends LaneRules {
  readonly pacer: LaneRules["pacer"] & {
    /** For what goes in any case. */
    charge(bytes: number): void;
  };
  readonly mode: LinkMode;
  /** How often the gateway hears of the buffer. */
  readonly statusSeconds: number;
}

export interface LinkStatus {
  readonly mode: LinkMode;
  readonly by: "config" | "schedule";
  /** Absent: no cap. */
  readonly maxBytesPerSecond?: number;
  /** When the schedule changes it, RFC 3339; absent when it does not within a week. */
  readonly until?: string;
}

/** The system's clock may be set, and the time zone's rules may change: the timetable is looked at so often. */
const LOOK_MS = 15_000;
const MODES: readonly LinkMode[] = ["full", "metered", "paused"];

export class LinkRules implements UplinkRules {
  readonly pacer: Pacer;
  readonly #options: LinkRulesOptions;
  readonly #schedule: Schedule;
  readonly #listeners = new Set<() => void>();
  #setting: LinkSetting;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: LinkRulesOptions) {
    this.#options = options;
    const { mode, maxBytesPerSecond, schedule } = options.config;
    const entries = schedule.map((entry) => ({
      days: entry.days,
      fromMinute: entry.fromMinute,
      toMinute: entry.toMinute,
      mode: entry.mode ?? mode,
      maxBytesPerSecond: entry.maxBytesPerSecond ?? maxBytesPerSecond,
    }));
    this.#schedule = new Schedule(entries, { mode, maxBytesPerSecond });
    this.#setting = this.#settingNow();
    this.pacer = new Pacer(options.clock, this.#setting.maxBytesPerSecond);
    this.#measure();
  }

  async start(): Promise<void> {
    this.#look();
  }

  async close(): Promise<void> {
    clearTimeout(this.#timer);
    this.pacer.close();
  }

  get mode(): LinkMode {
    return this.#setting.mode;
  }

  /** May records of this stream go now? */
  sends(stream: string): boolean {
    const { mode } = this.#setting;
    const { metered, paused } = this.#options.config;
    if (mode === "full") return true;
    const minimum = mode === "metered" ? metered.minPriority : paused.minPriority;
    const { priorities } = this.#options;
    const priority = Object.hasOwn(priorities, stream) ? priorities[stream]! : 0;
    return minimum !== undefined && priority >= minimum;
  }

  /** Records that began to wait now are sent after so long, together. */
  get gatherMs(): number {
    return this.mode === "metered" ? this.#options.config.metered.batchSeconds * 1_000 : 0;
  }

  get sendsFootage(): boolean {
    return this.mode === "full" || (this.mode === "metered" && this.#options.config.metered.footage);
  }

  get statusSeconds(): number {
    const { statusSeconds, config } = this.#options;
    return this.mode === "full" ? statusSeconds : Math.max(statusSeconds, config.metered.statusSeconds);
  }

  /** @param listener called when anything of this may have changed @returns ends that */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Resolves when company for the first record has gathered, the rules change, or `signal` aborts. */
  gather(signal: AbortSignal): Promise<void> {
    return this.#wait(signal, this.gatherMs);
  }

  /** Resolves when records of some stream may go, or `signal` aborts. */
  async mayGo(signal: AbortSignal): Promise<void> {
    const { paused } = this.#options.config;
    while (this.mode === "paused" && paused.minPriority === undefined && !signal.aborted)
      await this.#wait(signal, undefined);
  }

  /** Resolves when footage may go, or `signal` aborts. */
  async footageMayGo(signal: AbortSignal): Promise<void> {
    while (!this.sendsFootage && !signal.aborted) await this.#wait(signal, undefined);
  }

  status(): LinkStatus {
    const { mode, maxBytesPerSecond } = this.#setting;
    const nowMs = this.#options.clock.nowUs() / 1_000;
    const until = this.#timeKnown ? this.#schedule.nextChangeMs(nowMs) : undefined;
    return {
      mode,
      by: this.#setting === this.#schedule.otherwise ? "config" : "schedule",
      ...(Number.isFinite(maxBytesPerSecond) && { maxBytesPerSecond }),
      ...(until !== undefined && { until: new Date(until).toISOString() }),
    };
  }

  get #timeKnown(): boolean {
    return this.#options.timeKnown?.() ?? true;
  }

  #settingNow(): LinkSetting {
    if (!this.#timeKnown) return this.#schedule.otherwise;
    return this.#schedule.at(this.#options.clock.nowUs() / 1_000);
  }

  #look(): void {
    const { clock, config, log } = this.#options;
    const before = this.#setting;
    this.#setting = this.#settingNow();
    const { mode, maxBytesPerSecond } = this.#setting;
    if (before.mode !== mode || before.maxBytesPerSecond !== maxBytesPerSecond) {
      log.info({ ...this.status() }, "the link's mode changed");
      this.pacer.setRate(maxBytesPerSecond);
      for (const listener of [...this.#listeners]) listener();
    }
    if (config.schedule.length === 0) return;
    const nowMs = clock.nowUs() / 1_000;
    const leftMs = (this.#schedule.nextChangeMs(nowMs) ?? Number.POSITIVE_INFINITY) - nowMs;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#look(), Math.max(10, Math.min(LOOK_MS, Math.ceil(leftMs))));
  }

  /** @param ms without it, for ever */
  #wait(signal: AbortSignal, ms: number | undefined): Promise<void> {
    if (signal.aborted || ms === 0) return Promise.resolve();
    return new Promise((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        stop();
        signal.removeEventListener("abort", done);
        resolve();
      };
      const timer = ms === undefined ? undefined : setTimeout(done, ms);
      const stop = this.onChange(done);
      signal.addEventListener("abort", done, { once: true });
    });
  }

  #measure(): void {
    const { metrics } = this.#options;
    const rules = this;
    metrics.gauge("headwater_uplink_mode", "1 for the mode that holds", ["mode"], function () {
      for (const mode of MODES) this.set({ mode }, mode === rules.mode ? 1 : 0);
    });
    const capHelp = "The most that records and footage may take of the link; +Inf without a cap";
    metrics.gauge("headwater_uplink_cap_bytes_per_second", capHelp, [], function () {
      this.set(rules.pacer.bytesPerSecond);
    });
    const waitHelp = "For how long, in all, something had to wait for the cap";
    metrics.gauge("headwater_uplink_cap_waited_seconds", waitHelp, [], function () {
      this.set(rules.pacer.waitedMs / 1_000);
    });
  }
}
