/**
 * When pictures were made, told from when their packets arrive. For senders whose reports do not
 * carry the camera's time: ffmpeg counts from the moment at which it opened its output.
 *
 * Every packet says "my RTP time was at the latest now". The smallest difference of the two clocks
 * is the one with the least delay, so bursts and slow packets do not matter. It may rise slowly, as
 * the camera's crystal and ours differ, and is given up when our clock is set.
 */
import { rtpTimeDifference } from "../../../protocol/rtsp/rtp.ts";

/** Crystals differ by less than this: 100 µs a second. */
const DRIFT = 1e-4;
/** A difference that is this much too small for a whole window was measured before our clock was set. */
const JUMP_US = 250_000;
const WINDOW_US = 4_000_000;
/** RTP times further apart are another clock's. */
const MAX_STEP_US = 10_000_000;

export class ArrivalClock {
  readonly #clockRate: number;
  #lastRtpTime: number | undefined;
  /** RTP time without the wrap, as µs since the first packet. */
  #mediaUs = 0;
  #offsetUs = 0;
  #windowMinUs = Number.POSITIVE_INFINITY;
  #windowStartUs = 0;
  #lastNowUs = 0;

  constructor(clockRate: number) {
    this.#clockRate = clockRate;
  }

  /** Whether this RTP time is of another clock than the last: a camera's begin anew when it is set up or its clock is set. */
  breaksAt(rtpTime: number): boolean {
    if (this.#lastRtpTime === undefined) return false;
    return Math.abs(this.#us(rtpTimeDifference(rtpTime, this.#lastRtpTime))) > MAX_STEP_US;
  }

  /** What comes next is of another clock. */
  restart(): void {
    this.#lastRtpTime = undefined;
  }

  /** A packet with this RTP time has arrived. */
  note(rtpTime: number, nowUs: number): void {
    if (this.#lastRtpTime === undefined || this.breaksAt(rtpTime)) {
      this.#lastRtpTime = rtpTime;
      this.#mediaUs = 0;
      this.#offsetUs = nowUs;
      this.#lastNowUs = nowUs;
      this.#startWindow(nowUs);
      return;
    }
    this.#mediaUs += this.#us(rtpTimeDifference(rtpTime, this.#lastRtpTime));
    this.#lastRtpTime = rtpTime;
    const sampleUs = nowUs - this.#mediaUs;
    const driftUs = Math.max(0, nowUs - this.#lastNowUs) * DRIFT;
    this.#lastNowUs = nowUs;
    this.#offsetUs = Math.min(sampleUs, this.#offsetUs + driftUs);
    this.#windowMinUs = Math.min(this.#windowMinUs, sampleUs);
    if (Math.abs(nowUs - this.#windowStartUs) < WINDOW_US) return;
    if (this.#windowMinUs - this.#offsetUs > JUMP_US) this.#offsetUs = this.#windowMinUs;
    this.#startWindow(nowUs);
  }

  /** The moment of an RTP time near the last noted, µs since 1970 UTC; undefined before the first. */
  utcUs(rtpTime: number): number | undefined {
    if (this.#lastRtpTime === undefined) return undefined;
    const behindUs = this.#us(rtpTimeDifference(rtpTime, this.#lastRtpTime));
    return Math.round(this.#offsetUs + this.#mediaUs + behindUs);
  }

  #us(ticks: number): number {
    return (ticks * 1_000_000) / this.#clockRate;
  }

  #startWindow(nowUs: number): void {
    this.#windowStartUs = nowUs;
    this.#windowMinUs = Number.POSITIVE_INFINITY;
  }
}
