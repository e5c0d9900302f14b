/**
 * Binary frames on a serial line: Consistent Overhead Byte Stuffing (Cheshire and Baker, 1999), each
 * ended by a zero byte, the last two bytes a CRC-16. The payload is JSON, or numbers by a layout, or
 * kept as it is.
 */
import type { CobsConfig } from "../../../config/source-config.ts";
import type { Decoded } from "../source.ts";
import { crc16 } from "./crc16.ts";
import { exact } from "./exact-number.ts";
import { lineDecoder } from "./line-decoder.ts";

const DEFAULTS = { crc: "ccitt-false", crcOrder: "big", payload: "json", layout: undefined } as const;

/** Undefined when the bytes are not what COBS makes. @param stuffed without the zero at its end */
export function cobsDecode(stuffed: Uint8Array): Buffer | undefined {
  const plain = Buffer.allocUnsafe(stuffed.length);
  let to = 0;
  for (let at = 0; at < stuffed.length; ) {
    const code = stuffed[at]!;
    const end = at + code;
    if (code === 0 || end > stuffed.length) return undefined;
    for (let i = at + 1; i < end; i++) {
      if (stuffed[i] === 0) return undefined;
      plain[to++] = stuffed[i]!;
    }
    at = end;
    if (code !== 0xff && at < stuffed.length) plain[to++] = 0;
  }
  return plain.subarray(0, to);
}

type Reader = (bytes: Buffer, at: number) => number | string;

/** Numbers that JSON cannot hold exactly are written as text. */
const READERS: Readonly<Record<string, readonly [size: number, read: Reader]>> = {
  u8: [1, (b, at) => b.readUInt8(at)],
  i8: [1, (b, at) => b.readInt8(at)],
  u16le: [2, (b, at) => b.readUInt16LE(at)],
  u16be: [2, (b, at) => b.readUInt16BE(at)],
  i16le: [2, (b, at) => b.readInt16LE(at)],
  i16be: [2, (b, at) => b.readInt16BE(at)],
  u32le: [4, (b, at) => b.readUInt32LE(at)],
  u32be: [4, (b, at) => b.readUInt32BE(at)],
  i32le: [4, (b, at) => b.readInt32LE(at)],
  i32be: [4, (b, at) => b.readInt32BE(at)],
  u64le: [8, (b, at) => exact(b.readBigUInt64LE(at))],
  u64be: [8, (b, at) => exact(b.readBigUInt64BE(at))],
  i64le: [8, (b, at) => exact(b.readBigInt64LE(at))],
  i64be: [8, (b, at) => exact(b.readBigInt64BE(at))],
  f32le: [4, (b, at) => b.readFloatLE(at)],
  f32be: [4, (b, at) => b.readFloatBE(at)],
  f64le: [8, (b, at) => b.readDoubleLE(at)],
  f64be: [8, (b, at) => b.readDoubleBE(at)],
};

/** One frame, without its zero byte. Never throws. */
export function cobsDecoder(
  sensor: string,
  config: CobsConfig,
): (frame: Buffer, arrivalUs: number) => Decoded {
  const { crc, crcOrder, payload: kind, layout = [] } = config ?? DEFAULTS;
  const json = lineDecoder("json-lines", sensor);
  const fields = layout.map((text) => {
    const colon = text.lastIndexOf(":");
    const [size, read] = READERS[text.slice(colon + 1)]!;
    return { name: text.slice(0, colon), size, read };
  });
  const layoutBytes = fields.reduce((sum, { size }) => sum + size, 0);
  return (frame, arrivalUs) => {
    const plain = cobsDecode(frame);
    if (plain === undefined) return { reason: "COBS: not stuffed as it should be" };
    const payload = crc === "none" ? plain : plain.subarray(0, -2);
    if (payload.length === 0) return { reason: "COBS: an empty frame" };
    if (crc !== "none") {
      const at = payload.length;
      const sent = crcOrder === "big" ? plain.readUInt16BE(at) : plain.readUInt16LE(at);
      if (sent !== crc16(crc, payload)) return { reason: "COBS: a wrong checksum" };
    }
    if (kind === "json") return json.decode(payload, arrivalUs);
    if (kind === "raw")
      return { readings: [{ sensor, timeUs: undefined, fields: { raw: payload.toString("base64") } }] };
    if (payload.length !== layoutBytes)
      return { reason: `COBS: ${payload.length} bytes where the layout has ${layoutBytes}` };
    let at = 0;
    const values = fields.map(({ name, size, read }) => {
      at += size;
      return [name, read(payload, at - size)] as const;
    });
    return { readings: [{ sensor, timeUs: undefined, fields: Object.fromEntries(values) }] };
  };
}
