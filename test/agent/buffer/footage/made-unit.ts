/** Units of footage whose bytes follow from a number, so that a reader can tell them. */
import { createHash } from "node:crypto";
import type { RecordedUnit } from "../../../../agent/buffer/footage-buffer.ts";
import { encodeRtp } from "../../../../protocol/rtsp/rtp.ts";

export const SDP = [
  "v=0",
  "o=- 0 0 IN IP4 127.0.0.1",
  "s=yard",
  "t=0 0",
  "m=video 0 RTP/AVP 96",
  "a=rtpmap:96 H264/90000",
  "a=fmtp:96 packetization-mode=1",
  "a=control:streamid=0",
  "",
].join("\r\n");

/** A second of footage, the `number`th since 2026. @param bytes about so many */
export function madeUnit(camera: string, number: number, bytes: number): RecordedUnit {
  const producerUs = 1_767_225_600_000_000 + number * 1_000_000;
  const count = Math.max(1, Math.ceil(bytes / 1_400));
  const seed = createHash("sha256").update(`${camera}/${number}`).digest();
  const packets = Array.from({ length: count }, (_, i) => {
    const payload = Buffer.alloc(Math.ceil(bytes / count), seed);
    payload[0] = i === 0 ? 0x65 : 0x41;
    const timestamp = (number * 90_000 + Math.floor(i / 4) * 6_000) >>> 0;
    const fields = {
      marker: i % 4 === 3,
      payloadType: 96,
      sequence: (number * count + i) & 0xffff,
      timestamp,
      ssrc: 7,
    };
    return { track: 0, rtp: encodeRtp(fields, payload) };
  });
  return {
    camera,
    producerUs,
    endUs: producerUs + 960_000,
    sdp: SDP,
    startsWithKeyFrame: true,
    clocks: [{ track: 0, rtpTime: (number * 90_000) >>> 0, utcUs: producerUs }],
    packets,
  };
}
