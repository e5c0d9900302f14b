/**
 * Messages of `application/vnd.amazon.eventstream`: what a call of AWS answers piece by piece.
 * Specification: "Event stream encoding", Amazon Transcribe Developer Guide; Smithy, "Amazon Event
 * Stream Specification". Only the sending side, only headers whose values are text.
 *
 *   u32 totalBytes | u32 headerBytes | u32 CRC-32 of these | headers | payload | u32 CRC-32 of all before
 *   header: u8 nameBytes | name | u8 type, 7 for text | u16 valueBytes | value
 */
import zlib from "node:zlib";

export const EVENT_STREAM = "application/vnd.amazon.eventstream";

const PRELUDE_BYTES = 12;
const CRC_BYTES = 4;
const TEXT = 7;

/** The headers of a kind of message, encoded once for all messages of that kind. */
export type EventHeaders = Buffer;

/** @param headers names of at most 255 bytes, values of at most 65,535 */
export function encodeEventHeaders(headers: Readonly<Record<string, string>>): EventHeaders {
  const parts: Buffer[] = [];
  for (const [name, value] of Object.entries(headers)) {
    const nameBytes = Buffer.from(name);
    const valueBytes = Buffer.from(value);
    const type = Buffer.of(TEXT, 0, 0);
    type.writeUInt16BE(valueBytes.length, 1);
    parts.push(Buffer.of(nameBytes.length), nameBytes, type, valueBytes);
  }
  return Buffer.concat(parts);
}

/** One message, ready for the socket. @param payload ASCII when it is a string */
export function encodeEvent(headers: EventHeaders, payload: string | Uint8Array): Buffer {
  const { before, after } = eventRoom(headers);
  const message = Buffer.allocUnsafe(before + payload.length + after);
  if (typeof payload === "string") message.write(payload, before, "latin1");
  else message.set(payload, before);
  return sealEvent(headers, message);
}

/** Bytes that a message with these headers has before and behind its payload. */
export function eventRoom(headers: EventHeaders): { readonly before: number; readonly after: number } {
  return { before: PRELUDE_BYTES + headers.length, after: CRC_BYTES };
}

/** Makes a message of bytes in which the payload stands in its place; `eventRoom` around it is written over. */
export function sealEvent(headers: EventHeaders, message: Buffer): Buffer {
  const bytes = message.length;
  message.writeUInt32BE(bytes, 0);
  message.writeUInt32BE(headers.length, 4);
  // Of so few bytes a view would cost more than their sum.
  message.writeUInt32BE(plainCrc32(message, 8), 8);
  message.set(headers, PRELUDE_BYTES);
  message.writeUInt32BE(crc32(message.subarray(0, bytes - CRC_BYTES)), bytes - CRC_BYTES);
  return message;
}

/** CRC-32 as in gzip: RFC 1952 §8. Node has had it in C++ since 20.15. */
const crc32: (bytes: Uint8Array) => number = zlib.crc32 ?? ((bytes) => plainCrc32(bytes));

let table: Uint32Array | undefined;

/** The same, a byte at a time: for an older Node, for a few bytes, and to hold the other against. */
export function plainCrc32(bytes: Uint8Array, end = bytes.length): number {
  table ??= Uint32Array.from({ length: 256 }, (_, byte) => {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
    return crc >>> 0;
  });
  let crc = ~0;
  for (let i = 0; i < end; i++) crc = (crc >>> 8) ^ table[(crc ^ bytes[i]!) & 0xff]!;
  return ~crc >>> 0;
}
