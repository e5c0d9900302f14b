/**
 * H.265 out of RTP (RFC 7798, without decoding order numbers): single NAL units, aggregation packets and
 * fragmentation units become access units, grouped by RTP time.
 */
import type { AccessUnit } from "../../protocol/rtsp/h264.ts";
import { type RtpPacket, rtpSequenceDifference } from "../../protocol/rtsp/rtp.ts";

const AGGREGATE = 48;
const FRAGMENT = 49;
const HEADER_BYTES = 2;
const MAX_ACCESS_UNIT_BYTES = 8 * 1_048_576;
const MAX_NALS = 4_096;

/** NAL unit type, 0 to 63 (ITU-T H.265 §7.3.1.2). */
export function nalTypeH265(nal: Uint8Array): number {
  return (nal[0]! >> 1) & 0x3f;
}

/** Types 0 to 31 carry coded picture data (ITU-T H.265 table 7-1). */
export function isVclH265(nal: Uint8Array): boolean {
  return nalTypeH265(nal) < 32;
}

/** Types 16 to 21: a decoder may begin here. */
function isRandomAccess(nal: Uint8Array): boolean {
  const type = nalTypeH265(nal);
  return type >= 16 && type <= 21;
}

interface OpenUnit {
  readonly rtpTime: number;
  readonly nals: Buffer[];
  bytes: number;
  damaged: boolean;
}

export class H265Depacketiser {
  #open: OpenUnit | undefined;
  #fragments: Buffer[] = [];
  #nextSequence: number | undefined;

  /** @returns the access unit before this packet's, once its RTP time changes. */
  push(packet: RtpPacket): AccessUnit | undefined {
    const jump =
      this.#nextSequence === undefined ? 0 : rtpSequenceDifference(packet.sequence, this.#nextSequence);
    if (jump === -1 && this.#open?.rtpTime === packet.timestamp) return undefined;
    this.#nextSequence = (packet.sequence + 1) & 0xffff;
    if (jump !== 0) this.#damage();
    let done: AccessUnit | undefined;
    if (this.#open?.rtpTime !== packet.timestamp) {
      done = this.#finish();
      this.#open = { rtpTime: packet.timestamp, nals: [], bytes: 0, damaged: jump !== 0 };
    }
    // A NAL unit may be its header alone, as those that end a sequence are (ITU-T H.265 §7.3.2.6).
    if (packet.payload.length >= HEADER_BYTES) this.#unpack(packet.payload);
    else if (packet.payload.length > 0) this.#damage();
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
    const { rtpTime, nals, damaged } = open;
    return { rtpTime, nals, keyFrame: nals.some(isRandomAccess), damaged };
  }

  #damage(): void {
    if (this.#open !== undefined) this.#open.damaged = true;
    this.#fragments = [];
  }

  #unpack(payload: Buffer): void {
    const type = nalTypeH265(payload);
    if (type !== FRAGMENT && this.#fragments.length > 0) this.#damage();
    if (type < AGGREGATE) this.#add(payload);
    else if (type === AGGREGATE) this.#unpackAggregate(payload);
    else if (type === FRAGMENT) this.#unpackFragment(payload);
    else this.#damage();
  }

  /** RFC 7798 §4.4.2. */
  #unpackAggregate(payload: Buffer): void {
    let at = HEADER_BYTES;
    while (at + 2 <= payload.length) {
      const end = at + 2 + payload.readUInt16BE(at);
      const nal = payload.subarray(at + 2, end);
      if (end > payload.length || nal.length < HEADER_BYTES) {
        this.#damage();
        return;
      }
      this.#add(nal);
      at = end;
    }
    if (at !== payload.length) this.#damage();
  }

  /** RFC 7798 §4.4.3: the NAL unit's type stands in the FU header. */
  #unpackFragment(payload: Buffer): void {
    if (payload.length < HEADER_BYTES + 2) {
      this.#damage();
      return;
    }
    const header = payload[HEADER_BYTES]!;
    const starts = (header & 0x80) !== 0;
    if (starts !== (this.#fragments.length === 0)) this.#damage();
    if (starts) this.#fragments.push(Buffer.of((payload[0]! & 0x81) | ((header & 0x3f) << 1), payload[1]!));
    else if (this.#fragments.length === 0) return;
    this.#fragments.push(payload.subarray(HEADER_BYTES + 1));
    this.#open!.bytes += payload.length;
    if (this.#open!.bytes > MAX_ACCESS_UNIT_BYTES) this.#damage();
    else if (header & 0x40) {
      this.#open!.nals.push(Buffer.concat(this.#fragments));
      this.#fragments = [];
    }
  }

  #add(nal: Buffer): void {
    const open = this.#open!;
    open.bytes += nal.length;
    if (open.bytes > MAX_ACCESS_UNIT_BYTES || open.nals.length >= MAX_NALS) open.damaged = true;
    else open.nals.push(nal);
  }
}
