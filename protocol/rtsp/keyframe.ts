/** Where groups of pictures begin, told from RTP payloads alone; nothing is decoded. */
import type { FootagePacket } from "../footage.ts";
import { parseRtp, rtpTimeDifference } from "./rtp.ts";
import type { SdpMedia, SessionDescription } from "./sdp.ts";

/**
 * True when this RTP payload holds (the start of) a slice of a key frame:
 * H.264 NAL 5 alone, in a STAP-A or at an FU-A's start (RFC 6184 §5); H.265 NAL 16-21 alone, in an AP or at
 * an FU's start (RFC 7798 §4.4). For codecs without dependent pictures (JPEG) and unknown ones always true.
 */
export function isKeyFrameStart(media: SdpMedia, payload: Buffer): boolean {
  if (media.encoding === "H264") return isH264KeyFrameStart(payload);
  if (media.encoding === "H265" || media.encoding === "HEVC") return isH265KeyFrameStart(payload);
  return true;
}

function isH264KeyFrameStart(payload: Buffer): boolean {
  if (payload.length < 2) return false;
  const type = payload[0]! & 0x1f;
  if (type === 28) return (payload[1]! & 0x80) !== 0 && (payload[1]! & 0x1f) === 5;
  if (type !== 24) return type === 5;
  return someAggregated(payload, 1, (head) => (head & 0x1f) === 5);
}

function isH265KeyFrameStart(payload: Buffer): boolean {
  if (payload.length < 3) return false;
  const type = h265Type(payload[0]!);
  if (type === 49) return (payload[2]! & 0x80) !== 0 && isH265Key(payload[2]! & 0x3f);
  if (type !== 48) return isH265Key(type);
  return someAggregated(payload, 2, (head) => isH265Key(h265Type(head)));
}

function h265Type(head: number): number {
  return (head >> 1) & 0x3f;
}

/** ITU-T H.265 table 7-1: BLA, IDR and CRA pictures. */
function isH265Key(type: number): boolean {
  return type >= 16 && type <= 21;
}

/** Asks about the first byte of each NAL unit of an aggregation packet, as far as the lengths fit. */
function someAggregated(payload: Buffer, from: number, test: (head: number) => boolean): boolean {
  for (let at = from; at + 3 <= payload.length; at += 2 + payload.readUInt16BE(at)) {
    if (test(payload[at + 2]!)) return true;
  }
  return false;
}

function hasDependentPictures(media: SdpMedia): boolean {
  return media.kind === "video" && ["H264", "H265", "HEVC"].includes(media.encoding);
}

/**
 * Finds where groups of pictures begin among the packets of all tracks. The parameter sets and other NAL
 * units ahead of a key frame's first slice have its RTP time and belong to the new group.
 */
export class GroupFinder {
  /** Index of the track that decides; -1 when the description has no track. */
  readonly track: number;
  readonly #media: SdpMedia | undefined;
  readonly #dependent: boolean;
  #pictureTime: number | undefined;
  #packetsOfPicture = 0;
  #found = false;
  #groupTime: number | undefined;

  /** The first video track that is H.264 or H.265 decides; without one, every second of the first track. */
  constructor(description: SessionDescription) {
    const decisive = description.media.findIndex(hasDependentPictures);
    this.#dependent = decisive !== -1;
    this.track = this.#dependent ? decisive : description.media.length === 0 ? -1 : 0;
    this.#media = description.media[this.track];
  }

  /**
   * Give it every packet, in order.
   * @returns 0, or when this packet shows that a group began, how many of the latest packets, this one
   *   included, belong to it (1 when it begins with this packet).
   */
  push(packet: FootagePacket): number {
    this.#packetsOfPicture++;
    const media = this.#media;
    if (packet.track !== this.track || media === undefined) return 0;
    const rtp = parseRtp(packet.rtp);
    if (rtp === undefined) return 0;
    if (rtp.timestamp !== this.#pictureTime) {
      this.#pictureTime = rtp.timestamp;
      this.#packetsOfPicture = 1;
      this.#found = false;
    }
    if (this.#found) return 0;
    this.#found = this.#dependent
      ? isKeyFrameStart(media, rtp.payload)
      : this.#secondBegan(rtp.timestamp, media);
    return this.#found ? this.#packetsOfPicture : 0;
  }

  #secondBegan(timestamp: number, media: SdpMedia): boolean {
    if (this.#groupTime !== undefined) {
      const passed = rtpTimeDifference(timestamp, this.#groupTime);
      if (passed >= 0 && passed < media.clockRate) return false;
    }
    this.#groupTime = timestamp;
    return true;
  }
}
