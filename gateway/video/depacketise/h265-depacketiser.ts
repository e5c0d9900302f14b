/** H.265 out of RTP (RFC 7798, without decoding order numbers). */
import { NalDepacketiser, type NalFormat } from "../../../protocol/rtsp/nal-depacketiser.ts";

const AGGREGATE = 48;
const FRAGMENT = 49;

const H265: NalFormat = {
  headerBytes: 2,
  kindOf: (payload) => {
    const type = nalTypeH265(payload);
    if (type === AGGREGATE) return "aggregate";
    if (type === FRAGMENT) return "fragment";
    return type < AGGREGATE ? "single" : undefined;
  },
  isAggregable: () => true,
  headerOf: (fragment) => Buffer.of((fragment[0]! & 0x81) | ((fragment[2]! & 0x3f) << 1), fragment[1]!),
  // Types 16 to 21: a decoder may begin here.
  isKeyFrame: (nal) => nalTypeH265(nal) >= 16 && nalTypeH265(nal) <= 21,
};

export class H265Depacketiser extends NalDepacketiser {
  constructor() {
    super(H265);
  }
}

/** NAL unit type, 0 to 63 (ITU-T H.265 §7.3.1.2). */
export function nalTypeH265(nal: Uint8Array): number {
  return (nal[0]! >> 1) & 0x3f;
}

/** Types 0 to 31 carry coded picture data (ITU-T H.265 table 7-1). */
export function isVclH265(nal: Uint8Array): boolean {
  return nalTypeH265(nal) < 32;
}
