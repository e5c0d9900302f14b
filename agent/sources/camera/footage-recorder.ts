/**
 * Turns one publisher's RTP into footage units and stores each as soon as it is complete.
 *
 *   RTP ─→ [packets of this group of pictures] ─key frame, 8 MiB or 10 s→ unit → footage buffer
 *
 * A unit never ends inside a picture, unless a single picture is larger than a unit. Bytes are
 * neither changed nor looked into beyond the test for key frames.
 */
import type { ClockMapping, FootagePacket } from "../../../protocol/footage.ts";
import { clockOf, MAX_UNIT_BYTES, MAX_UNIT_US, utcUsOf } from "../../../protocol/footage.ts";
import { epochName } from "../../../protocol/frame.ts";
import { GroupFinder } from "../../../protocol/rtsp/keyframe.ts";
import { parseRtcp } from "../../../protocol/rtsp/rtcp.ts";
import { rtpTimeDifference } from "../../../protocol/rtsp/rtp.ts";
import type { SessionDescription } from "../../../protocol/rtsp/sdp.ts";
import type { Clock } from "../../../runtime/clock.ts";
import { describeError } from "../../../runtime/errors.ts";
import type { Log } from "../../../runtime/log.ts";
import type { Metrics } from "../../../runtime/metrics.ts";
import type { FootageBuffer, RecordedUnit } from "../../buffer/footage-buffer.ts";
import { EARLIEST_US } from "../decode/sensor-time.ts";
import { ArrivalClock } from "./arrival-clock.ts";

export interface FootageRecorderOptions {
  readonly camera: string;
  readonly sdp: string;
  readonly description: SessionDescription;
  readonly buffer: FootageBuffer;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly timing: Timing;
  /** A unit is on disk, or is lost and was reported as a gap; one that never got to the disk has no packets any more. In order. */
  readonly onUnit?: (unit: RecordedUnit, stored: boolean) => void;
}

/**
 * Where producer time comes from: the reports of a sender that knows its camera's time (until the
 * first one comes, the time of arrival), or the time of arrival, for a sender that passes each
 * picture on when `picturesLate` more have come.
 */
export type Timing =
  | { readonly from: "sender-reports" }
  | { readonly from: "arrival"; readonly picturesLate: number };

/** Complete units that may wait for the disk; beyond that they are dropped and reported as a gap. */
const MAX_QUEUED_UNITS = 2;
/** Of a unit's bytes, what its head, clocks and session description may take. */
const HEAD_RESERVE_BYTES = 256 * 1024;
/** What a packet costs in a unit beside its bytes. */
const PACKET_OVERHEAD_BYTES = 8;
/** An H.264 picture of 60 frames/s at 8 Mbit/s is some 15 packets; a unit of 8 MiB some 6,000. */
const MAX_PACKETS = 50_000;

/** Of a picture before its unit's first: those that lead in to a later key frame, at a picture a second. */
const MAX_BACK_S = 3;

/** What will be a unit. */
interface Cut {
  readonly packets: FootagePacket[];
  readonly startsWithKeyFrame: boolean;
}

interface Track {
  readonly clockRate: number;
  readonly arrival: ArrivalClock;
  reported: ClockMapping | undefined;
}

export class FootageRecorder {
  readonly #options: FootageRecorderOptions;
  readonly #tracks: Track[];
  readonly #groups: GroupFinder;
  /** The track whose pictures decide where a unit may end. */
  readonly #pictureTrack: number;
  readonly #counts: ReturnType<typeof countsOf>;
  #packets: FootagePacket[] = [];
  #bytes = 0;
  #startsWithKeyFrame = false;
  /** When the first packet of the unit came, by the monotonic clock, as all arrival is told: ours may be set meanwhile. */
  #beganUs = 0;
  /** Where in #packets the newest picture begins, and its RTP time. */
  #pictureAt = 0;
  #pictureTime: number | undefined;
  #isFirst = true;
  #held: Cut | undefined;
  #storing: Promise<void> = Promise.resolve();
  #queuedUnits = 0;

  constructor(options: FootageRecorderOptions) {
    this.#options = options;
    this.#tracks = options.description.media.map((media) => ({
      clockRate: media.clockRate > 0 ? media.clockRate : 90_000,
      arrival: new ArrivalClock(media.clockRate > 0 ? media.clockRate : 90_000),
      reported: undefined,
    }));
    this.#groups = new GroupFinder(options.description);
    this.#pictureTrack = Math.max(0, this.#groups.track);
    this.#counts = countsOf(options.metrics);
  }

  packet(track: number, rtp: Buffer): void {
    const state = this.#tracks[track];
    // RFC 3550 §5.1: a fixed header of 12 bytes, version 2. Anything else is counted and passed over.
    if (state === undefined || rtp.length < 12 || rtp[0]! >> 6 !== 2) {
      this.#counts.malformed.inc({ camera: this.#options.camera });
      return;
    }
    const nowUs = this.#monotonicUs();
    const rtpTime = rtp.readUInt32BE(4);
    if (track === this.#pictureTrack && this.#isBreak(state, rtpTime)) this.#cutBeforeBreak(nowUs);
    state.arrival.note(rtpTime, nowUs);
    const packet = { track, rtp };
    const groupPackets = this.#groups.push(packet);
    if (groupPackets === 0) this.#cutIfFull(packet, nowUs);
    if (track === this.#pictureTrack && rtpTime !== this.#pictureTime) {
      this.#pictureTime = rtpTime;
      this.#pictureAt = this.#packets.length;
    }
    if (this.#packets.length === 0) this.#beganUs = nowUs;
    this.#packets.push(packet);
    this.#bytes += rtp.length + PACKET_OVERHEAD_BYTES;
    if (groupPackets > 0) this.#beginGroup(groupPackets, nowUs);
  }

  /** The newest `groupPackets` belong to a new group of pictures; those before them are a unit. */
  #beginGroup(groupPackets: number, nowUs: number): void {
    this.#cutAt(Math.max(0, this.#packets.length - groupPackets), nowUs);
    this.#startsWithKeyFrame = true;
  }

  #cutIfFull(packet: FootagePacket, nowUs: number): void {
    const beginsPicture =
      packet.track === this.#pictureTrack && packet.rtp.readUInt32BE(4) !== this.#pictureTime;
    const bytes = this.#bytes + packet.rtp.length + PACKET_OVERHEAD_BYTES;
    const full = bytes > MAX_UNIT_BYTES - HEAD_RESERVE_BYTES || this.#packets.length >= MAX_PACKETS;
    const long = nowUs - this.#beganUs >= MAX_UNIT_US && this.#packets.length > 0;
    if (beginsPicture && (long || full)) this.#cutAt(this.#packets.length, nowUs);
    else if (full) this.#cutAt(this.#pictureAt > 0 ? this.#pictureAt : this.#packets.length, nowUs);
  }

  /** Pictures that others depend on come first: none is shown long before the first of its unit. */
  #isBreak({ arrival, clockRate }: Track, rtpTime: number): boolean {
    const first = this.#packets.find(({ track }) => track === this.#pictureTrack)?.rtp.readUInt32BE(4);
    const ticks = first === undefined ? 0 : rtpTimeDifference(rtpTime, first);
    return ticks < -MAX_BACK_S * clockRate || arrival.breaksAt(rtpTime);
  }

  /** A unit has one clock; when its pictures were made is told by what is known up to here. */
  #cutBeforeBreak(nowUs: number): void {
    this.#cutAt(this.#packets.length, nowUs);
    this.#completeHeld();
    // A sender whose times begin anew counts from there.
    for (const state of this.#tracks) state.reported = undefined;
    this.#tracks[this.#pictureTrack]!.arrival.restart();
  }

  /** Ends the unit before the packet at `index`, which begins the next. */
  #cutAt(index: number, nowUs: number): void {
    const packets = this.#packets.slice(0, index);
    this.#packets = this.#packets.slice(index);
    this.#bytes = this.#packets.reduce((sum, { rtp }) => sum + rtp.length + PACKET_OVERHEAD_BYTES, 0);
    this.#pictureAt = Math.max(0, this.#pictureAt - index);
    const tookUs = nowUs - this.#beganUs;
    this.#beganUs = nowUs;
    if (packets.length > 0) this.#take({ packets, startsWithKeyFrame: this.#startsWithKeyFrame }, tookUs);
    this.#startsWithKeyFrame = false;
  }

  /**
   * A sender begins with what it has held back, faster than it was made. Such a first unit waits for
   * the second one, as its own arrival does not tell when it was made.
   */
  #take(cut: Cut, tookUs: number): void {
    const isFirst = this.#isFirst && this.#options.timing.from === "arrival";
    this.#isFirst = false;
    this.#completeHeld();
    const { pictures, intervalUs } = this.#picturesOf(cut.packets);
    if (isFirst && tookUs < 0.8 * intervalUs * (pictures - 1)) this.#held = cut;
    else this.#complete(cut);
  }

  #completeHeld(): void {
    const held = this.#held;
    this.#held = undefined;
    if (held !== undefined) this.#complete(held);
  }

  /** Keeps what sender reports say; a broken compound says nothing. */
  rtcp(track: number, bytes: Buffer): void {
    const state = this.#tracks[track];
    if (state === undefined || this.#options.timing.from !== "sender-reports") return;
    for (const report of parseRtcp(bytes)) {
      if (report.type === "sr") state.reported = clockOf(track, report) ?? state.reported;
    }
  }

  #complete({ packets, startsWithKeyFrame }: Cut): void {
    const clocks = this.#clocksOf(packets, this.#picturesOf(packets).intervalUs);
    const { fromUs, toUs } = this.#timesOf(packets, clocks);
    const { camera, sdp } = this.#options;
    const unit = { camera, sdp, producerUs: fromUs, endUs: toUs, startsWithKeyFrame, clocks, packets };
    if (this.#queuedUnits >= MAX_QUEUED_UNITS) {
      this.#counts.dropped.inc({ camera });
      this.#reportLost(unit, "the disk was too slow");
      // Behind those that still wait for the disk, without what takes up memory.
      const told = { ...unit, packets: [] };
      this.#storing = this.#storing.then(() => this.#options.onUnit?.(told, false));
      return;
    }
    this.#queuedUnits++;
    this.#storing = this.#storing.then(() => this.#store(unit));
  }

  async #store(unit: RecordedUnit): Promise<void> {
    try {
      const { epoch, sequence } = await this.#options.buffer.append(unit);
      const place = { camera: unit.camera, epoch: epochName(epoch), sequence: String(sequence) };
      this.#options.log.debug(place, "footage unit stored");
      this.#options.onUnit?.(unit, true);
    } catch (error) {
      const { camera } = unit;
      this.#counts.dropped.inc({ camera });
      this.#options.log.error({ camera, error: describeError(error) }, "footage was not stored");
      this.#reportLost(unit, "the disk did not take it");
      this.#options.onUnit?.(unit, false);
    } finally {
      this.#queuedUnits--;
    }
  }

  #reportLost(unit: RecordedUnit, reason: string): void {
    this.#options.buffer.reportGap({
      camera: unit.camera,
      fromUs: unit.producerUs,
      toUs: unit.endUs,
      reason,
    });
  }

  #monotonicUs(): number {
    return this.#options.clock.monotonicMs() * 1_000;
  }

  /** One for each track that has packets here, near the first of them: RTP times wrap. */
  #clocksOf(packets: readonly FootagePacket[], pictureUs: number): ClockMapping[] {
    const { timing, clock } = this.#options;
    // As we know it now: better, perhaps, than when the packets came.
    const startUs = clock.nowUs() - this.#monotonicUs();
    const lateUs = timing.from === "arrival" ? timing.picturesLate * pictureUs : 0;
    const clocks: ClockMapping[] = [];
    for (const [track, state] of this.#tracks.entries()) {
      const first = packets.find((packet) => packet.track === track);
      if (first === undefined) continue;
      const rtpTime = first.rtp.readUInt32BE(4);
      const { reported, arrival, clockRate } = state;
      const arrivedUs = arrival.utcUs(rtpTime);
      if (arrivedUs === undefined) continue;
      // A camera whose clock was never set does not know when it made its pictures.
      const utcUs =
        reported === undefined || reported.utcUs < EARLIEST_US
          ? startUs + arrivedUs
          : utcUsOf(reported, clockRate, rtpTime);
      const madeUs = track === this.#pictureTrack ? utcUs - lateUs : utcUs;
      clocks.push({ track, rtpTime, utcUs: Math.max(0, Math.round(madeUs)) });
    }
    return clocks;
  }

  /** Its pictures, and how far they are apart on average; 0 when it holds fewer than two. */
  #picturesOf(packets: readonly FootagePacket[]) {
    let first: number | undefined;
    let ticks = 0;
    let pictures = 0;
    let lastTime: number | undefined;
    for (const { track, rtp } of packets) {
      if (track !== this.#pictureTrack) continue;
      const rtpTime = rtp.readUInt32BE(4);
      first ??= rtpTime;
      ticks = Math.max(ticks, rtpTimeDifference(rtpTime, first));
      if (rtpTime !== lastTime) pictures++;
      lastTime = rtpTime;
    }
    const { clockRate } = this.#tracks[this.#pictureTrack]!;
    const intervalUs = pictures < 2 ? 0 : (ticks * 1_000_000) / clockRate / (pictures - 1);
    return { pictures, intervalUs: Math.min(1_000_000, intervalUs) };
  }

  /** Of the picture track, or of the first track that has packets. */
  #timesOf(packets: readonly FootagePacket[], clocks: readonly ClockMapping[]) {
    const clock = clocks.find((one) => one.track === this.#pictureTrack) ?? clocks[0]!;
    let ticks = 0;
    for (const { track, rtp } of packets) {
      if (track === clock.track)
        ticks = Math.max(ticks, rtpTimeDifference(rtp.readUInt32BE(4), clock.rtpTime));
    }
    const clockRate = this.#tracks[clock.track]!.clockRate;
    return { fromUs: clock.utcUs, toUs: clock.utcUs + Math.round((ticks * 1_000_000) / clockRate) };
  }

  /** What has come so far becomes a unit; resolves when all is on disk or reported. Safe to call twice. */
  async close(): Promise<void> {
    // Room in the queue first: the last unit is not to be dropped.
    await this.#storing;
    this.#cutAt(this.#packets.length, this.#monotonicUs());
    this.#completeHeld();
    await this.#storing;
  }
}

function countsOf(metrics: Metrics) {
  return {
    dropped: metrics.counter(
      "headwater_agent_footage_unstored_units_total",
      "Units that the disk did not take",
      ["camera"],
    ),
    malformed: metrics.counter("headwater_agent_footage_malformed_packets_total", "Packets that are no RTP", [
      "camera",
    ]),
  };
}
