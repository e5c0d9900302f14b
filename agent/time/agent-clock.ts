/**
 * The agent's clock: monotonic time since the boot, and the moment of the boot once it is known.
 *
 *   provisional ─set→ UTC, which follows the system's clock when that is what is trusted
 *
 * A Pi has no clock of its own: it wakes up in 1970, or when it was last shut down.
 */
import type { Clock } from "../../runtime/clock.ts";
import type { ClockStatus } from "../status/agent-status.ts";
import type { DeviceTime } from "./device-time.ts";
import { provisionalUs } from "./provisional-time.ts";

/** `system`: the system's clock, which nobody confirmed. */
export type TimeKnownBy = "system" | "ntp" | "gateway";

export interface BootMoment {
  /** The boot, µs since 1970 UTC. */
  readonly utcUs: number;
  readonly by: TimeKnownBy;
  /** How far off it can be. */
  readonly boundUs: number;
}

/** The system's clock was set anew when it moved so far; less is its coarseness. */
const STEP_US = 100_000;
const LOOK_EVERY_US = 1_000_000;

export class AgentClock implements Clock {
  readonly #time: DeviceTime;
  #slot = 0;
  #boot: BootMoment | undefined;
  #lookedUs = 0;

  constructor(time: DeviceTime) {
    this.#time = time;
  }

  /** Undefined while the time of day is not known. */
  get boot(): BootMoment | undefined {
    return this.#boot;
  }

  nowUs(): number {
    const bootUs = this.#time.bootUs();
    if (this.#boot === undefined) return provisionalUs(this.#slot, bootUs);
    if (this.#boot.by !== "gateway" && bootUs - this.#lookedUs > LOOK_EVERY_US) this.#follow(bootUs);
    return Math.round(this.#boot.utcUs + bootUs);
  }

  /** Somebody set the system's clock: so is ours. What is written already stays. */
  #follow(bootUs: number): void {
    this.#lookedUs = bootUs;
    const utcUs = this.#time.wallUs() - bootUs;
    if (Math.abs(utcUs - this.#boot!.utcUs) > STEP_US) this.#boot = { ...this.#boot!, utcUs };
  }

  status(): ClockStatus {
    if (this.#boot === undefined) return { known: false };
    const time = new Date(this.nowUs() / 1_000).toISOString();
    return { known: true, time, by: this.#boot.by, boundMs: Math.ceil(this.#boot.boundUs / 1_000) };
  }

  /** For footage, which nobody brings to UTC later: what the system says while nothing better is known. */
  get bestGuess(): Clock {
    return {
      nowUs: () => (this.#boot === undefined ? this.#time.wallUs() : this.nowUs()),
      monotonicMs: () => this.monotonicMs(),
    };
  }

  /** When this boot began, as provisional times have it. */
  get provisionalStartUs(): number {
    return provisionalUs(this.#slot, 0);
  }

  monotonicMs(): number {
    return this.#time.bootUs() / 1_000;
  }

  /** From now on provisional times name this boot. */
  useSlot(slot: number): void {
    this.#slot = slot;
  }

  set(boot: BootMoment): void {
    this.#boot = boot;
  }
}
