/**
 * One publisher's session: packets in, units out.
 *
 * An agent brackets its units by APP packets, and each is checked against count and SHA-256 of its end.
 * Whoever sends no brackets (a plain camera, ffmpeg) is cut at key frames, at 8 MiB or at 10 s, under an
 * epoch of this session's own.
 */
import {
  MAX_UNIT_BYTES,
  MAX_UNIT_PACKETS,
  MAX_UNIT_US,
  type PersistedRange,
  parseUnitMark,
  type UnitBegin,
  UnitDigest,
  type UnitEnd,
} from "../../protocol/footage.ts";
import type { Epoch } from "../../protocol/frame.ts";
import { parseRtcp } from "../../protocol/rtsp/rtcp.ts";
import { parseSdp } from "../../protocol/rtsp/sdp.ts";
import type { Clock } from "../../runtime/clock.ts";
import { describeError, HeadwaterError } from "../../runtime/errors.ts";
import type { Log } from "../../runtime/log.ts";
import type { ArrivedUnit, CameraArchive } from "./archive/camera-archive.ts";
import { ConfirmedUnits } from "./confirmed-units.ts";
import { AudioSource, audioTrackOf } from "./depacketise/audio-source.ts";
import {
  lengthPrefixed,
  PictureSource,
  type RawPicture,
  videoTrackOf,
} from "./depacketise/picture-source.ts";
import { type Picture, VIDEO_TIMESCALE, type VideoFormat } from "./depacketise/video-format.ts";
import type { Sound } from "./fragments/fragment-file.ts";
import type { LiveView } from "./live-view.ts";
import {
  giveUp,
  holdPacket,
  holdPicture,
  holdSounds,
  type OpenUnit,
  openUnit,
  type UnitStart,
} from "./open-unit.ts";
import { SenderClock } from "./sender-clock.ts";
import type { CameraFeed, FeedMemory } from "./video.ts";
import type { VideoCounters } from "./video-counters.ts";

/** What a packet costs in memory beside its bytes, about. */
const PACKET_COST_BYTES = 64;
/** What a unit costs while it waits for the disk, beside its packets: two blocks that it may have begun and ended in. */
const UNIT_COST_BYTES = 65_536;
/** An agent's unit may be as long as the protocol lets it, plus the cost of its packets. */
const MAX_OPEN_BYTES = MAX_UNIT_BYTES + MAX_UNIT_PACKETS * PACKET_COST_BYTES;
/** An own unit is cut at MAX_UNIT_BYTES, but only between two pictures. */
const MAX_OWN_OPEN_BYTES = 2 * MAX_UNIT_BYTES;
/** Where every picture is a key frame no disk could sync a file for each. */
const MIN_UNIT_US = 500_000;
/** Ten seconds of the fastest AAC are 940 frames. */
const MAX_SOUNDS = 8_192;
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

export interface CameraFeedParts {
  readonly archive: CameraArchive;
  readonly live: LiveView;
  readonly sdp: string;
  /** Of the units that it cuts itself. */
  readonly ownEpoch: Epoch;
  readonly clock: Clock;
  readonly log: Log;
  readonly counters: VideoCounters;
  readonly memory: FeedMemory | undefined;
  /** False once another publisher of this camera came: what this one sends is stored, not shown. */
  isShown(): boolean;
}

export class UnitFeed implements CameraFeed {
  readonly #parts: CameraFeedParts;
  readonly #videoTrack: number;
  readonly #source: PictureSource | undefined;
  readonly #audioTrack: number;
  readonly #audio: AudioSource | undefined;
  readonly #sender: SenderClock;
  #bracketed = false;
  #ownSequence = 0n;
  #unit: OpenUnit | undefined;
  #stores: Promise<unknown> = Promise.resolve();
  readonly #confirmed = new ConfirmedUnits();
  #waitingBytes = 0;
  #closed = false;

  /** @throws NoTrackError, MalformedSdpError */
  constructor(parts: CameraFeedParts) {
    this.#parts = parts;
    const description = parseSdp(parts.sdp);
    if (description.media.length === 0) throw new NoTrackError(parts.archive.camera);
    this.#videoTrack = videoTrackOf(description);
    const media = description.media[this.#videoTrack];
    this.#source = media && new PictureSource(media);
    this.#audioTrack = audioTrackOf(description);
    const sound = description.media[this.#audioTrack];
    this.#audio = sound && new AudioSource(sound, () => this.#countUnstored());
    const tracks = { video: this.#videoTrack, audio: this.#audioTrack, count: description.media.length };
    this.#sender = new SenderClock(tracks, parts.clock);
  }

  startsAt(utcUs: number): void {
    this.#sender.startsAt(utcUs);
  }

  packet(track: number, rtp: Buffer): void {
    if (this.#closed) return;
    this.#packet(track, rtp);
    this.#tellHeld();
  }

  #packet(track: number, rtp: Buffer): void {
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
    } else if (unit.bytes <= MAX_OPEN_BYTES) holdPacket(unit, track, rtp);
    else if (!unit.tooLong) {
      giveUp(unit);
      // Also the picture that is not yet whole.
      this.#source?.flush();
    }
  }

  #tellHeld(): void {
    const { packetBytes = 0, sampleBytes = 0 } = this.#unit ?? {};
    const parameterBytes = this.#closed ? 0 : (this.#source?.parameterBytes ?? 0);
    this.#parts.memory?.holds(packetBytes + sampleBytes + parameterBytes, this.#waitingBytes);
  }

  #depacketise(track: number, rtp: Buffer): void {
    if (track === this.#videoTrack) {
      const picture = this.#source!.push(rtp);
      if (picture !== undefined) this.#take(picture);
    } else if (track === this.#audioTrack) {
      const heard = this.#audio!.push(rtp);
      if (this.#unit!.sounds.length < MAX_SOUNDS) holdSounds(this.#unit!, heard, rtp.length);
      else this.#countUnstored();
    } else if (this.#source !== undefined) this.#countUnstored();
  }

  #countUnstored(): void {
    this.#parts.counters.otherPackets.inc({ camera: this.#parts.archive.camera });
  }

  rtcp(track: number, bytes: Buffer): void {
    if (this.#closed) return;
    for (const packet of parseRtcp(bytes)) {
      if (packet.type === "sr") this.#sender.report(track, packet, this.#bracketed);
      else if (packet.type === "app") {
        const mark = this.#markOf(packet);
        if (mark?.kind === "begin") this.#begin(mark);
        else if (mark?.kind === "end") this.#endBracket(mark);
      }
    }
    this.#tellHeld();
  }

  persisted(): PersistedRange[] {
    return this.#confirmed.aheadOf(this.#parts.archive.persisted());
  }

  waitingBytes(): number {
    return this.#parts.archive.waitingBytes;
  }

  async drained(): Promise<void> {
    await this.#parts.archive.idle();
    await this.#stores;
  }

  async close(): Promise<void> {
    if (!this.#closed) {
      // Before #closed, as the last picture still belongs to the unit.
      this.#end(!this.#bracketed);
      this.#closed = true;
      this.#tellHeld();
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

  #open(start: UnitStart): void {
    const { archive, live, clock } = this.#parts;
    this.#source?.beginUnit();
    const newestUs = live.newestUs ?? 0;
    const repeats = start.producerUs !== undefined && newestUs - start.producerUs < REPEAT_US;
    this.#unit = openUnit(start, {
      startedMs: clock.monotonicMs(),
      repeated: archive.has(start.epoch, start.sequence),
      shownUntilUs: this.#bracketed && repeats ? newestUs : 0,
    });
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
    unit.producerUs ??= this.#sender.momentOf(raw.rtpTime);
    const picture: Picture = {
      ...lengthPrefixed(raw.nals, unit.format),
      keyFrame: raw.keyFrame,
      pts90k: raw.pts90k,
      producerUs: unit.producerUs + Math.round(((raw.pts90k - unit.firstPts) * 1_000_000) / VIDEO_TIMESCALE),
    };
    holdPicture(unit, picture);
    if (this.#parts.isShown() && picture.producerUs > unit.shownUntilUs) {
      this.#parts.live.push(unit.format, picture, raw.nextPts90k);
    }
  }

  /** Ends an own unit before a picture that begins the next. */
  #cutOwn(raw: RawPicture, format: VideoFormat): void {
    const unit = this.#unit!;
    if (unit.pictures.length === 0) return;
    const lastsUs = ((raw.pts90k - unit.firstPts!) * 1_000_000) / VIDEO_TIMESCALE;
    const begins = raw.keyFrame && (lastsUs >= MIN_UNIT_US || !unit.pictures[0]!.keyFrame);
    const jumpsBack = raw.pts90k < unit.firstPts! - VIDEO_TIMESCALE;
    const isFull = lastsUs >= MAX_UNIT_US || unit.bytes >= MAX_UNIT_BYTES;
    // On disk it costs no memory. The file begins without a key frame then, and plays behind the one before it.
    const isCutShort = lastsUs >= MIN_UNIT_US && this.#parts.memory?.isScarce === true;
    if (begins || isFull || isCutShort || jumpsBack || unit.format !== format) {
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

  #store(unit: OpenUnit, whole: boolean): void {
    const { archive, counters, log, ownEpoch, sdp } = this.#parts;
    const { camera } = archive;
    const { epoch, sequence, startsWithKeyFrame, pictures, packets } = unit;
    if (unit.repeated) {
      counters.units.inc({ camera, result: "repeated" });
      this.#confirm(unit);
      return;
    }
    if (unit.bytes === 0) {
      // Nothing came between two marks; a publisher could make more of these than a disk is asked for.
      counters.units.inc({ camera, result: "empty" });
      return;
    }
    // The sender deletes what is persisted: a file of the pictures alone would leave out what is not understood.
    const partly = whole && this.#source?.leftOut === true;
    const format = (unit.unreadable || partly) && packets !== undefined ? undefined : unit.format;
    const producerUs = unit.producerUs ?? this.#parts.clock.nowUs();
    const clocks = this.#sender.mappings();
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
    const heldBytes = Math.max(unit.bytes, unit.packetBytes + unit.sampleBytes) + UNIT_COST_BYTES;
    // Its file is made beside it.
    const memoryBytes = heldBytes + Math.max(unit.packetBytes, unit.sampleBytes);
    this.#waitingBytes += memoryBytes;
    const stored = archive.store(arrived, heldBytes).then(
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
    );
    this.#stores = this.#stores
      .then(() => stored)
      .then(() => {
        this.#waitingBytes -= memoryBytes;
        this.#tellHeld();
      });
  }

  #confirm({ epoch, sequence }: OpenUnit): void {
    if (epoch !== this.#parts.ownEpoch) this.#confirmed.add(epoch, sequence);
  }

  #soundOf(unit: OpenUnit): Sound | undefined {
    const [first] = unit.sounds;
    if (first === undefined) return undefined;
    const { format } = this.#audio!;
    const offsetUs = this.#sender.soundOffsetUs(unit.firstRtpTime, first.rtpTime, format.sampleRate);
    return { format, frames: unit.sounds, offsetUs };
  }
}
