/**
 * One unit as a file that describes itself, so that an index can always be made again from the files:
 *
 *   ftyp moov | prft moof mdat | uuid { JSON FragmentFacts, u32 crc32c of all before it }
 *
 * The pictures (or a sound before them) begin at time 0; `prft` (ISO/IEC 14496-12 §8.16.5) and the facts hold the producer's time.
 * Players skip the `uuid` box. A unit that cannot be depacketised is kept as encodeUnit of
 * protocol/footage.ts makes it, which has its own checksum.
 */
import { crc32c } from "../../../runtime/crc32c.ts";
import { HeadwaterError } from "../../../runtime/errors.ts";
import type { AudioFormat, AudioFrame } from "../depacketise/audio-source.ts";
import { type Picture, VIDEO_TIMESCALE, type VideoFormat } from "../depacketise/video-format.ts";
import { AUDIO_TRACK_ID, initSegmentOf, VIDEO_TRACK_ID } from "./init-segment.ts";
import { boxHead, movieFragment, samplesOf, type TrackRun } from "./movie-fragment.ts";

const FACTS_VERSION = 1;
const FACTS_ID = Buffer.from("8d3b4c5ae0f6476b9c0b2f1d6e7a9055", "hex");
const FACTS_HEAD_BYTES = 8 + 16;
const MAX_FACTS_BYTES = 4_096;
/** Longer is what no unit lasts, so the RTP times were wrong; searches look back this far at most. */
const MAX_DURATION_US = 120_000_000;
/** A longer silence between two packets is no silence but another clock. */
const MAX_SOUND_GAP_S = 10;
/** From 1900, where NTP counts from, to 1970 (RFC 5905 §6). */
const NTP_OFFSET_S = 2_208_988_800n;

export interface FragmentFacts {
  readonly version: typeof FACTS_VERSION;
  readonly camera: string;
  /** 16 hex digits. */
  readonly epoch: string;
  /** Decimal, as it exceeds what JSON numbers hold. */
  readonly sequence: string;
  readonly producerUs: number;
  readonly durationUs: number;
  readonly state: "whole" | "truncated";
  readonly codec: string;
  readonly width: number;
  readonly height: number;
  readonly pictures: number;
}

export interface FragmentSource {
  readonly camera: string;
  readonly epoch: string;
  readonly sequence: bigint;
  readonly producerUs: number;
  readonly state: "whole" | "truncated";
  readonly format: VideoFormat;
  /** At least one. */
  readonly pictures: readonly Picture[];
  readonly sound?: Sound;
}

/** What was heard during a unit. */
export interface Sound {
  readonly format: AudioFormat;
  /** At least one. */
  readonly frames: readonly AudioFrame[];
  /** From the first picture to the first sound; may be negative. */
  readonly offsetUs: number;
}

/** The file was cut off or damaged. */
export class DamagedFragmentError extends HeadwaterError {
  constructor(reason: string) {
    super("FRAGMENT_DAMAGED", {
      message: `fragment: ${reason}`,
      hint: "check the disk under dataDir; the gateway has moved the file aside",
    });
  }
}

export async function buildFragment(
  source: FragmentSource,
): Promise<{ bytes: Buffer; facts: FragmentFacts }> {
  const { bytes: init } = await initSegmentOf(source.format, source.sound?.format);
  const origin = source.pictures.reduce((least, picture) => Math.min(least, picture.pts90k), Infinity);
  const shifted = source.pictures.map((picture) => ({ ...picture, pts90k: picture.pts90k - origin }));
  const samples = samplesOf(shifted, undefined);
  const ticks = samples.reduce((sum, sample) => sum + sample.duration, 0);
  const facts: FragmentFacts = {
    version: FACTS_VERSION,
    camera: source.camera,
    epoch: source.epoch,
    sequence: source.sequence.toString(),
    producerUs: source.producerUs,
    durationUs: Math.min(Math.round((ticks * 1_000_000) / VIDEO_TIMESCALE), MAX_DURATION_US),
    state: source.state,
    codec: source.format.codec,
    width: source.format.width,
    height: source.format.height,
    pictures: samples.length,
  };
  const sound = source.sound && soundRun(source.sound);
  // Times are never negative, so sound that begins first moves the pictures back.
  const decodeTime = Math.max(0, -Math.round(((source.sound?.offsetUs ?? 0) * VIDEO_TIMESCALE) / 1_000_000));
  const pictures: TrackRun = { trackId: VIDEO_TRACK_ID, decodeTime, samples };
  const movie = movieFragment(1, sound === undefined ? [pictures] : [pictures, sound]);
  return { bytes: sealed([init, producerTime(source.producerUs, decodeTime), movie], facts), facts };
}

function soundRun(sound: Sound): TrackRun {
  const { frames, offsetUs, format } = sound;
  const samples = frames.map((frame, i) => {
    const step = (frames[i + 1]?.pts ?? frame.pts + frame.duration) - frame.pts;
    const sane = step > 0 && step <= MAX_SOUND_GAP_S * format.sampleRate;
    return {
      pieces: [frame.data],
      bytes: frame.data.length,
      keyFrame: true,
      duration: sane ? step : frame.duration,
      compositionOffset: 0,
    };
  });
  const decodeTime = Math.max(0, Math.round((offsetUs * format.sampleRate) / 1_000_000));
  return { trackId: AUDIO_TRACK_ID, decodeTime, samples };
}

/** ISO/IEC 14496-12 §8.16.5, version 1: what moment the first picture's media time was. */
function producerTime(producerUs: number, mediaTime: number): Buffer {
  const box = Buffer.alloc(32);
  boxHead(box, 0, 32, "prft");
  box.writeUInt32BE(0x0100_0000, 8);
  box.writeUInt32BE(VIDEO_TRACK_ID, 12);
  const us = BigInt(producerUs);
  // RFC 5905 §6: in February 2036 the next era begins, and the seconds begin anew.
  const seconds = BigInt.asUintN(32, us / 1_000_000n + NTP_OFFSET_S);
  box.writeBigUInt64BE((seconds << 32n) | (((us % 1_000_000n) << 32n) / 1_000_000n), 16);
  box.writeBigUInt64BE(BigInt(mediaTime), 24);
  return box;
}

function sealed(pieces: readonly Buffer[], facts: FragmentFacts): Buffer {
  const text = Buffer.from(JSON.stringify(facts));
  const head = Buffer.alloc(FACTS_HEAD_BYTES);
  boxHead(head, 0, FACTS_HEAD_BYTES + text.length + 4, "uuid");
  FACTS_ID.copy(head, 8);
  const bytes = Buffer.concat([...pieces, head, text, Buffer.alloc(4)]);
  bytes.writeUInt32BE(crc32c(bytes, 0, bytes.length - 4), bytes.length - 4);
  return bytes;
}

/** What a file says of itself, once its checksum holds. @throws DamagedFragmentError */
export function readFacts(bytes: Buffer): FragmentFacts {
  const end = bytes.length - 4;
  const idAt = bytes.lastIndexOf(FACTS_ID);
  const from = idAt + FACTS_ID.length;
  if (idAt < 8 || from > end || end - from > MAX_FACTS_BYTES)
    throw new DamagedFragmentError("no facts at its end");
  if (crc32c(bytes, 0, end) !== bytes.readUInt32BE(end))
    throw new DamagedFragmentError("checksum does not match");
  const facts = JSON.parse(bytes.toString("utf8", from, end)) as FragmentFacts;
  if (facts.version !== FACTS_VERSION)
    throw new DamagedFragmentError(`version ${facts.version} of its facts`);
  return facts;
}
