/** A device without a clock of its own: it wakes up in 1970, whatever the time is. */
import type { DeviceTime } from "../../../agent/time/device-time.ts";

/** The truth, which nobody on the device knows. */
export const BORN_US = Date.UTC(2026, 2, 4, 5, 6, 7) * 1_000;

export class Device {
  trueUs = BORN_US;
  #boots = 0;
  /** Of the system's clock: how far behind the truth it is. */
  behindUs = BORN_US;
  kept = false;
  time: DeviceTime = this.#boot();

  #boot(): DeviceTime {
    const bootedUs = this.trueUs;
    return {
      wallUs: () => this.trueUs - this.behindUs,
      bootUs: () => this.trueUs - bootedUs,
      bootId: `boot-${++this.#boots}`,
      hasClock: false,
      synchronised: async () => this.kept,
    };
  }

  pass(seconds: number): void {
    this.trueUs += seconds * 1e6;
  }

  /** Off for so long; its clock begins in 1970 again. */
  reboot(offSeconds: number): void {
    this.pass(offSeconds);
    this.behindUs = this.trueUs;
    this.kept = false;
    this.time = this.#boot();
  }
}
