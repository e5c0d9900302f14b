/**
 * Which moments a sender's RTP times stand for: by its sender reports, by the start that it told, or else by
 * the times at which its pictures came.
 */
import { type ClockMapping, clockOf, MAX_UNIT_US, utcUsOf } from "../../protocol/footage.ts";
import type { SenderReport } from "../../protocol/rtsp/rtcp.ts";
import type { Clock } from "../../runtime/clock.ts";
import { VIDEO_TIMESCALE } from "./depacketise/video-format.ts";

/** A sender whose clock is further from ours than this has none. */
const MAX_CLOCK_ERROR_US = 86_400_000_000;
/** Without reports, RTP times tell how far pictures are apart until they are so far from the time of arrival. */
const MAX_ARRIVAL_ERROR_US = 10_000_000;
/** Further back from one unit to the next no sender's RTP times go but those that begin anew. */
const MAX_STEP_BACK_US = 1_000_000;

export class SenderClock {
  readonly #clock: Clock;
  readonly #videoTrack: number;
  readonly #audioTrack: number;
  readonly #tracks: number;
  /** As the sender says. */
  readonly #said = new Map<number, ClockMapping>();
  /** As the pictures came, for a sender who says nothing. */
  #arrival: ClockMapping | undefined;
  #startUs: number | undefined;
  /** What momentOf said last, and when; undefined behind a report, which is believed as it is. */
  #last: { readonly utcUs: number; readonly atUs: number } | undefined;

  constructor(
    tracks: { readonly video: number; readonly audio: number; readonly count: number },
    clock: Clock,
  ) {
    this.#videoTrack = tracks.video;
    this.#audioTrack = tracks.audio;
    this.#tracks = tracks.count;
    this.#clock = clock;
  }

  /** What `Range: clock=` said of the first picture. */
  startsAt(utcUs: number): void {
    this.#startUs = utcUs;
  }

  /** @param isAgent whose clock is believed, however far from ours it is */
  report(track: number, report: SenderReport, isAgent: boolean): void {
    const mapping = clockOf(track, report);
    if (mapping === undefined || track >= this.#tracks) return;
    const errorUs = Math.abs(mapping.utcUs - (this.#startUs ?? this.#clock.nowUs()));
    if (!isAgent && errorUs >= MAX_CLOCK_ERROR_US) return;
    this.#said.set(track, mapping);
    if (track === this.#videoTrack) this.#last = undefined;
  }

  /** One a track at most. */
  mappings(): ClockMapping[] {
    return [...this.#said.values()];
  }

  /**
   * Of a picture. By the sender's reports or the start that it told; without any, the moment of arrival is the best
   * that is known. Each answer is the next one's measure, as 32 bits of RTP time are good for half of 13 hours.
   */
  momentOf(rtpTime: number): number {
    const track = this.#videoTrack;
    const said = this.#said.get(track);
    if (said !== undefined || this.#startUs !== undefined) {
      const byRtpUs = said === undefined ? this.#startUs! : utcUsOf(said, VIDEO_TIMESCALE, rtpTime);
      const utcUs = this.#unbroken(byRtpUs);
      this.#said.set(track, { track, rtpTime, utcUs });
      this.#last = { utcUs, atUs: this.#clock.nowUs() };
      return utcUs;
    }
    const nowUs = Math.round(this.#clock.nowUs());
    const byRtpUs = this.#arrival === undefined ? nowUs : utcUsOf(this.#arrival, VIDEO_TIMESCALE, rtpTime);
    // Either clock was set, or they have drifted apart.
    const utcUs = Math.abs(byRtpUs - nowUs) > MAX_ARRIVAL_ERROR_US ? nowUs : byRtpUs;
    this.#arrival = { track, rtpTime, utcUs };
    return utcUs;
  }

  /**
   * Where a camera is set up anew its RTP times may begin anew as well, anywhere. Until its next report tells, the time
   * of arrival says how long it took. Whoever told when its first picture was made may send faster than it was made.
   */
  #unbroken(byRtpUs: number): number {
    if (this.#last === undefined) return byRtpUs;
    const { utcUs, atUs } = this.#last;
    const stepUs = byRtpUs - utcUs;
    const arrivedUs = Math.max(0, this.#clock.nowUs() - atUs);
    const isBack = stepUs < -MAX_STEP_BACK_US;
    const isAhead = this.#startUs === undefined && stepUs - arrivedUs > MAX_UNIT_US + MAX_ARRIVAL_ERROR_US;
    return isBack || isAhead ? Math.round(utcUs + arrivedUs) : byRtpUs;
  }

  /** From a picture to a sound, by the reports of both; without them they begin together. */
  soundOffsetUs(pictureRtpTime: number, soundRtpTime: number, sampleRate: number): number {
    const pictureClock = this.#said.get(this.#videoTrack);
    const soundClock = this.#said.get(this.#audioTrack);
    if (pictureClock === undefined || soundClock === undefined) return 0;
    const pictureUs = utcUsOf(pictureClock, VIDEO_TIMESCALE, pictureRtpTime);
    const offsetUs = utcUsOf(soundClock, sampleRate, soundRtpTime) - pictureUs;
    return Math.abs(offsetUs) > MAX_UNIT_US ? 0 : offsetUs;
  }
}
