/**
 * H.264 out of RTP (RFC 6184, packetization modes 0 and 1): single NAL units, STAP-A and FU-A become
 * access units. They are grouped by RTP time, as some encoders set the marker bit on every slice.
 */
import { createHash } from "node:crypto";
import { type RtpPacket, rtpSequenceDifference } from "./rtp.ts";

/** A picture larger than this is cut off and marked as damaged. */
export const MAX_ACCESS_UNIT_BYTES = 8 * 1_048_576;
const MAX_NALS = 4_096;

export interface AccessUnit {
  readonly rtpTime: number;
  /** Whole NAL units without start codes, in order. Some are views of the packets. */
  readonly nals: readonly Buffer[];
  /** It holds an IDR slice (NAL type 5). */
  readonly keyFrame: boolean;
  /** A packet was missing, malformed or of an unknown kind: what is here is not all of it. */
  readonly damaged: boolean;
}

interface OpenUnit {
  readonly rtpTime: number;
  readonly nals: Buffer[];
  bytes: number;
  damaged: boolean;
}

const IDR = 5;
const STAP_A = 24;
const FU_A = 28;

export class H264Depacketiser {
  #open: OpenUnit | undefined;
  #fragments: Buffer[] = [];
  #nextSequence: number | undefined;

  /** @returns the access unit before this packet's, once its RTP time changes. */
  push(packet: RtpPacket): AccessUnit | undefined {
    const jump =
      this.#nextSequence === undefined ? 0 : rtpSequenceDifference(packet.sequence, this.#nextSequence);
    // A packet that came twice adds nothing.
    if (jump === -1 && this.#open?.rtpTime === packet.timestamp) return undefined;
    this.#nextSequence = (packet.sequence + 1) & 0xffff;
    // What is missing may be the end of one picture, the start of the next, or both.
    if (jump !== 0) this.#damage();
    let done: AccessUnit | undefined;
    if (this.#open?.rtpTime !== packet.timestamp) {
      done = this.#finish();
      this.#open = { rtpTime: packet.timestamp, nals: [], bytes: 0, damaged: jump !== 0 };
    }
    if (packet.payload.length > 0) this.#unpack(packet.payload);
    return done;
  }

  /** The last access unit. The next packet starts afresh, and may have any sequence number. */
  flush(): AccessUnit | undefined {
    this.#nextSequence = undefined;
    return this.#finish();
  }

  #finish(): AccessUnit | undefined {
    if (this.#fragments.length > 0) this.#damage();
    const open = this.#open;
    this.#open = undefined;
    if (open === undefined || (open.nals.length === 0 && !open.damaged)) return undefined;
    return {
      rtpTime: open.rtpTime,
      nals: open.nals,
      keyFrame: open.nals.some((nal) => nalType(nal) === IDR),
      damaged: open.damaged,
    };
  }

  /** Marks the open unit, and drops a NAL unit that can no longer become whole. */
  #damage(): void {
    if (this.#open !== undefined) this.#open.damaged = true;
    this.#fragments = [];
  }

  #unpack(payload: Buffer): void {
    const type = payload[0]! & 0x1f;
    if (type !== FU_A && this.#fragments.length > 0) this.#damage();
    if (type >= 1 && type <= 23) this.#add(payload);
    else if (type === STAP_A) this.#unpackAggregate(payload);
    else if (type === FU_A) this.#unpackFragment(payload);
    else this.#damage();
  }

  /** RFC 6184 §5.7.1. */
  #unpackAggregate(payload: Buffer): void {
    let at = 1;
    while (at + 2 <= payload.length) {
      const end = at + 2 + payload.readUInt16BE(at);
      const nal = payload.subarray(at + 2, end);
      if (end > payload.length || nal.length === 0 || nalType(nal) === 0 || nalType(nal) > 23) {
        this.#damage();
        return;
      }
      this.#add(nal);
      at = end;
    }
    if (at !== payload.length) this.#damage();
  }

  /** RFC 6184 §5.8: the NAL unit's head is spread over the indicator and the FU header. */
  #unpackFragment(payload: Buffer): void {
    if (payload.length < 3) {
      this.#damage();
      return;
    }
    const header = payload[1]!;
    const starts = (header & 0x80) !== 0;
    if (starts !== (this.#fragments.length === 0)) this.#damage();
    if (starts) this.#fragments.push(Buffer.of((payload[0]! & 0xe0) | (header & 0x1f)));
    else if (this.#fragments.length === 0) return;
    this.#fragments.push(payload.subarray(2));
    this.#open!.bytes += payload.length;
    if (this.#open!.bytes > MAX_ACCESS_UNIT_BYTES) this.#damage();
    else if (header & 0x40) {
      const nal = Buffer.concat(this.#fragments);
      this.#fragments = [];
      this.#open!.nals.push(nal);
    }
  }

  #add(nal: Buffer): void {
    const open = this.#open!;
    open.bytes += nal.length;
    if (open.bytes > MAX_ACCESS_UNIT_BYTES || open.nals.length >= MAX_NALS) open.damaged = true;
    else open.nals.push(nal);
  }
}

/** NAL unit type, 1 to 23. */
export function nalType(nal: Uint8Array): number {
  return nal[0]! & 0x1f;
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
