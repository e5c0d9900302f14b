/** Frames and headers of HTTP/2 as plain bytes, as far as a load needs them: RFC 9113 §4 and §6, RFC 7541 §6. */

/** RFC 9113 §6. */
export const FRAME = {
  data: 0,
  headers: 1,
  reset: 3,
  settings: 4,
  ping: 6,
  goAway: 7,
  windowUpdate: 8,
} as const;
/** END_STREAM and ACK are the same bit of different frames. */
export const FLAG = { endStream: 1, ack: 1, endHeaders: 4, padded: 8 } as const;
/** RFC 9113 §6.5.2. */
export const SETTING = {
  headerTableSize: 1,
  enablePush: 2,
  maxConcurrentStreams: 3,
  initialWindowSize: 4,
  maxFrameSize: 5,
} as const;

export const PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
export const FRAME_HEAD_BYTES = 9;
/** Until SETTINGS say otherwise: of a stream, of a connection, of a frame, of a table of headers. */
export const DEFAULT = { windowBytes: 65_535, frameBytes: 16_384, tableBytes: 4_096 } as const;

/** RFC 9113 §4.1. */
export function writeFrameHead(
  to: Buffer,
  at: number,
  payloadBytes: number,
  type: number,
  flags: number,
  stream: number,
): void {
  to.writeUIntBE(payloadBytes, at, 3);
  to[at + 3] = type;
  to[at + 4] = flags;
  to.writeUInt32BE(stream, at + 5);
}

export function frame(type: number, flags: number, stream: number, payload: Uint8Array): Buffer {
  const bytes = Buffer.allocUnsafe(FRAME_HEAD_BYTES + payload.length);
  writeFrameHead(bytes, 0, payload.length, type, flags, stream);
  bytes.set(payload, FRAME_HEAD_BYTES);
  return bytes;
}

export function settings(values: ReadonlyArray<readonly [id: number, value: number]>): Buffer {
  const payload = Buffer.alloc(values.length * 6);
  for (const [i, [id, value]] of values.entries()) {
    payload.writeUInt16BE(id, i * 6);
    payload.writeUInt32BE(value, i * 6 + 2);
  }
  return frame(FRAME.settings, 0, 0, payload);
}

export function windowUpdate(stream: number, bytes: number): Buffer {
  const payload = Buffer.alloc(4);
  payload.writeUInt32BE(bytes);
  return frame(FRAME.windowUpdate, 0, stream, payload);
}

/** `:method POST`, `:scheme http` and `:path /` are entries of the static table (RFC 7541, appendix A). */
const POST_ROOT = Buffer.of(0x83, 0x86, 0x84);
/** `:status 200`, likewise: it may stand alone as one byte. */
export const STATUS_200 = 0x88;

/**
 * Of a POST to `/`. Literals that enter no table (RFC 7541 §6.2.2), as the same bytes are sent in any order
 * on any connection; the signature is one that no proxy may enter either (§6.2.3).
 */
export function headerBlock(authority: string, headers: Readonly<Record<string, string>>): Buffer {
  const parts: Uint8Array[] = [POST_ROOT, Buffer.of(0), text(":authority"), text(authority)];
  for (const [name, value] of Object.entries(headers)) {
    parts.push(Buffer.of(name === "authorization" ? 0x10 : 0), text(name), text(value));
  }
  return Buffer.concat(parts);
}

/** RFC 7541 §5.2, without Huffman's code; the length is an integer with a prefix of seven bits (§5.1). */
function text(value: string): Buffer {
  const bytes = Buffer.from(value, "latin1");
  const length: number[] = [];
  if (bytes.length < 127) length.push(bytes.length);
  else {
    length.push(127);
    let left = bytes.length - 127;
    for (; left >= 128; left = Math.floor(left / 128)) length.push((left % 128) | 128);
    length.push(left);
  }
  return Buffer.concat([Buffer.from(length), bytes]);
}
