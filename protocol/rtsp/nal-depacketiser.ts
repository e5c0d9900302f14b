/**
 * NAL units out of RTP: single ones, aggregation packets and fragmentation units become access units.
 * They are grouped by RTP time, as some encoders set the marker bit on every slice. What H.264 and
 * H.265 say differently is told by a NalFormat.
 */
import { type RtpPacket, rtpSequenceDifference } from "./rtp.ts";

/** A picture larger than this is cut off and marked as damaged. */
const MAX_ACCESS_UNIT_BYTES = 8 * 1_048_576;
const MAX_NALS = 4_096;

export interface AccessUnit {
  readonly rtpTime: number;
  /** Whole NAL units without start codes, in order. Some are views of the packets. */
  readonly nals: readonly Buffer[];
  /** A decoder may begin here. */
  readonly keyFrame: boolean;
  /** A packet was missing, malformed or of an unknown kind: what is here is not all of it. */
  readonly damaged: boolean;
}

export interface NalFormat {
  /** Of a NAL unit and of a packet's payload; a fragment has one byte more, with its type and where it lies. */
  readonly headerBytes: number;
  /** Of a payload or NAL unit of at least `headerBytes`; undefined where the kind is unknown. */
  kindOf(payload: Buffer): "single" | "aggregate" | "fragment" | undefined;
  /** Whether a NAL unit of at least `headerBytes` may stand in an aggregate. */
  isAggregable(nal: Buffer): boolean;
  /** The header of the NAL unit that begins with this fragment. */
  headerOf(fragment: Buffer): Buffer;
  isKeyFrame(nal: Buffer): boolean;
}

interface OpenUnit {
  readonly rtpTime: number;
  readonly nals: Buffer[];
  bytes: number;
  damaged: boolean;
}

export class NalDepacketiser {
  readonly #format: NalFormat;
  #open: OpenUnit | undefined;
  #fragments: Buffer[] = [];
  #nextSequence: number | undefined;

  constructor(format: NalFormat) {
    this.#format = format;
  }

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
    // A NAL unit may be its header alone, as those that end a sequence are (ITU-T H.265 §7.3.2.6).
    if (packet.payload.length >= this.#format.headerBytes) this.#unpack(packet.payload);
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
    return { rtpTime, nals, keyFrame: nals.some((nal) => this.#format.isKeyFrame(nal)), damaged };
  }

  /** Marks the open unit, and drops a NAL unit that can no longer become whole. */
  #damage(): void {
    if (this.#open !== undefined) this.#open.damaged = true;
    this.#fragments = [];
  }

  #unpack(payload: Buffer): void {
    const kind = this.#format.kindOf(payload);
    if (kind !== "fragment" && this.#fragments.length > 0) this.#damage();
    if (kind === "single") this.#add(payload);
    else if (kind === "aggregate") this.#unpackAggregate(payload);
    else if (kind === "fragment") this.#unpackFragment(payload);
    else this.#damage();
  }

  /** RFC 6184 §5.7.1, RFC 7798 §4.4.2. */
  #unpackAggregate(payload: Buffer): void {
    const { headerBytes } = this.#format;
    let at = headerBytes;
    while (at + 2 <= payload.length) {
      const end = at + 2 + payload.readUInt16BE(at);
      const nal = payload.subarray(at + 2, end);
      if (end > payload.length || nal.length < headerBytes || !this.#format.isAggregable(nal)) {
        this.#damage();
        return;
      }
      this.#add(nal);
      at = end;
    }
    if (at !== payload.length) this.#damage();
  }

  /** RFC 6184 §5.8, RFC 7798 §4.4.3: the NAL unit's type stands in the FU header. */
  #unpackFragment(payload: Buffer): void {
    const { headerBytes } = this.#format;
    if (payload.length < headerBytes + 2) {
      this.#damage();
      return;
    }
    const header = payload[headerBytes]!;
    const starts = (header & 0x80) !== 0;
    if (starts !== (this.#fragments.length === 0)) this.#damage();
    if (starts) this.#fragments.push(this.#format.headerOf(payload));
    else if (this.#fragments.length === 0) return;
    this.#fragments.push(payload.subarray(headerBytes + 1));
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
