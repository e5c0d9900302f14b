/** From RTP of one H.264 or H.265 track to pictures with unwrapped times. The format is known once its parameter sets came. */
import { H264Depacketiser, isVcl } from "../../../protocol/rtsp/h264.ts";
import type { AccessUnit } from "../../../protocol/rtsp/nal-depacketiser.ts";
import { parseRtp, rtpTimeDifference } from "../../../protocol/rtsp/rtp.ts";
import {
  h264ParameterSets,
  h265ParameterSets,
  type SdpMedia,
  type SessionDescription,
} from "../../../protocol/rtsp/sdp.ts";
import { H264Parameters } from "./h264-format.ts";
import { H265Depacketiser, isVclH265 } from "./h265-depacketiser.ts";
import { H265Parameters } from "./h265-format.ts";
import type { VideoFormat } from "./video-format.ts";

/** A picture whose moment its unit has yet to tell. */
export interface RawPicture {
  readonly nals: readonly Buffer[];
  readonly keyFrame: boolean;
  readonly rtpTime: number;
  readonly pts90k: number;
  /** When the picture after it is shown; undefined where that is not known yet. */
  readonly nextPts90k: number | undefined;
}

/** The track that is shown and stored; -1 when there is none that we can depacketise. */
export function videoTrackOf(description: SessionDescription): number {
  return description.media.findIndex(
    ({ kind, encoding }) => kind === "video" && (encoding === "H264" || encoding === "H265"),
  );
}

/** Parameter sets are kept, are in the format's record, and in the formats of a unit that waits and of the live view. */
const PARAMETER_COPIES = 6;

export class PictureSource {
  readonly #depacketiser: H264Depacketiser | H265Depacketiser;
  readonly #parameters: H264Parameters | H265Parameters;
  readonly #isVcl: (nal: Uint8Array) => boolean;
  #lastRtpTime: number | undefined;
  #lastPts = 0;
  #nextSequence: number | undefined;
  #missing = false;
  #damaged = false;
  #countedFormat: VideoFormat | undefined;
  #parameterBytes = 0;

  /** @param media a track that videoTrackOf named */
  constructor(media: SdpMedia) {
    const isH265 = media.encoding === "H265";
    this.#depacketiser = isH265 ? new H265Depacketiser() : new H264Depacketiser();
    this.#parameters = isH265 ? new H265Parameters() : new H264Parameters();
    this.#isVcl = isH265 ? isVclH265 : isVcl;
    this.#parameters.learn(isH265 ? h265ParameterSets(media) : h264ParameterSets(media));
  }

  get format(): VideoFormat | undefined {
    return this.#parameters.format;
  }

  /** What the parameter sets cost in memory. */
  get parameterBytes(): number {
    return this.#parameterBytes;
  }

  /**
   * Since beginUnit came something that is in no picture, though every packet was there. Where packets were
   * missing already, their pictures are as whole as they can be.
   */
  get leftOut(): boolean {
    return this.#damaged && !this.#missing;
  }

  beginUnit(): void {
    this.#missing = false;
    this.#damaged = false;
  }

  /** @returns the picture before this packet's, once its RTP time changes. */
  push(rtp: Buffer): RawPicture | undefined {
    const packet = parseRtp(rtp);
    if (packet === undefined) {
      this.#damaged = true;
      return undefined;
    }
    if (this.#nextSequence !== undefined && packet.sequence !== this.#nextSequence) this.#missing = true;
    this.#nextSequence = (packet.sequence + 1) & 0xffff;
    const unit = this.#depacketiser.push(packet);
    return unit && this.#picture(unit, packet.timestamp);
  }

  /** The last picture. The next packet may have any sequence number. */
  flush(): RawPicture | undefined {
    this.#nextSequence = undefined;
    const unit = this.#depacketiser.flush();
    return unit && this.#picture(unit, undefined);
  }

  #countParameters(): void {
    const { format } = this.#parameters;
    if (format === this.#countedFormat) return;
    this.#countedFormat = format;
    const bytes = format?.parameterSets.reduce((sum, { length }) => sum + length, 0) ?? 0;
    this.#parameterBytes = PARAMETER_COPIES * bytes;
  }

  /** Access units without a slice, such as lone parameter sets, are learnt from and make no picture. */
  #picture(unit: AccessUnit, nextRtpTime: number | undefined): RawPicture | undefined {
    this.#parameters.learn(unit.nals);
    this.#countParameters();
    if (unit.damaged) this.#damaged = true;
    if (!unit.nals.some(this.#isVcl)) return undefined;
    const { rtpTime, nals, keyFrame } = unit;
    const step = this.#lastRtpTime === undefined ? 0 : rtpTimeDifference(rtpTime, this.#lastRtpTime);
    this.#lastRtpTime = rtpTime;
    this.#lastPts += step;
    const pts90k = this.#lastPts;
    const nextPts90k =
      nextRtpTime === undefined ? undefined : pts90k + rtpTimeDifference(nextRtpTime, rtpTime);
    return { nals, keyFrame, rtpTime, pts90k, nextPts90k };
  }
}

/** A piece is a view that costs about so much beside its bytes. */
const PIECE_COST_BYTES = 256;

/** NAL units with their lengths before them, without the parameter sets that the format holds. */
export function lengthPrefixed(
  nals: readonly Buffer[],
  format: VideoFormat,
): { pieces: Buffer[]; bytes: number } {
  const pieces: Buffer[] = [];
  let bytes = 0;
  for (const nal of nals) {
    if (format.parameterSets.some((set) => set.equals(nal))) continue;
    const length = Buffer.allocUnsafe(4);
    length.writeUInt32BE(nal.length);
    pieces.push(length, nal);
    bytes += 4 + nal.length;
  }
  // An aggregation packet may hold thousands of NAL units of a byte.
  const isCrumbs = pieces.length > 2 && bytes < pieces.length * PIECE_COST_BYTES;
  return { pieces: isCrumbs ? [Buffer.concat(pieces, bytes)] : pieces, bytes };
}
