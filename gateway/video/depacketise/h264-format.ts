/** H.264 parameter sets: from those that a camera sends to the record that an MP4 file needs. */
import { nalType } from "../../../protocol/rtsp/h264.ts";
import { BitReader, MalformedParameterSetError } from "./bit-reader.ts";
import type { VideoFormat } from "./video-format.ts";

const SPS = 7;
const PPS = 8;
/** Profiles whose parameter sets say more about colours (ITU-T H.264 §7.3.2.1.1). */
const HIGH_PROFILES: readonly number[] = [100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135];
/** What the counts in the record allow. */
const MAX_SETS = 31;
const MAX_SET_BYTES = 4_096;
const MAX_SIDE_PIXELS = 16_384;

/** @throws MalformedParameterSetError */
export function pictureSize(sps: Uint8Array): { width: number; height: number } {
  const reader = new BitReader(sps);
  reader.skip(8);
  const profile = reader.bits(8);
  reader.skip(16);
  reader.unsigned();
  let chroma = 1;
  if (HIGH_PROFILES.includes(profile)) chroma = skipColours(reader);
  reader.unsigned();
  skipPictureOrder(reader);
  reader.unsigned();
  reader.skip(1);
  const widthBlocks = reader.unsigned() + 1;
  const heightUnits = reader.unsigned() + 1;
  const framesOnly = reader.flag();
  if (!framesOnly) reader.skip(1);
  reader.skip(1);
  let width = widthBlocks * 16;
  let height = heightUnits * 16 * (framesOnly ? 1 : 2);
  if (reader.flag()) {
    const unitX = chroma === 1 || chroma === 2 ? 2 : 1;
    const unitY = (chroma === 1 ? 2 : 1) * (framesOnly ? 1 : 2);
    width -= unitX * (reader.unsigned() + reader.unsigned());
    height -= unitY * (reader.unsigned() + reader.unsigned());
  }
  if (width < 1 || height < 1 || width > MAX_SIDE_PIXELS || height > MAX_SIDE_PIXELS) {
    throw new MalformedParameterSetError(`pictures of ${width}x${height}`);
  }
  return { width, height };
}

/** @returns chroma_format_idc, 0 where the planes are coded apart */
function skipColours(reader: BitReader): number {
  const chroma = reader.unsigned();
  const apart = chroma === 3 && reader.flag();
  reader.unsigned();
  reader.unsigned();
  reader.skip(1);
  if (reader.flag()) {
    for (let list = 0; list < (chroma === 3 ? 12 : 8); list++) {
      if (reader.flag()) skipScalingList(reader, list < 6 ? 16 : 64);
    }
  }
  return apart ? 0 : chroma;
}

/** ITU-T H.264 §7.3.2.1.1.1 */
function skipScalingList(reader: BitReader, size: number): void {
  let last = 8;
  let next = 8;
  for (let i = 0; i < size; i++) {
    if (next !== 0) next = (last + reader.signed() + 256) % 256;
    last = next === 0 ? last : next;
  }
}

function skipPictureOrder(reader: BitReader): void {
  const type = reader.unsigned();
  if (type === 0) reader.unsigned();
  if (type !== 1) return;
  reader.skip(1);
  reader.signed();
  reader.signed();
  const cycle = reader.unsigned();
  if (cycle > 255) throw new MalformedParameterSetError(`a cycle of ${cycle} pictures`);
  for (let i = 0; i < cycle; i++) reader.signed();
}

/** The parameter sets that a stream has shown so far, by their ids. */
export class H264Parameters {
  readonly #sps = new Map<number, Buffer>();
  readonly #pps = new Map<number, Buffer>();
  #format: VideoFormat | undefined;

  /** Undefined until a whole, sane pair has come. */
  get format(): VideoFormat | undefined {
    this.#format ??= this.#build();
    return this.#format;
  }

  /** Takes the parameter sets among `nals`; others, and broken ones, are ignored. */
  learn(nals: readonly Buffer[]): void {
    for (const nal of nals) {
      const type = nal.length === 0 ? 0 : nalType(nal);
      if (type === SPS) this.#keep(this.#sps, nal, 4);
      else if (type === PPS) this.#keep(this.#pps, nal, 1);
    }
  }

  #keep(sets: Map<number, Buffer>, nal: Buffer, idAt: number): void {
    if (nal.length <= idAt || nal.length > MAX_SET_BYTES) return;
    try {
      const reader = new BitReader(nal.subarray(idAt, idAt + 8));
      const id = reader.unsigned();
      if (sets.get(id)?.equals(nal) || (sets.size >= MAX_SETS && !sets.has(id))) return;
      if (sets === this.#sps) pictureSize(nal);
      // A copy: the original is a view of a whole network chunk.
      sets.set(id, Buffer.from(nal));
      this.#format = undefined;
    } catch (error) {
      if (!(error instanceof MalformedParameterSetError)) throw error;
    }
  }

  #build(): VideoFormat | undefined {
    const sps = [...this.#sps.values()];
    const pps = [...this.#pps.values()];
    const first = sps[0];
    if (first === undefined || pps.length === 0) return undefined;
    const codec = `avc1.${first.toString("hex", 1, 4)}`;
    const configuration = configurationRecord(sps, pps);
    return { codec, kind: "avc", ...pictureSize(first), configuration, parameterSets: [...sps, ...pps] };
  }
}

function configurationRecord(sps: readonly Buffer[], pps: readonly Buffer[]): Buffer {
  const [profile, compatibility, level] = sps[0]!.subarray(1, 4);
  // Reserved bits are ones; NAL units are prefixed by four bytes of length.
  const pieces: Buffer[] = [Buffer.from([1, profile!, compatibility!, level!, 0xff, 0xe0 | sps.length])];
  for (const set of sps) pieces.push(lengthOf(set), set);
  pieces.push(Buffer.from([pps.length]));
  for (const set of pps) pieces.push(lengthOf(set), set);
  // Optional for the high profiles, and left out by many writers: 4:2:0 and 8 bits follow from the set itself.
  return Buffer.concat(pieces);
}

function lengthOf(set: Buffer): Buffer {
  const length = Buffer.alloc(2);
  length.writeUInt16BE(set.length);
  return length;
}
