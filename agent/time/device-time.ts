/** What the device knows of the time: its clocks, its boot, and whether somebody set its clock. Linux only. */
import { execFile } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { CLOCK_SET_US } from "./provisional-time.ts";

export interface DeviceTime {
  /** The system's time of day, µs since 1970 UTC; may be years off, and may jump. */
  wallUs(): number;
  /** µs since the boot; goes on evenly over restarts of the program. */
  bootUs(): number;
  /** Another one at each boot. */
  readonly bootId: string;
  /** The clock runs on while the device is off, and did so the last time. */
  readonly hasClock: boolean;
  /** The kernel's clock is kept by NTP. */
  synchronised(): Promise<boolean>;
}

const BOOT_ID = "/proc/sys/kernel/random/boot_id";
const REAL_TIME_CLOCK = "/sys/class/rtc/rtc0";
/** systemd-timesyncd makes it when it has set the clock since this boot (systemd-timesyncd.service(8)). */
const TIMESYNC_MARK = "/run/systemd/timesync/synchronized";
const PROBE_TIMEOUT_MS = 3_000;
/** adjtimex(2) with no mode bits only reads; its result is TIME_ERROR (5) while nobody keeps the clock. */
const ADJTIMEX_NUMBERS: Readonly<Record<string, number>> = { x64: 159, arm64: 171, arm: 124 };
const TIME_ERROR = 5;

export function deviceTime(): DeviceTime {
  return {
    wallUs: () => Date.now() * 1_000,
    // On Linux that is CLOCK_MONOTONIC, which begins at the boot.
    bootUs: () => Number(process.hrtime.bigint() / 1_000n),
    bootId: readFileSync(BOOT_ID, "utf8").trim(),
    hasClock: keptTime(REAL_TIME_CLOCK),
    synchronised: async () => existsSync(TIMESYNC_MARK) || (await kernelSynchronised()),
  };
}

/**
 * Whether a real-time clock went on while the device was off. One without a battery, as a Raspberry Pi 5 has it, begins in
 * 1970; the system's time is then what systemd found in a file, such as when the device was last shut down.
 * @param folder of the clock in sysfs
 */
export function keptTime(folder: string): boolean {
  try {
    // It cannot be read where the clock itself knows that it stood still.
    return Number(readFileSync(join(folder, "since_epoch"), "utf8")) * 1e6 >= CLOCK_SET_US;
  } catch {
    return false;
  }
}

/** Also for chrony and ntpd. Node has no adjtimex; Perl, which every Debian has, asks without rights. */
async function kernelSynchronised(): Promise<boolean> {
  const number = ADJTIMEX_NUMBERS[process.arch];
  if (number === undefined) return false;
  const script = `my $t = "\\0" x 256; my $r = syscall(${number}, $t); print "state=$r"`;
  return new Promise((resolve) => {
    execFile("perl", ["-e", script], { timeout: PROBE_TIMEOUT_MS }, (error, output) => {
      const state = /^state=(\d)$/.exec(output);
      // Where it is forbidden, as by ProtectClock=, nothing is known, and the gateway is asked.
      resolve(error === null && state !== null && Number(state[1]) < TIME_ERROR);
    });
  });
}
