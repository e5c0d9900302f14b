/** Real H.264 from ffmpeg, packed into RTP and into bracketed units by hand, so that a test holds every packet. */
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { promisify } from "node:util";
import type { CameraFeed } from "../../gateway/video/video.ts";
import { encodeUnitBegin, encodeUnitEnd, type FootagePacket, unitDigest } from "../../protocol/footage.ts";
import { encodeRtp } from "../../protocol/rtsp/rtp.ts";

const FU_BYTES = 1_200;
const SSRC = 0x48454144;

export interface TestPicture {
  /** Without start codes. */
  readonly nals: readonly Buffer[];
  readonly keyFrame: boolean;
  readonly rtpTime: number;
  readonly vclSha256: string;
}

export interface TestClip {
  /** As ffmpeg wrote it, Annex B. */
  readonly annexB: Buffer;
  readonly pictures: readonly TestPicture[];
  readonly sdp: string;
}

/** A moving test picture at 15 frames/s with a key frame every 15, no B-frames. */
export async function makeClip(
  frames: number,
  options: { size?: string; firstRtpTime?: number; encoder?: readonly string[] } = {},
): Promise<TestClip> {
  const { size = "160x120", firstRtpTime = 0, encoder = ["-bf", "0"] } = options;
  const source = ["-f", "lavfi", "-i", `testsrc2=size=${size}:rate=15`, "-frames:v", String(frames)];
  const codec = ["-c:v", "libx264", "-preset", "ultrafast", "-g", "15", "-sc_threshold", "0", ...encoder];
  const { stdout } = await promisify(execFile)(
    "ffmpeg",
    ["-v", "error", ...source, ...codec, "-f", "h264", "-"],
    {
      encoding: "buffer",
      maxBuffer: 64 * 1_048_576,
    },
  );
  const pictures = picturesOf(stdout, firstRtpTime);
  const sets = pictures[0]!.nals.filter((nal) => (nal[0]! & 0x1f) === 7 || (nal[0]! & 0x1f) === 8);
  return { annexB: stdout, pictures, sdp: sdpOf(sets) };
}

export function sdpOf(parameterSets: readonly Buffer[]): string {
  const sprop = parameterSets.map((set) => set.toString("base64")).join(",");
  return [
    "v=0",
    "o=- 0 0 IN IP4 127.0.0.1",
    "s=test",
    "c=IN IP4 127.0.0.1",
    "t=0 0",
    "m=video 0 RTP/AVP 96",
    "a=rtpmap:96 H264/90000",
    `a=fmtp:96 packetization-mode=1; sprop-parameter-sets=${sprop}`,
    "a=control:trackID=0",
    "",
  ].join("\r\n");
}

/** A slice whose first_mb_in_slice is 0 begins a picture (ITU-T H.264 §7.3.3), and what is no slice before it. */
function picturesOf(annexB: Buffer, firstRtpTime: number): TestPicture[] {
  const groups: Buffer[][] = [];
  let hasSlice = true;
  for (const nal of nalsOf(annexB)) {
    const slice = isSlice(nal);
    if (hasSlice && (!slice || (nal[1]! & 0x80) !== 0)) {
      groups.push([]);
      hasSlice = false;
    }
    groups.at(-1)!.push(nal);
    hasSlice ||= slice;
  }
  return groups.map((nals, i) => {
    const hash = createHash("sha256");
    for (const nal of nals.filter(isSlice)) hash.update(nal);
    const keyFrame = nals.some((nal) => (nal[0]! & 0x1f) === 5);
    return { nals, keyFrame, rtpTime: (firstRtpTime + i * 6_000) >>> 0, vclSha256: hash.digest("hex") };
  });
}

function isSlice(nal: Buffer): boolean {
  const type = nal[0]! & 0x1f;
  return type === 1 || type === 5;
}

export function nalsOf(annexB: Buffer): Buffer[] {
  const nals: Buffer[] = [];
  let from = -1;
  for (let at = annexB.indexOf("000001", 0, "hex"); ; ) {
    const next = annexB.indexOf("000001", at + 3, "hex");
    from = at + 3;
    let to = next === -1 ? annexB.length : next;
    while (to > from && annexB[to - 1] === 0) to--;
    nals.push(annexB.subarray(from, to));
    if (next === -1) return nals;
    at = next;
  }
}

/** RFC 6184: small NAL units alone, large ones as FU-A; the marker is on the last packet of a picture. */
export class Packer {
  #sequence = 0;

  packets(picture: TestPicture): FootagePacket[] {
    const payloads = picture.nals.flatMap(payloadsOf);
    return payloads.map((payload, i) => ({
      track: 0,
      rtp: encodeRtp(
        {
          marker: i === payloads.length - 1,
          payloadType: 96,
          sequence: this.#sequence++ & 0xffff,
          timestamp: picture.rtpTime,
          ssrc: SSRC,
        },
        payload,
      ),
    }));
  }
}

function payloadsOf(nal: Buffer): Buffer[] {
  if (nal.length <= FU_BYTES) return [nal];
  const payloads: Buffer[] = [];
  for (let at = 1; at < nal.length; at += FU_BYTES) {
    const end = Math.min(at + FU_BYTES, nal.length);
    const marks = (at === 1 ? 0x80 : 0) | (end === nal.length ? 0x40 : 0);
    const head = Buffer.of((nal[0]! & 0xe0) | 28, marks | (nal[0]! & 0x1f));
    payloads.push(Buffer.concat([head, nal.subarray(at, end)]));
  }
  return payloads;
}

export interface TestUnit {
  readonly epoch: bigint;
  readonly sequence: bigint;
  readonly producerUs: number;
  readonly startsWithKeyFrame: boolean;
  readonly packets: readonly FootagePacket[];
}

/** One unit a group of pictures, as an agent would cut them. */
export function unitsOf(clip: TestClip, epoch: bigint, firstUs: number): TestUnit[] {
  const packer = new Packer();
  const units: TestUnit[] = [];
  let packets: FootagePacket[] = [];
  clip.pictures.forEach((picture, i) => {
    if (picture.keyFrame) {
      packets = [];
      units.push({
        epoch,
        sequence: BigInt(units.length + 1),
        producerUs: firstUs + Math.round((i * 1_000_000) / 15),
        startsWithKeyFrame: true,
        packets,
      });
    }
    packets.push(...packer.packets(picture));
  });
  return units;
}

/** @param part what of the unit arrives: all, all but its end mark, or the first half */
export function sendUnit(feed: CameraFeed, unit: TestUnit, part: "all" | "no end" | "half" = "all"): void {
  feed.rtcp(0, encodeUnitBegin(SSRC, unit));
  const packets = part === "half" ? unit.packets.slice(0, unit.packets.length >> 1) : unit.packets;
  for (const { track, rtp } of packets) feed.packet(track, rtp);
  if (part !== "all") return;
  feed.rtcp(0, encodeUnitEnd(SSRC, { packetCount: unit.packets.length, sha256: unitDigest(unit.packets) }));
}
