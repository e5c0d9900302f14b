/** H.264 out of RTP (RFC 6184, packetization modes 0 and 1): single NAL units, STAP-A and FU-A. */
import { createHash } from "node:crypto";
import { type AccessUnit, NalDepacketiser, type NalFormat } from "./nal-depacketiser.ts";

const IDR = 5;
const STAP_A = 24;
const FU_A = 28;

const H264: NalFormat = {
  headerBytes: 1,
  kindOf: (payload) => {
    const type = nalType(payload);
    if (type === STAP_A) return "aggregate";
    if (type === FU_A) return "fragment";
    return isSingle(type) ? "single" : undefined;
  },
  isAggregable: (nal) => isSingle(nalType(nal)),
  // RFC 6184 §5.8: it is spread over the indicator and the FU header.
  headerOf: (fragment) => Buffer.of((fragment[0]! & 0xe0) | (fragment[1]! & 0x1f)),
  isKeyFrame: (nal) => nalType(nal) === IDR,
};

export class H264Depacketiser extends NalDepacketiser {
  constructor() {
    super(H264);
  }
}

/** NAL unit type, 1 to 23. */
export function nalType(nal: Uint8Array): number {
  return nal[0]! & 0x1f;
}

function isSingle(type: number): boolean {
  return type >= 1 && type <= 23;
}

/** Types 1 to 5 carry coded picture data (ITU-T H.264 table 7-1). */
export function isVcl(nal: Uint8Array): boolean {
  const type = nalType(nal);
  return type >= 1 && type <= 5;
}

/** SHA-256 in hex over the VCL NAL units of a picture, one behind the other: what the truth file holds. */
export function vclSha256(unit: Pick<AccessUnit, "nals">): string {
  const hash = createHash("sha256");
  for (const nal of unit.nals) if (isVcl(nal)) hash.update(nal);
  return hash.digest("hex");
}
