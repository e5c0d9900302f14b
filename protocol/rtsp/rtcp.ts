/** RTCP compound packets (RFC 3550 §6): sender and receiver reports, APP, BYE. */
import { invariant } from "../../runtime/errors.ts";

export interface SenderReport {
  readonly type: "sr";
  readonly ssrc: number;
  /** The moment, µs since 1970 UTC, that `rtpTime` stands for; 0 when the sender does not know the time. */
  readonly utcUs: number;
  readonly rtpTime: number;
  readonly packetCount: number;
  readonly octetCount: number;
}

export interface ReceiverReport {
  readonly type: "rr";
  readonly ssrc: number;
}

export interface AppPacket {
  readonly type: "app";
  readonly ssrc: number;
  /** 0 to 31. */
  readonly subtype: number;
  /** Four ASCII characters. */
  readonly name: string;
  /** A view. */
  readonly data: Buffer;
}

export interface ByePacket {
  readonly type: "bye";
  readonly ssrcs: readonly number[];
}

export interface OtherRtcp {
  readonly type: "other";
  readonly packetType: number;
}

export type RtcpPacket = SenderReport | ReceiverReport | AppPacket | ByePacket | OtherRtcp;

const SR = 200;
const RR = 201;
const BYE = 203;
const APP = 204;
/** From 1900 to 1970. */
const NTP_OFFSET_SECONDS = 2_208_988_800;
const NTP_ERA_SECONDS = 0x1_0000_0000;

/** The packets of a compound, up to the first that does not fit; [] when nothing does. Never throws. */
export function parseRtcp(bytes: Buffer): RtcpPacket[] {
  const packets: RtcpPacket[] = [];
  for (let at = 0; at + 4 <= bytes.length; ) {
    const end = at + (bytes.readUInt16BE(at + 2) + 1) * 4;
    if (bytes[at]! >> 6 !== 2 || end > bytes.length) break;
    const packet = parseOne(bytes.subarray(at, end));
    if (packet === undefined) break;
    packets.push(packet);
    at = end;
  }
  return packets;
}

function parseOne(bytes: Buffer): RtcpPacket | undefined {
  const count = bytes[0]! & 0x1f;
  const packetType = bytes[1]!;
  let end = bytes.length;
  if (bytes[0]! & 0x20) {
    const padding = bytes[end - 1]!;
    if (padding === 0 || padding > end - 4) return undefined;
    end -= padding;
  }
  switch (packetType) {
    case SR:
      if (end < 28) return undefined;
      return {
        type: "sr",
        ssrc: bytes.readUInt32BE(4),
        utcUs: utcOfNtp(bytes.readUInt32BE(8), bytes.readUInt32BE(12)),
        rtpTime: bytes.readUInt32BE(16),
        packetCount: bytes.readUInt32BE(20),
        octetCount: bytes.readUInt32BE(24),
      };
    case RR:
      return end < 8 ? undefined : { type: "rr", ssrc: bytes.readUInt32BE(4) };
    case BYE: {
      if (end < 4 + count * 4) return undefined;
      return { type: "bye", ssrcs: Array.from({ length: count }, (_, i) => bytes.readUInt32BE(4 + i * 4)) };
    }
    case APP:
      if (end < 12) return undefined;
      return {
        type: "app",
        ssrc: bytes.readUInt32BE(4),
        subtype: count,
        name: bytes.toString("latin1", 8, 12),
        data: bytes.subarray(12, end),
      };
    default:
      return { type: "other", packetType };
  }
}

/** RFC 3550 §6.4.1: a sender without any notion of wall-clock time sets the NTP timestamp to zero. */
function utcOfNtp(seconds: number, fraction: number): number {
  if (seconds === 0 && fraction === 0) return 0;
  // RFC 4330 §3: with the highest bit clear the time lies in the era that begins in February 2036.
  const since1900 = seconds >= 0x8000_0000 ? seconds : seconds + NTP_ERA_SECONDS;
  return (since1900 - NTP_OFFSET_SECONDS) * 1_000_000 + Math.round((fraction * 1_000_000) / NTP_ERA_SECONDS);
}

export function encodeSenderReport(report: Omit<SenderReport, "type">): Buffer {
  const bytes = head(SR, 0, 28, report.ssrc);
  if (report.utcUs !== 0) {
    const seconds = Math.floor(report.utcUs / 1_000_000);
    const fractionUs = report.utcUs - seconds * 1_000_000;
    bytes.writeUInt32BE((seconds + NTP_OFFSET_SECONDS) % NTP_ERA_SECONDS, 8);
    bytes.writeUInt32BE(Math.floor((fractionUs * NTP_ERA_SECONDS) / 1_000_000), 12);
  }
  bytes.writeUInt32BE(report.rtpTime >>> 0, 16);
  bytes.writeUInt32BE(report.packetCount >>> 0, 20);
  bytes.writeUInt32BE(report.octetCount >>> 0, 24);
  return bytes;
}

/** An empty report, which shows that a receiver lives. */
export function encodeReceiverReport(ssrc: number): Buffer {
  return head(RR, 0, 8, ssrc);
}

/** @param app its data is a multiple of 4 bytes, its name has four ASCII characters */
export function encodeApp(app: Omit<AppPacket, "type">): Buffer {
  invariant(app.data.length % 4 === 0 && app.name.length === 4, "an APP packet consists of words");
  const bytes = head(APP, app.subtype, 12 + app.data.length, app.ssrc);
  bytes.write(app.name, 8, "latin1");
  bytes.set(app.data, 12);
  return bytes;
}

export function encodeBye(ssrcs: readonly number[]): Buffer {
  const bytes = head(BYE, ssrcs.length, 4 + ssrcs.length * 4, undefined);
  ssrcs.forEach((ssrc, i) => {
    bytes.writeUInt32BE(ssrc >>> 0, 4 + i * 4);
  });
  return bytes;
}

function head(packetType: number, count: number, length: number, ssrc: number | undefined): Buffer {
  const bytes = Buffer.alloc(length);
  bytes[0] = 0x80 | (count & 0x1f);
  bytes[1] = packetType;
  bytes.writeUInt16BE(length / 4 - 1, 2);
  if (ssrc !== undefined) bytes.writeUInt32BE(ssrc >>> 0, 4);
  return bytes;
}
