/**
 * One publisher's session: packets in, units out.
 *
 * An agent brackets its units by APP packets, and each is checked against count and SHA-256 of its end.
 * Whoever sends no brackets (a plain camera, ffmpeg) is cut at key frames, at 8 MiB or at 10 s, under an
 * epoch of this session's own.
 */
import {
  type ClockMapping,
  clockOf,
  type FootagePacket,
  MAX_UNIT_BYTES,
  MAX_UNIT_PACKETS,
  MAX_UNIT_US,
  type PersistedRange,
  parseUnitMark,
  type UnitBegin,
  UnitDigest,
  type UnitEnd,
  utcUsOf,
} from "../../protocol/footage.ts";
import type { Epoch, FrameSequence } from "../../protocol/frame.ts";
import { parseRtcp } from "../../protocol/rtsp/rtcp.ts";
import { parseSdp } from "../../protocol/rtsp/sdp.ts";
import type { Clock } from "../../runtime/clock.ts";
import { describeError, HeadwaterError } from "../../runtime/errors.ts";
import type { Log } from "../../runtime/log.ts";
import { type AudioFrame, AudioSource, audioTrackOf } from "./audio-source.ts";
import type { ArrivedUnit, CameraArchive } from "./camera-archive.ts";
import type { Sound } from "./fragment-file.ts";
import type { LiveView } from "./live-view.ts";
import { lengthPrefixed, PictureSource, type RawPicture, videoTrackOf } from "./picture-source.ts";
import type { CameraFeed } from "./video.ts";
import type { VideoCounters } from "./video-counters.ts";
import { type Picture, VIDEO_TIMESCALE, type VideoFormat } from "./video-format.ts";

/** What a packet costs in memory beside its bytes, about. */
const PACKET_COST_BYTES = 64;
/** An agent's unit may be as long as the protocol lets it, plus the cost of its packets. */
const MAX_OPEN_BYTES = MAX_UNIT_BYTES + MAX_UNIT_PACKETS * PACKET_COST_BYTES;
/** An own unit is cut at MAX_UNIT_BYTES, but only between two pictures. */
const MAX_OWN_OPEN_BYTES = 2 * MAX_UNIT_BYTES;
/** Ten seconds of the fastest AAC are 940 frames. */
const MAX_SOUNDS = 8_192;
/** A sender whose clock is further from ours than this has none. */
const MAX_CLOCK_ERROR_US = 86_400_000_000;
/** Without reports, RTP times tell how far pictures are apart until they are so far from the time of arrival. */
const MAX_ARRIVAL_ERROR_US = 10_000_000;
/** More than an agent has in flight. */
const MAX_CONFIRMED = 64;
/** A unit that begins no more than so long before what was shown repeats it. */
const REPEAT_US = 60_000_000;

export class NoTrackError extends HeadwaterError {
  constructor(camera: string) {
    super("VIDEO_NO_TRACK", {
      message: `the description of ${camera} has no track`,
      hint: "the publisher must announce at least one media section",
    });
  }
}

interface OpenUnit {
  readonly epoch: Epoch;
  readonly sequence: FrameSequence;
  readonly startsWithKeyFrame: boolean;
  /** Undefined until the first picture of an unbracketed unit told. */
  producerUs: number | undefined;
  readonly startedMs: number;
  readonly digest: UnitDigest | undefined;
  /** Kept for the case that they cannot be depacketised. */
  readonly packets: FootagePacket[] | undefined;
  readonly pictures: Picture[];
  readonly sounds: AudioFrame[];
  format: VideoFormat | undefined;
  firstPts: number | undefined;
  firstRtpTime: number;
  bytes: number;
  /** On disk already: counted through, not stored. */
  readonly repeated: boolean;
  tooLong: boolean;
  /** A picture came before any parameter sets: only the raw packets hold all of it. */
  unreadable: boolean;
  /** Pictures up to this moment were shown to viewers before. */
  readonly shownUntilUs: number;
}

export interface CameraFeedParts {
  readonly archive: CameraArchive;
  readonly live: LiveView;
  readonly sdp: string;
  /** Of the units that it cuts itself. */
  readonly ownEpoch: Epoch;
  readonly clock: Clock;
  readonly log: Log;
  readonly counters: VideoCounters;
  /** False once another publisher of this camera came: what this one sends is stored, not shown. */
  isShown(): boolean;
}

export class UnitFeed implements CameraFeed {
  readonly #parts: CameraFeedParts;
  readonly #videoTrack: number;
  readonly #clockRates: readonly number[];
  readonly #source: PictureSource | undefined;
  readonly #audioTrack: number;
  readonly #audio: AudioSource | undefined;
  /** As the sender says. */
  readonly #clocks = new Map<number, ClockMapping>();
  /** As the pictures came, for a sender who says nothing. */
  #arrival: ClockMapping | undefined;
  #startUs: number | undefined;
  #bracketed = false;
  #ownSequence = 0n;
  #unit: OpenUnit | undefined;
  #waitingBytes = 0;
  #stores: Promise<unknown> = Promise.resolve();
  /** The newest units of this session that are on disk: what its sender waits for. */
  readonly #confirmed: PersistedRange[] = [];
  #closed = false;

  /** @throws NoTrackError, MalformedSdpError */
  constructor(parts: CameraFeedParts) {
    this.#parts = parts;
    const description = parseSdp(parts.sdp);
    if (description.media.length === 0) throw new NoTrackError(parts.archive.camera);
    this.#clockRates = description.media.map((media) => media.clockRate);
    this.#videoTrack = videoTrackOf(description);
    const media = description.media[this.#videoTrack];
    this.#source = media && new PictureSource(media);
    this.#audioTrack = audioTrackOf(description);
    const sound = description.media[this.#audioTrack];
    this.#audio = sound && new AudioSource(sound, () => this.#countUnstored());
  }

  startsAt(utcUs: number): void {
    this.#startUs = utcUs;
  }

  packet(track: number, rtp: Buffer): void {
    if (this.#closed) return;
    if (this.#unit === undefined) {
      if (this.#bracketed) {
        this.#parts.counters.strayPackets.inc({ camera: this.#parts.archive.camera });
        return;
      }
      this.#beginOwn();
    }
    let unit = this.#unit!;
    if (!unit.repeated && !unit.tooLong) this.#depacketise(track, rtp);
    if (!this.#bracketed && this.#isFull(this.#unit!, rtp.length)) {
      this.#end(true);
      this.#beginOwn();
    }
    unit = this.#unit!;
    unit.digest?.add(track, rtp);
    unit.bytes += rtp.length + PACKET_COST_BYTES;
    if (!this.#bracketed && unit.bytes > MAX_OWN_OPEN_BYTES) {
      // A picture that never ends: nothing else would cut this unit any more.
      this.#end(true);
    } else if (unit.bytes > MAX_OPEN_BYTES) this.#giveUp(unit);
    else unit.packets?.push({ track, rtp });
  }

  #depacketise(track: number, rtp: Buffer): void {
    if (track === this.#videoTrack) {
      const picture = this.#source!.push(rtp);
      if (picture !== undefined) this.#take(picture);
    } else if (track === this.#audioTrack) {
      const { sounds } = this.#unit!;
      const heard = this.#audio!.push(rtp);
      if (sounds.length < MAX_SOUNDS) sounds.push(...heard);
      else this.#countUnstored();
    } else if (this.#source !== undefined) this.#countUnstored();
  }

  #countUnstored(): void {
    this.#parts.counters.otherPackets.inc({ camera: this.#parts.archive.camera });
  }

  rtcp(track: number, bytes: Buffer): void {
    if (this.#closed) return;
    for (const packet of parseRtcp(bytes)) {
      if (packet.type === "sr") {
        const mapping = clockOf(track, packet);
        const errorUs = mapping && Math.abs(mapping.utcUs - (this.#startUs ?? this.#parts.clock.nowUs()));
        const trusted = this.#bracketed || (errorUs ?? 0) < MAX_CLOCK_ERROR_US;
        if (mapping && trusted && track < this.#clockRates.length) {
          this.#clocks.set(track, mapping);
        }
      } else if (packet.type === "app") {
        const mark = this.#markOf(packet);
        if (mark?.kind === "begin") this.#begin(mark);
        else if (mark?.kind === "end") this.#endBracket(mark);
      }
    }
  }

  /** First what this session brought: the archive's own list is cut where it grows too long for an answer. */
  persisted(): PersistedRange[] {
    const listed = this.#parts.archive.persisted();
    const unlisted = this.#confirmed.filter(
      (own) =>
        !listed.some((one) => one.epoch === own.epoch && one.first <= own.first && own.last <= one.last),
    );
    return [...unlisted, ...listed];
  }

  waitingBytes(): number {
    return this.#waitingBytes;
  }

  async drained(): Promise<void> {
    await this.#stores;
  }

  async close(): Promise<void> {
    if (!this.#closed) {
      // Before #closed, as the last picture still belongs to the unit.
      this.#end(!this.#bracketed);
      this.#closed = true;
    }
    await this.#stores;
  }

  #markOf(packet: Parameters<typeof parseUnitMark>[0]): UnitBegin | UnitEnd | undefined {
    try {
      return parseUnitMark(packet);
    } catch {
      this.#parts.counters.badMarks.inc({ camera: this.#parts.archive.camera });
      return undefined;
    }
  }

  #begin(mark: UnitBegin): void {
    // Of an agent's unit whose end never came, a truncated one stays; an own one is whole as it is.
    this.#end(!this.#bracketed);
    this.#bracketed = true;
    this.#open({
      epoch: mark.epoch,
      sequence: mark.sequence,
      startsWithKeyFrame: mark.startsWithKeyFrame,
      producerUs: mark.producerUs,
      digest: new UnitDigest(),
      packets: [],
    });
  }

  #beginOwn(): void {
    this.#ownSequence++;
    this.#open({
      epoch: this.#parts.ownEpoch,
      sequence: this.#ownSequence,
      startsWithKeyFrame: true,
      producerUs: this.#source === undefined ? this.#parts.clock.nowUs() : undefined,
      digest: undefined,
      // A unit of pictures is cut one picture late, so its packets would not be its own.
      packets: this.#source === undefined ? [] : undefined,
    });
  }

  #open(
    start: Pick<OpenUnit, "epoch" | "sequence" | "startsWithKeyFrame" | "producerUs" | "digest" | "packets">,
  ): void {
    const { archive, live, clock } = this.#parts;
    this.#source?.beginUnit();
    const newestUs = live.newestUs ?? 0;
    const repeats = start.producerUs !== undefined && newestUs - start.producerUs < REPEAT_US;
    this.#unit = {
      ...start,
      startedMs: clock.monotonicMs(),
      pictures: [],
      sounds: [],
      format: undefined,
      firstPts: undefined,
      firstRtpTime: 0,
      bytes: 0,
      repeated: archive.has(start.epoch, start.sequence),
      tooLong: false,
      unreadable: false,
      shownUntilUs: this.#bracketed && repeats ? newestUs : 0,
    };
  }

  #take(raw: RawPicture): void {
    const format = this.#source!.format;
    if (format === undefined) {
      this.#unit!.unreadable = true;
      return;
    }
    if (!this.#bracketed) this.#cutOwn(raw, format);
    const unit = this.#unit!;
    // What stands before a plain camera's first key frame cannot be decoded.
    if (unit.pictures.length === 0 && !this.#bracketed && !raw.keyFrame && this.#ownSequence === 1n) return;
    unit.format ??= format;
    if (unit.firstPts === undefined) {
      unit.firstPts = raw.pts90k;
      unit.firstRtpTime = raw.rtpTime;
    }
    unit.producerUs ??= this.#momentOf(raw.rtpTime);
    const picture: Picture = {
      ...lengthPrefixed(raw.nals, unit.format),
      keyFrame: raw.keyFrame,
      pts90k: raw.pts90k,
      producerUs: unit.producerUs + Math.round(((raw.pts90k - unit.firstPts) * 1_000_000) / VIDEO_TIMESCALE),
    };
    unit.pictures.push(picture);
    if (this.#parts.isShown() && picture.producerUs > unit.shownUntilUs) {
      this.#parts.live.push(unit.format, picture, raw.nextPts90k);
    }
  }

  /** Ends an own unit before a picture that begins the next. */
  #cutOwn(raw: RawPicture, format: VideoFormat): void {
    const unit = this.#unit!;
    if (unit.pictures.length === 0) return;
    const lastsTooLong = ((raw.pts90k - unit.firstPts!) * 1_000_000) / VIDEO_TIMESCALE >= MAX_UNIT_US;
    const jumpsBack = raw.pts90k < unit.firstPts! - VIDEO_TIMESCALE;
    if (raw.keyFrame || lastsTooLong || jumpsBack || unit.format !== format || unit.bytes >= MAX_UNIT_BYTES) {
      this.#store(unit, true);
      this.#beginOwn();
    }
  }

  /** An own unit that no picture cuts: raw packets, or sound alone. */
  #isFull(unit: OpenUnit, nextBytes: number): boolean {
    if (unit.bytes + nextBytes + PACKET_COST_BYTES > MAX_UNIT_BYTES)
      return unit.packets !== undefined || unit.pictures.length === 0;
    return (
      this.#source === undefined && (this.#parts.clock.monotonicMs() - unit.startedMs) * 1_000 >= MAX_UNIT_US
    );
  }

  #endBracket(mark: UnitEnd): void {
    const { digest } = this.#unit ?? {};
    if (digest === undefined) return;
    const matches = digest.packetCount === mark.packetCount && digest.digest().equals(mark.sha256);
    if (!matches) this.#parts.counters.mismatches.inc({ camera: this.#parts.archive.camera });
    this.#end(matches);
  }

  #end(whole: boolean): void {
    if (this.#unit === undefined) return;
    const last = this.#source?.flush();
    if (last !== undefined && !this.#unit.repeated && !this.#unit.tooLong) this.#take(last);
    // Taking the last picture may have cut an own unit.
    const unit = this.#unit;
    this.#unit = undefined;
    this.#store(unit, whole && !unit.tooLong);
  }

  /** It cannot be an agent's unit; what came of it so far is kept as truncated. */
  #giveUp(unit: OpenUnit): void {
    unit.tooLong = true;
    if (unit.packets !== undefined) unit.packets.length = 0;
  }

  #store(unit: OpenUnit, whole: boolean): void {
    const { archive, counters, log, ownEpoch, sdp } = this.#parts;
    const { camera } = archive;
    const { epoch, sequence, startsWithKeyFrame, pictures, packets } = unit;
    if (unit.repeated) {
      counters.units.inc({ camera, result: "repeated" });
      this.#confirm(unit);
      return;
    }
    // The sender deletes what is persisted: a file of the pictures alone would leave out what is not understood.
    const partly = whole && this.#source?.leftOut === true;
    const format = (unit.unreadable || partly) && packets !== undefined ? undefined : unit.format;
    const producerUs = unit.producerUs ?? this.#parts.clock.nowUs();
    const clocks = [...this.#clocks.values()];
    const raw = packets && { camera, epoch, sequence, producerUs, sdp, startsWithKeyFrame, clocks, packets };
    const arrived: ArrivedUnit = {
      epoch,
      sequence,
      producerUs,
      whole,
      ownEpoch: epoch === ownEpoch,
      format,
      pictures,
      sound: this.#soundOf(unit),
      raw,
    };
    this.#waitingBytes += unit.bytes;
    const stored = archive
      .store(arrived)
      .then(
        (result) => {
          counters.units.inc({ camera, result });
          if (archive.has(epoch, sequence)) this.#confirm(unit);
        },
        (error: unknown) => {
          counters.units.inc({ camera, result: "failed" });
          log.error(
            { camera, sequence: sequence.toString(), error: describeError(error) },
            "footage not stored",
          );
        },
      )
      .finally(() => {
        this.#waitingBytes -= unit.bytes;
      });
    this.#stores = this.#stores.then(() => stored);
  }

  #confirm({ epoch, sequence }: OpenUnit): void {
    if (epoch === this.#parts.ownEpoch) return;
    const last = this.#confirmed.at(-1);
    if (last !== undefined && last.epoch === epoch && last.last + 1n === sequence) {
      this.#confirmed[this.#confirmed.length - 1] = { ...last, last: sequence };
    } else if (this.#confirmed.push({ epoch, first: sequence, last: sequence }) > MAX_CONFIRMED) {
      this.#confirmed.shift();
    }
  }

  /** Pictures and sound are set against one another by their sender reports; without both, they begin together. */
  #soundOf(unit: OpenUnit): Sound | undefined {
    const [first] = unit.sounds;
    if (first === undefined) return undefined;
    const { format } = this.#audio!;
    const pictureClock = this.#clocks.get(this.#videoTrack);
    const soundClock = this.#clocks.get(this.#audioTrack);
    let offsetUs = 0;
    if (pictureClock !== undefined && soundClock !== undefined) {
      const pictureUs = utcUsOf(pictureClock, VIDEO_TIMESCALE, unit.firstRtpTime);
      offsetUs = utcUsOf(soundClock, format.sampleRate, first.rtpTime) - pictureUs;
    }
    return { format, frames: unit.sounds, offsetUs: Math.abs(offsetUs) > MAX_UNIT_US ? 0 : offsetUs };
  }

  /**
   * By the sender's reports or the start that it told; without any, the moment of arrival is the best that is
   * known. Each answer is the next one's measure, as 32 bits of RTP time are good for half of 13 hours.
   */
  #momentOf(rtpTime: number): number {
    const track = this.#videoTrack;
    const said = this.#clocks.get(track);
    if (said !== undefined || this.#startUs !== undefined) {
      const utcUs = said === undefined ? this.#startUs! : utcUsOf(said, VIDEO_TIMESCALE, rtpTime);
      this.#clocks.set(track, { track, rtpTime, utcUs });
      return utcUs;
    }
    const nowUs = Math.round(this.#parts.clock.nowUs());
    const byRtpUs = this.#arrival === undefined ? nowUs : utcUsOf(this.#arrival, VIDEO_TIMESCALE, rtpTime);
    // Either clock was set, or they have drifted apart.
    const utcUs = Math.abs(byRtpUs - nowUs) > MAX_ARRIVAL_ERROR_US ? nowUs : byRtpUs;
    this.#arrival = { track, rtpTime, utcUs };
    return utcUs;
  }
}
