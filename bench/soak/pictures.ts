/**
 * Pictures of the stand-in cameras, made without an encoder: where a real slice has its blocks, one of these
 * has a record of the ledger as text. From the RTSP door to the archive and to live readers only parameter sets
 * and the heads of NAL units are read, so that pictures can be counted as records are.
 *
 *   record → slice NAL → RTP (single NAL unit or FU-A) → gateway → fMP4 or RTP → record
 */
import { randomInt } from "node:crypto";
import { encodeSenderReport } from "../../protocol/rtsp/rtcp.ts";
import { encodeRtp } from "../../protocol/rtsp/rtp.ts";
import { pictureDigests } from "../../test/support/picture-digests.ts";

/** Of 320x240 pixels, constrained baseline. */
const PARAMETER_SETS = "Z0LADdoFB+hAAAADAEAAAA8DxQqo,aM4PyA==";
const PAYLOAD_TYPE = 96;
const FU_BYTES = 1_200;
const FU_A = 28;
/** NAL heads (ITU-T H.264 §7.3.1): a slice of a key frame, one of another picture. */
const KEY_SLICE = 0x65;
const SLICE = 0x41;
/** first_mb_in_slice is 0: it begins a picture. */
const FIRST_BLOCK = 0x88;
const RECORD = /\{"producer":"[^"]{1,100}","seq":\d{1,15}/g;

export const CAMERA_SDP = [
  "v=0",
  "o=- 0 0 IN IP4 127.0.0.1",
  "s=soak",
  "c=IN IP4 127.0.0.1",
  "t=0 0",
  `m=video 0 RTP/AVP ${PAYLOAD_TYPE}`,
  `a=rtpmap:${PAYLOAD_TYPE} H264/90000`,
  `a=fmtp:${PAYLOAD_TYPE} packetization-mode=1; sprop-parameter-sets=${PARAMETER_SETS}`,
  "a=control:trackID=0",
  "",
].join("\r\n");

/** One camera's RTP, with its clock at the producer's time. */
export class PictureStream {
  readonly ssrc = randomInt(1, 2 ** 31);
  #sequence = randomInt(0, 65_536);
  #packets = 0;

  /** RFC 6184: a small NAL unit alone, a large one as FU-A; the last packet has the marker. */
  packets(record: Buffer, keyFrame: boolean, producerUs: number): Buffer[] {
    const nal = Buffer.concat([Buffer.of(keyFrame ? KEY_SLICE : SLICE, FIRST_BLOCK), record]);
    const payloads = payloadsOf(nal);
    this.#packets += payloads.length;
    return payloads.map((payload, i) =>
      encodeRtp(
        {
          marker: i === payloads.length - 1,
          payloadType: PAYLOAD_TYPE,
          sequence: this.#sequence++ & 0xffff,
          timestamp: rtpTimeOf(producerUs),
          ssrc: this.ssrc,
        },
        payload,
      ),
    );
  }

  /** A sender report: this moment is that RTP time. */
  report(producerUs: number): Buffer {
    const rtpTime = rtpTimeOf(producerUs);
    const counts = { packetCount: this.#packets, octetCount: 0 };
    return encodeSenderReport({ ssrc: this.ssrc, utcUs: producerUs, rtpTime, ...counts });
  }
}

/**
 * The heads of the records of a fragment's pictures, in decoding order. A record stands in each picture, and
 * nowhere else.
 * @throws Error for a file that is no fMP4, or whose pictures are not as many as its records
 */
export function recordsIn(fragment: Buffer): Buffer[] {
  const records = fragment.toString("latin1").match(RECORD) ?? [];
  const { length } = pictureDigests(fragment);
  if (length !== records.length) throw new Error(`${length} pictures with ${records.length} records`);
  return records.map((record) => Buffer.from(record, "latin1"));
}

function rtpTimeOf(producerUs: number): number {
  return Math.round(producerUs * 0.09) >>> 0;
}

function payloadsOf(nal: Buffer): Buffer[] {
  if (nal.length <= FU_BYTES) return [nal];
  const payloads: Buffer[] = [];
  for (let at = 1; at < nal.length; at += FU_BYTES) {
    const end = Math.min(at + FU_BYTES, nal.length);
    const marks = (at === 1 ? 0x80 : 0) | (end === nal.length ? 0x40 : 0);
    const head = Buffer.of((nal[0]! & 0xe0) | FU_A, marks | (nal[0]! & 0x1f));
    payloads.push(Buffer.concat([head, nal.subarray(at, end)]));
  }
  return payloads;
}
