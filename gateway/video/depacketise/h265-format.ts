/** H.265 parameter sets: what a player must be told of them. The record for the file is mediabunny's work. */
import { BitReader, MalformedParameterSetError } from "./bit-reader.ts";
import { nalTypeH265 } from "./h265-depacketiser.ts";
import type { VideoFormat } from "./video-format.ts";

const VPS = 32;
const SPS = 33;
const PPS = 34;
const MAX_SETS = 16;
const MAX_SET_BYTES = 4_096;
const MAX_SIDE_PIXELS = 16_384;

/** ITU-T H.265 §7.3.2.2.1, as far as the size. @throws MalformedParameterSetError */
export function describeSps(sps: Uint8Array): { codec: string; width: number; height: number } {
  const reader = new BitReader(sps);
  reader.skip(16 + 4);
  const subLayers = reader.bits(3);
  reader.skip(1);
  const codec = codecOf(reader);
  skipSubLayers(reader, subLayers);
  reader.unsigned();
  const chroma = reader.unsigned();
  if (chroma === 3) reader.skip(1);
  let width = reader.unsigned();
  let height = reader.unsigned();
  if (reader.flag()) {
    width -= (chroma === 1 || chroma === 2 ? 2 : 1) * (reader.unsigned() + reader.unsigned());
    height -= (chroma === 1 ? 2 : 1) * (reader.unsigned() + reader.unsigned());
  }
  if (width < 1 || height < 1 || width > MAX_SIDE_PIXELS || height > MAX_SIDE_PIXELS) {
    throw new MalformedParameterSetError(`pictures of ${width}x${height}`);
  }
  return { codec, width, height };
}

/** ISO/IEC 14496-15 annex E.3, from the general part of profile_tier_level (ITU-T H.265 §7.3.3). */
function codecOf(reader: BitReader): string {
  const space = ["", "A", "B", "C"][reader.bits(2)]!;
  const tier = reader.flag() ? "H" : "L";
  const profile = reader.bits(5);
  let compatible = 0;
  // The flags are written from the last to the first.
  for (let flag = 0; flag < 32; flag++) if (reader.flag()) compatible += 2 ** flag;
  const constraints = Array.from({ length: 6 }, () => reader.bits(8));
  const level = reader.bits(8);
  while (constraints.length > 0 && constraints.at(-1) === 0) constraints.pop();
  const parts = [`hvc1.${space}${profile}`, compatible.toString(16), `${tier}${level}`];
  return [...parts, ...constraints.map((byte) => byte.toString(16))].join(".");
}

function skipSubLayers(reader: BitReader, count: number): void {
  const present = Array.from({ length: count }, () => [reader.flag(), reader.flag()] as const);
  if (count > 0) reader.skip(2 * (8 - count));
  for (const [profile, level] of present) reader.skip((profile ? 88 : 0) + (level ? 8 : 0));
}

/** The parameter sets that a stream has shown so far. One VPS and SPS, as every camera sends; PPS by content. */
export class H265Parameters {
  #vps: Buffer | undefined;
  #sps: Buffer | undefined;
  #pps: Buffer[] = [];
  #format: VideoFormat | undefined;

  /** Undefined until one of each has come. */
  get format(): VideoFormat | undefined {
    this.#format ??= this.#build();
    return this.#format;
  }

  /** Takes the parameter sets among `nals`; others, and broken ones, are ignored. */
  learn(nals: readonly Buffer[]): void {
    for (const nal of nals) {
      if (nal.length < 3 || nal.length > MAX_SET_BYTES) continue;
      const type = nalTypeH265(nal);
      if (type === VPS && !this.#vps?.equals(nal)) this.#vps = this.#taken(nal);
      else if (type === SPS && !this.#sps?.equals(nal) && isSane(nal)) {
        this.#sps = this.#taken(nal);
        // Those of the old SPS mean nothing under the new one.
        this.#pps = [];
      } else if (
        type === PPS &&
        this.#pps.length < MAX_SETS &&
        !this.#pps.some((known) => known.equals(nal))
      ) {
        this.#pps.push(this.#taken(nal));
      }
    }
  }

  /** A copy: the original is a view of a whole network chunk. */
  #taken(nal: Buffer): Buffer {
    this.#format = undefined;
    return Buffer.from(nal);
  }

  #build(): VideoFormat | undefined {
    if (this.#vps === undefined || this.#sps === undefined || this.#pps.length === 0) return undefined;
    const parameterSets = [this.#vps, this.#sps, ...this.#pps];
    return { kind: "hevc", ...describeSps(this.#sps), configuration: undefined, parameterSets };
  }
}

function isSane(sps: Buffer): boolean {
  try {
    describeSps(sps);
    return true;
  } catch (error) {
    if (!(error instanceof MalformedParameterSetError)) throw error;
    return false;
  }
}
