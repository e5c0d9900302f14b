/**
 * ffmpeg lets no picture's time go back. Where a camera's does, it gives each picture one tick more than the last,
 * until the camera has caught up: for hours, perhaps, and all of that would be footage of an instant.
 */
import { rtpTimeDifference } from "../../../protocol/rtsp/rtp.ts";

/** In RTP ticks, of which ffmpeg's have 90 a millisecond. Wider ones are a camera's own, even where it counts otherwise. */
const CLOSE_TICKS = 9;
/** So many of them in a row, over so long, are no slices of one picture. */
const CLOSE_IN_A_ROW = 5;
const CLOSE_FOR_MS = 250;
/** So many pictures in a row show that the camera tells them apart. */
const APART_IN_A_ROW = 5;

export class CrampedTimes {
  #last: number | undefined;
  /** A camera that does not tell its pictures apart, such as by whole seconds, is recorded as it is: to ask it again would not help. */
  #wereApart = false;
  #apart = 0;
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
    if (step < 0 || step > CLOSE_TICKS) {
      this.#apart++;
      this.#wereApart ||= this.#apart >= APART_IN_A_ROW;
      this.#close = 0;
      this.#closeSinceMs = nowMs;
      return false;
    }
    this.#apart = 0;
    this.#close++;
    return this.#wereApart && this.#close >= CLOSE_IN_A_ROW && nowMs - this.#closeSinceMs >= CLOSE_FOR_MS;
  }
}
