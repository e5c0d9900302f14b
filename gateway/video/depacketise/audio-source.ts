/** From RTP of one AAC track to access units (RFC 3640 §3.2, mode AAC-hbr, as cameras and ffmpeg send it). */
import { parseRtp, rtpTimeDifference } from "../../../protocol/rtsp/rtp.ts";
import type { SdpMedia, SessionDescription } from "../../../protocol/rtsp/sdp.ts";

/** Samples that one AAC access unit stands for (ISO/IEC 14496-3 §4.5.1.1). */
const FRAME_SAMPLES = 1_024;
const MAX_FRAME_BYTES = 8_191;
const MAX_FRAMES_A_PACKET = 64;
/** The audio object type of all cameras (ISO/IEC 14496-3 §1.5.1.1). */
const AAC_LC = 2;
/** AU-size is 13 bits, AU-Index 3: one header is two bytes (RFC 3640 §3.3.6). */
const HEADER_BYTES = 2;

export interface AudioFormat {
  /** RFC 6381. */
  readonly codec: string;
  readonly sampleRate: number;
  readonly channels: number;
  /** AudioSpecificConfig (ISO/IEC 14496-3 §1.6.2.1). */
  readonly configuration: Buffer;
}

export interface AudioFrame {
  readonly data: Buffer;
  readonly rtpTime: number;
  /** In samples, unwrapped. */
  readonly pts: number;
  readonly duration: number;
}

/** The AAC track that is stored beside the pictures; -1 when there is none. */
export function audioTrackOf(description: SessionDescription): number {
  return description.media.findIndex((media) => audioFormatOf(media) !== undefined);
}

function audioFormatOf(media: SdpMedia): AudioFormat | undefined {
  if (media.kind !== "audio" || media.encoding !== "MPEG4-GENERIC") return undefined;
  const { fmtp } = media;
  if (fmtp.get("sizelength") !== "13" || fmtp.get("indexlength") !== "3") return undefined;
  const configuration = Buffer.from(fmtp.get("config") ?? "", "hex");
  if (configuration.length < 2 || configuration.length > 64) return undefined;
  const objectType = configuration[0]! >> 3;
  const channels = media.channels ?? 1;
  // Of another one no file can be made, and then not of the pictures beside it either.
  if (objectType !== AAC_LC || channels < 1 || channels > 8 || media.clockRate < 7_350) return undefined;
  return { codec: `mp4a.40.${objectType}`, sampleRate: media.clockRate, channels, configuration };
}

export class AudioSource {
  readonly format: AudioFormat;
  /** The parts so far of an access unit that is longer than a packet, copied, as packets hold more than their part. */
  #parts: { rtpTime: number; bytes: Buffer; usedBytes: number } | undefined;
  readonly #leftOut: () => void;
  #lastRtpTime: number | undefined;
  #lastPts = 0;

  /**
   * @param media a track that audioTrackOf named
   * @param leftOut told of each packet of which not all is understood
   */
  constructor(media: SdpMedia, leftOut: () => void = () => undefined) {
    this.format = audioFormatOf(media)!;
    this.#leftOut = leftOut;
  }

  /** The access units that this packet completes. */
  push(rtp: Buffer): AudioFrame[] {
    const packet = parseRtp(rtp);
    if (packet === undefined || packet.payload.length < 2 + HEADER_BYTES) return this.#none();
    const { payload, timestamp } = packet;
    const headersEnd = 2 + Math.ceil(payload.readUInt16BE(0) / 8);
    const count = (headersEnd - 2) / HEADER_BYTES;
    if (headersEnd > payload.length || !Number.isInteger(count) || count > MAX_FRAMES_A_PACKET)
      return this.#none();
    const frames: AudioFrame[] = [];
    let at = headersEnd;
    for (let i = 0; i < count; i++) {
      const size = payload.readUInt16BE(2 + i * HEADER_BYTES) >> 3;
      const data = payload.subarray(at, at + size);
      at += size;
      const rtpTime = (timestamp + i * FRAME_SAMPLES) >>> 0;
      if (data.length === size && size > 0) frames.push(this.#frame(data, rtpTime));
      else if (count === 1 && data.length > 0) return this.#join(data, rtpTime, size);
    }
    // Also what came of an access unit whose other parts did not.
    if (frames.length < count || this.#parts !== undefined) this.#leftOut();
    this.#parts = undefined;
    return frames;
  }

  /** RFC 3640 §3.2.3: every fragment of an access unit carries its whole size, and the same time. */
  #join(part: Buffer, rtpTime: number, size: number): AudioFrame[] {
    if (size > MAX_FRAME_BYTES) return this.#none();
    if (this.#parts?.rtpTime !== rtpTime) {
      if (this.#parts !== undefined) this.#leftOut();
      this.#parts = { rtpTime, bytes: Buffer.allocUnsafeSlow(size), usedBytes: 0 };
    }
    const { bytes, usedBytes } = this.#parts;
    part.copy(bytes, usedBytes);
    this.#parts.usedBytes += part.length;
    if (this.#parts.usedBytes < bytes.length) return [];
    const fits = this.#parts.usedBytes === bytes.length;
    this.#parts = undefined;
    return fits ? [this.#frame(bytes, rtpTime)] : this.#none();
  }

  #none(): AudioFrame[] {
    this.#leftOut();
    return [];
  }

  #frame(data: Buffer, rtpTime: number): AudioFrame {
    this.#lastPts += this.#lastRtpTime === undefined ? 0 : rtpTimeDifference(rtpTime, this.#lastRtpTime);
    this.#lastRtpTime = rtpTime;
    return { data, rtpTime, pts: this.#lastPts, duration: FRAME_SAMPLES };
  }
}
