/**
 * The agent's clock: monotonic time since the boot, and the moment of the boot once it is known.
 *
 *   provisional ─set→ UTC, which follows the system's clock when that is what is trusted
 *                └set again→ corrected: a little back is waited for, so that times still rise
 *
 * A Pi has no clock of its own: it wakes up in 1970, or when it was last shut down.
 */
import type { SourceClock } from "../sources/source.ts";
import type { ClockStatus } from "../status/agent-status.ts";
import type { DeviceTime } from "./device-time.ts";
import { CLOCK_SET_US, provisionalUs } from "./provisional-time.ts";

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
/** A clock that is set back by less stands still until it is there again; by more, it jumps. */
const STANDS_STILL_US = 2_000_000;

export class AgentClock implements SourceClock {
  readonly #time: DeviceTime;
  #slot = 0;
  #boot: BootMoment | undefined;
  #lookedUs = 0;
  #toldUs = 0;
  #wasProvisional = false;

  constructor(time: DeviceTime) {
    this.#time = time;
  }

  /** Undefined while the time of day is not known. */
  get boot(): BootMoment | undefined {
    return this.#boot;
  }

  get knownBy(): TimeKnownBy | undefined {
    return this.#boot?.by;
  }

  nowUs(): number {
    const bootUs = this.#time.bootUs();
    if (this.#boot === undefined) {
      this.#wasProvisional = true;
      return provisionalUs(this.#slot, bootUs);
    }
    if (this.#boot.by !== "gateway" && bootUs - this.#lookedUs > LOOK_EVERY_US) this.#follow(bootUs);
    const nowUs = Math.round(this.#boot.utcUs + bootUs);
    if (nowUs < this.#toldUs && this.#toldUs - nowUs < STANDS_STILL_US) return this.#toldUs;
    this.#toldUs = nowUs;
    return nowUs;
  }

  /** Somebody set the system's clock: so is ours, but not to a time that would be taken for a provisional one. */
  #follow(bootUs: number): void {
    this.#lookedUs = bootUs;
    const wallUs = this.#time.wallUs();
    if (wallUs < CLOCK_SET_US) return;
    const utcUs = wallUs - bootUs;
    if (Math.abs(utcUs - this.#boot!.utcUs) > STEP_US) this.#boot = { ...this.#boot!, utcUs };
  }

  status(): ClockStatus {
    if (this.#boot === undefined) return { known: false };
    const time = new Date(this.nowUs() / 1_000).toISOString();
    return { known: true, time, by: this.#boot.by, boundMs: Math.ceil(this.#boot.boundUs / 1_000) };
  }

  /** It was asked while nothing was known: what it said then may stand in the buffers. */
  get wasProvisional(): boolean {
    return this.#wasProvisional;
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

  /** Also again, when the time is known better: what was said before stays. */
  set(boot: BootMoment): void {
    this.#boot = boot;
  }
}
