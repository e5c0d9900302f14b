/**
 * Reads an archived fragment the way a stranger would (ISO/IEC 14496-12), so that a test can compare each
 * picture with what the camera says it sent.
 */
import { createHash } from "node:crypto";
import type { VideoArchive } from "../../gateway/video/video-archive.ts";

export interface PictureDigest {
  /** SHA-256 in hex over the VCL NAL units (types 1 to 5) of the picture, one behind the other. */
  readonly vclSha256: string;
  /** In ticks of the track. */
  readonly decodeTime: number;
  readonly decodeUs: number;
  readonly keyFrame: boolean;
}

interface Box {
  readonly type: string;
  readonly start: number;
  /** Where its content begins. */
  readonly from: number;
  readonly to: number;
}

interface Defaults {
  duration: number;
  size: number;
  flags: number;
}

const NOT_SYNC = 0x1_0000;

/** The pictures of the first video track, in decoding order. @throws Error for what is no fMP4 with H.264 */
export function pictureDigests(fmp4: Buffer): PictureDigest[] {
  const top = boxesIn(fmp4, 0, fmp4.length);
  const moov = only(top, "moov");
  const track = videoTrackOf(fmp4, moov);
  const defaults = trackDefaults(fmp4, moov, track.id);
  const pictures: PictureDigest[] = [];
  for (const moof of top.filter((box) => box.type === "moof")) {
    for (const traf of within(fmp4, moof).filter((box) => box.type === "traf")) {
      pictures.push(...picturesOf(fmp4, moof, traf, track, defaults));
    }
  }
  return pictures;
}

/** `vclSha256` of all pictures of a camera, fragment by fragment. */
export async function archivedDigests(
  video: Pick<VideoArchive, "fragments" | "readFragment">,
  camera: string,
): Promise<string[]> {
  const digests: string[] = [];
  for (const { id } of await video.fragments(camera, 0, Number.MAX_SAFE_INTEGER, 10_000)) {
    const bytes = (await video.readFragment(camera, id))!;
    digests.push(...pictureDigests(bytes).map((picture) => picture.vclSha256));
  }
  return digests;
}

/** The producer's time of the first picture, from `prft`; undefined when the file has none. */
export function producerUsOf(fmp4: Buffer): number | undefined {
  const prft = boxesIn(fmp4, 0, fmp4.length).find((box) => box.type === "prft");
  if (prft === undefined) return undefined;
  const ntp = fmp4.readBigUInt64BE(prft.from + 8);
  const seconds = Number(ntp >> 32n) - 2_208_988_800;
  return seconds * 1_000_000 + Math.round((Number(ntp & 0xffff_ffffn) * 1_000_000) / 2 ** 32);
}

function boxesIn(bytes: Buffer, from: number, to: number): Box[] {
  const found: Box[] = [];
  for (let at = from; at + 8 <= to; ) {
    let size = bytes.readUInt32BE(at);
    let head = 8;
    if (size === 1) {
      size = Number(bytes.readBigUInt64BE(at + 8));
      head = 16;
    } else if (size === 0) size = to - at;
    if (size < head || at + size > to) throw new Error(`a box of ${size} bytes at ${at}`);
    found.push({ type: bytes.toString("latin1", at + 4, at + 8), start: at, from: at + head, to: at + size });
    at += size;
  }
  return found;
}

const within = (bytes: Buffer, box: Box): Box[] => boxesIn(bytes, box.from, box.to);

function only(boxes: readonly Box[], type: string): Box {
  const box = boxes.find((candidate) => candidate.type === type);
  if (box === undefined) throw new Error(`no ${type} box`);
  return box;
}

function videoTrackOf(bytes: Buffer, moov: Box): { id: number; timescale: number } {
  for (const trak of within(bytes, moov).filter((box) => box.type === "trak")) {
    const parts = within(bytes, trak);
    const mdia = within(bytes, only(parts, "mdia"));
    if (bytes.toString("latin1", only(mdia, "hdlr").from + 8, only(mdia, "hdlr").from + 12) !== "vide")
      continue;
    const tkhd = only(parts, "tkhd").from;
    const mdhd = only(mdia, "mdhd").from;
    return {
      id: bytes.readUInt32BE(tkhd + (bytes[tkhd] === 1 ? 20 : 12)),
      timescale: bytes.readUInt32BE(mdhd + (bytes[mdhd] === 1 ? 20 : 12)),
    };
  }
  throw new Error("no video track");
}

function trackDefaults(bytes: Buffer, moov: Box, trackId: number): Defaults {
  const trexes = within(bytes, only(within(bytes, moov), "mvex")).filter((box) => box.type === "trex");
  const trex = trexes.find((box) => bytes.readUInt32BE(box.from + 4) === trackId);
  if (trex === undefined) throw new Error(`no trex of track ${trackId}`);
  return {
    duration: bytes.readUInt32BE(trex.from + 12),
    size: bytes.readUInt32BE(trex.from + 16),
    flags: bytes.readUInt32BE(trex.from + 20),
  };
}

function picturesOf(
  bytes: Buffer,
  moof: Box,
  traf: Box,
  track: { id: number; timescale: number },
  trackWide: Defaults,
): PictureDigest[] {
  const parts = within(bytes, traf);
  const tfhd = only(parts, "tfhd").from;
  if (bytes.readUInt32BE(tfhd + 4) !== track.id) return [];
  const flags = bytes.readUIntBE(tfhd + 1, 3);
  const defaults = { ...trackWide };
  let at = tfhd + 8;
  let base = moof.start;
  if (flags & 0x01) {
    base = Number(bytes.readBigUInt64BE(at));
    at += 8;
  }
  if (flags & 0x02) at += 4;
  for (const [bit, name] of [
    [0x08, "duration"],
    [0x10, "size"],
    [0x20, "flags"],
  ] as const) {
    if (!(flags & bit)) continue;
    defaults[name] = bytes.readUInt32BE(at);
    at += 4;
  }
  const tfdt = only(parts, "tfdt").from;
  let decodeTime = bytes[tfdt] === 1 ? Number(bytes.readBigUInt64BE(tfdt + 4)) : bytes.readUInt32BE(tfdt + 4);
  const pictures: PictureDigest[] = [];
  for (const trun of parts.filter((box) => box.type === "trun")) {
    for (const sample of samplesOf(bytes, trun, base, defaults)) {
      const vclSha256 = vclDigest(bytes.subarray(sample.from, sample.from + sample.size));
      const decodeUs = Math.round((decodeTime * 1_000_000) / track.timescale);
      pictures.push({ vclSha256, decodeTime, decodeUs, keyFrame: (sample.flags & NOT_SYNC) === 0 });
      decodeTime += sample.duration;
    }
  }
  return pictures;
}

function samplesOf(
  bytes: Buffer,
  trun: Box,
  base: number,
  defaults: Defaults,
): (Defaults & { from: number })[] {
  const flags = bytes.readUIntBE(trun.from + 1, 3);
  const count = bytes.readUInt32BE(trun.from + 4);
  let at = trun.from + 8;
  const take = (bit: number, fallback: number): number => {
    if (!(flags & bit)) return fallback;
    at += 4;
    return bytes.readUInt32BE(at - 4);
  };
  let from = base + take(0x01, 0);
  const firstFlags = take(0x04, defaults.flags);
  return Array.from({ length: count }, (_, i) => {
    const duration = take(0x100, defaults.duration);
    const size = take(0x200, defaults.size);
    const sampleFlags = take(0x400, i === 0 ? firstFlags : defaults.flags);
    take(0x800, 0);
    const sample = { duration, size, flags: sampleFlags, from };
    from += size;
    if (from > bytes.length) throw new Error("a sample runs over the end");
    return sample;
  });
}

/** Over length-prefixed NAL units (ISO/IEC 14496-15 §5.3.2), four bytes of length. */
function vclDigest(sample: Buffer): string {
  const hash = createHash("sha256");
  for (let at = 0; at < sample.length; ) {
    const end = at + 4 + sample.readUInt32BE(at);
    if (end > sample.length || end === at + 4) throw new Error("a NAL unit runs over the end of its sample");
    const type = sample[at + 4]! & 0x1f;
    if (type >= 1 && type <= 5) hash.update(sample.subarray(at + 4, end));
    at = end;
  }
  return hash.digest("hex");
}
