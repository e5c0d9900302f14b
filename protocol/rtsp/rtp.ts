/** A look into one RTP packet (RFC 3550 §5.1), without copying. */

export interface RtpPacket {
  readonly marker: boolean;
  readonly payloadType: number;
  readonly sequence: number;
  readonly timestamp: number;
  readonly ssrc: number;
  /** A view: behind CSRCs and extension, without padding. May be empty. */
  readonly payload: Buffer;
}

/** Undefined when the bytes are no RTP packet of version 2 or its lengths do not fit. */
export function parseRtp(bytes: Buffer): RtpPacket | undefined {
  if (bytes.length < 12 || bytes[0]! >> 6 !== 2) return undefined;
  const first = bytes[0]!;
  let from = 12 + (first & 0x0f) * 4;
  if (first & 0x10) {
    if (from + 4 > bytes.length) return undefined;
    from += 4 + bytes.readUInt16BE(from + 2) * 4;
  }
  let to = bytes.length;
  if (first & 0x20) {
    const padding = bytes[to - 1]!;
    if (padding === 0) return undefined;
    to -= padding;
  }
  if (from > to) return undefined;
  return {
    marker: (bytes[1]! & 0x80) !== 0,
    payloadType: bytes[1]! & 0x7f,
    sequence: bytes.readUInt16BE(2),
    timestamp: bytes.readUInt32BE(4),
    ssrc: bytes.readUInt32BE(8),
    payload: bytes.subarray(from, to),
  };
}

/** `later - earlier` of two 32-bit RTP times, from -2^31 to 2^31 - 1: the clock wraps. */
export function rtpTimeDifference(later: number, earlier: number): number {
  return (later - earlier) | 0;
}

/** The same for 16-bit sequence numbers. */
export function rtpSequenceDifference(later: number, earlier: number): number {
  return ((later - earlier) << 16) >> 16;
}

export interface RtpFields {
  readonly marker: boolean;
  readonly payloadType: number;
  readonly sequence: number;
  readonly timestamp: number;
  readonly ssrc: number;
}

export function encodeRtp(fields: RtpFields, payload: Uint8Array): Buffer {
  const bytes = Buffer.allocUnsafe(12 + payload.length);
  bytes[0] = 0x80;
  bytes[1] = (fields.marker ? 0x80 : 0) | (fields.payloadType & 0x7f);
  bytes.writeUInt16BE(fields.sequence & 0xffff, 2);
  bytes.writeUInt32BE(fields.timestamp >>> 0, 4);
  bytes.writeUInt32BE(fields.ssrc >>> 0, 8);
  bytes.set(payload, 12);
  return bytes;
}
