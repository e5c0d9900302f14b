/**
 * Movie fragments (moof + mdat) for files and live viewers alike (ISO/IEC 14496-12 §8.8).
 * Each sample carries its own duration, size, flags and composition offset.
 */
import type { Picture } from "../depacketise/video-format.ts";

/** One sample of a fragment, in decoding order. */
export interface Sample {
  readonly pieces: readonly Buffer[];
  readonly bytes: number;
  readonly keyFrame: boolean;
  readonly duration: number;
  /** Presentation minus decoding time; may be negative. */
  readonly compositionOffset: number;
}

export interface TrackRun {
  readonly trackId: number;
  /** Decoding time of the first sample in ticks of the track. */
  readonly decodeTime: number;
  readonly samples: readonly Sample[];
}

/** ISO/IEC 14496-12 §8.8.3.1: depends on no other, and is a sync sample; or depends and is none. */
const SYNC_FLAGS = 0x0200_0000;
const DEPENDENT_FLAGS = 0x0101_0000;
const DATA_OFFSET_PRESENT = 0x01;
/** Duration, size, flags and composition offset of each sample. */
const PER_SAMPLE_PRESENT = 0x0f00;
const DEFAULT_BASE_IS_MOOF = 0x02_0000;
const TRAF_BYTES = 8 + 16 + 20 + 20;
const SAMPLE_BYTES = 16;

/** @param sequenceNumber from 1, rising within a presentation */
export function movieFragment(sequenceNumber: number, runs: readonly TrackRun[]): Buffer {
  const moofBytes = runs.reduce((sum, run) => sum + TRAF_BYTES + run.samples.length * SAMPLE_BYTES, 8 + 16);
  const dataBytes = runs.reduce((sum, run) => sum + bytesOf(run.samples), 0);
  const out = Buffer.alloc(moofBytes + 8 + dataBytes);
  let at = boxHead(out, 0, moofBytes, "moof");
  at = boxHead(out, at, 16, "mfhd");
  at = out.writeUInt32BE(sequenceNumber >>> 0, at + 4);
  let dataAt = moofBytes + 8;
  for (const run of runs) {
    at = writeTrack(out, at, run, dataAt);
    for (const sample of run.samples) {
      for (const piece of sample.pieces) dataAt += piece.copy(out, dataAt);
    }
  }
  boxHead(out, moofBytes, 8 + dataBytes, "mdat");
  return out;
}

function writeTrack(out: Buffer, start: number, run: TrackRun, dataAt: number): number {
  let at = boxHead(out, start, TRAF_BYTES + run.samples.length * SAMPLE_BYTES, "traf");
  at = boxHead(out, at, 16, "tfhd");
  at = out.writeUInt32BE(DEFAULT_BASE_IS_MOOF, at);
  at = out.writeUInt32BE(run.trackId, at);
  at = boxHead(out, at, 20, "tfdt");
  at = out.writeUInt32BE(0x0100_0000, at);
  at = out.writeBigUInt64BE(BigInt(run.decodeTime), at);
  at = boxHead(out, at, 20 + run.samples.length * SAMPLE_BYTES, "trun");
  // Version 1: composition offsets are signed.
  at = out.writeUInt32BE(0x0100_0000 | PER_SAMPLE_PRESENT | DATA_OFFSET_PRESENT, at);
  at = out.writeUInt32BE(run.samples.length, at);
  at = out.writeInt32BE(dataAt, at);
  for (const sample of run.samples) {
    at = out.writeUInt32BE(sample.duration >>> 0, at);
    at = out.writeUInt32BE(sample.bytes, at);
    at = out.writeUInt32BE(sample.keyFrame ? SYNC_FLAGS : DEPENDENT_FLAGS, at);
    at = out.writeInt32BE(sample.compositionOffset | 0, at);
  }
  return at;
}

/** Writes length and type of a box. @returns where its content begins */
export function boxHead(out: Buffer, at: number, bytes: number, type: string): number {
  out.writeUInt32BE(bytes, at);
  out.write(type, at + 4, "latin1");
  return at + 8;
}

function bytesOf(samples: readonly Sample[]): number {
  return samples.reduce((sum, sample) => sum + sample.bytes, 0);
}

/**
 * Samples of pictures in decoding order. RTP carries presentation times only; the sorted ones serve as
 * decoding times, which is right for every stream whose pictures wait no longer than they must.
 * @param endPts90k when the picture after the last is shown; undefined: the last lasts as long as the one before
 */
export function samplesOf(pictures: readonly Picture[], endPts90k: number | undefined): Sample[] {
  const decodeTimes = pictures.map((picture) => picture.pts90k).sort((a, b) => a - b);
  const last = decodeTimes.length - 1;
  const usual = last > 0 ? decodeTimes[last]! - decodeTimes[last - 1]! : 3_000;
  const end =
    endPts90k !== undefined && endPts90k > decodeTimes[last]! ? endPts90k : decodeTimes[last]! + usual;
  return pictures.map((picture, i) => ({
    pieces: picture.pieces,
    bytes: picture.bytes,
    keyFrame: picture.keyFrame,
    duration: (decodeTimes[i + 1] ?? end) - decodeTimes[i]!,
    compositionOffset: picture.pts90k - decodeTimes[i]!,
  }));
}
