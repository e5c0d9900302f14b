/** What a decoder must know before the first picture: codec, size and parameter sets. */

/** Two formats of one camera are the same exactly when they are the same object. */
export interface VideoFormat {
  /** RFC 6381, such as `avc1.42c01f` or `hvc1.1.6.L93.b0`. */
  readonly codec: string;
  readonly kind: "avc" | "hevc";
  readonly width: number;
  readonly height: number;
  /** AVCDecoderConfigurationRecord (ISO/IEC 14496-15 §5.3.3.1.2); undefined: made from the parameter sets. */
  readonly configuration: Buffer | undefined;
  /** The NAL units that the file's head holds; samples need no copy of them. */
  readonly parameterSets: readonly Buffer[];
}

/** Ticks of video time a second, in RTP (RFC 6184 §8.2.1) and in our files alike, so that nothing is rounded. */
export const VIDEO_TIMESCALE = 90_000;

/** One picture as it is stored: what a depacketiser made of the packets of one RTP time. */
export interface Picture {
  /** Length-prefixed NAL units (ISO/IEC 14496-15 §5.3.2), as pieces. */
  readonly pieces: readonly Buffer[];
  readonly bytes: number;
  readonly keyFrame: boolean;
  /** RTP time, unwrapped: rises over the 32-bit limit. */
  readonly pts90k: number;
  /** µs since 1970 UTC. */
  readonly producerUs: number;
}
