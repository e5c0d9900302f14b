/**
 * ffmpeg lets no picture's time go back. Where a camera's does, it gives each picture one tick more than the last,
 * until the camera has caught up: for hours, perhaps, and all of that would be footage of an instant.
 */
import { rtpTimeDifference } from "../../protocol/rtsp/rtp.ts";

/** No camera makes pictures that are so close, in RTP ticks: a millisecond. */
const CLOSE_TICKS = 90;
/** So many of them in a row, over so long, are no slices of one picture. */
const CLOSE_IN_A_ROW = 5;
const CLOSE_FOR_MS = 250;

export class CrampedTimes {
  #last: number | undefined;
  /** A camera that never told its pictures apart is recorded as it is: to ask it again would not help. */
  #wereApart = false;
  #close = 0;
  #closeSinceMs = 0;

  /**
   * @param nowMs when it came, by a monotonic clock
   * @returns whether the pictures have come too close to one another, after they were apart
   */
  note(rtpTime: number, nowMs: number): boolean {
    const step = this.#last === undefined ? 0 : rtpTimeDifference(rtpTime, this.#last);
    this.#last = rtpTime;
    if (step === 0) return false;
    const isClose = step > 0 && step <= CLOSE_TICKS;
    this.#wereApart ||= !isClose;
    if (!isClose) {
      this.#close = 0;
      this.#closeSinceMs = nowMs;
      return false;
    }
    this.#close++;
    return this.#wereApart && this.#close >= CLOSE_IN_A_ROW && nowMs - this.#closeSinceMs >= CLOSE_FOR_MS;
  }
}
