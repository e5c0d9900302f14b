/**
 * Footage on its way: a unit is one group of pictures as raw RTP of all tracks of a camera, cut at
 * a key frame, at 8 MiB or at 10 s, whichever comes first. It is known as (camera, epoch, sequence).
 * On the way it is bracketed by RTCP APP packets; docs/reference/wire-rtsp.md has test vectors. Stored:
 *
 *   0 u16 magic "HU" | u8 version | u8 startsWithKeyFrame | u32 bytes
 *   8 u32 crc32c of all that follows, xor that of all before (not so in version 1)
 *  12 u64 epoch | u64 sequence | u64 producerUs
 *  36 u16 cameraBytes | u32 sdpBytes | u16 clockCount | u32 packetCount | camera | sdp
 *     per clock  u8 track | u32 rtpTime | u64 utcUs
 *     per packet u8 track | u16 rtpBytes | RTP packet
 *
 * All integers are big-endian.
 */
import { createHash } from "node:crypto";
import { crc32c } from "../runtime/crc32c.ts";
import { HeadwaterError } from "../runtime/errors.ts";
import { type Epoch, epochName, type FrameSequence } from "./frame.ts";
import { asBuffer } from "./record-batch.ts";
import { type AppPacket, encodeApp, type SenderReport } from "./rtsp/rtcp.ts";
import { rtpTimeDifference } from "./rtsp/rtp.ts";

export const MAX_UNIT_BYTES = 8 * 1_048_576;
export const MAX_UNIT_US = 10_000_000;

export interface FootagePacket {
  /** Index of the media section in the SDP. */
  readonly track: number;
  /** A whole RTP packet, header and all (RFC 3550 §5.1). */
  readonly rtp: Buffer;
}

/** What a sender report says: this RTP time of this track was this moment (RFC 3550 §6.4.1). */
export interface ClockMapping {
  readonly track: number;
  readonly rtpTime: number;
  /** µs since 1970 UTC. */
  readonly utcUs: number;
}

export interface FootageUnit {
  readonly camera: string;
  readonly epoch: Epoch;
  readonly sequence: FrameSequence;
  /** Producer time of its first picture, µs since 1970 UTC. */
  readonly producerUs: number;
  /** The session description under which its packets make sense. */
  readonly sdp: string;
  /** False for a part of a group of pictures that was longer than a unit may be. */
  readonly startsWithKeyFrame: boolean;
  readonly clocks: readonly ClockMapping[];
  readonly packets: readonly FootagePacket[];
}

/** The most RTP packets of a unit, and the longest encoding of one. */
export const MAX_UNIT_PACKETS = 500_000;
export const MAX_ENCODED_UNIT_BYTES = 12 * 1_048_576;
const MAX_CLOCKS = 255;
const MAX_SDP_BYTES = 256 * 1_024;
const MAX_CAMERA_BYTES = 256;
const MIN_RTP_BYTES = 12;
const MAX_RTP_BYTES = 65_535;

/** The bytes or the text are no unit, mark or range of ours, or were damaged. */
export class MalformedFootageError extends HeadwaterError {
  constructor(reason: string) {
    super("FOOTAGE_MALFORMED", { message: `footage: ${reason}` });
  }
}

export const UNIT_VERSION = 2;
/** Its checksum did not cover the first eight bytes. */
const FORMER_VERSION = 1;
const MAGIC = 0x4855;
const CRC_FROM = 12;
const HEAD_BYTES = 48;
const CLOCK_BYTES = 13;
const PACKET_HEAD_BYTES = 3;

/** For stores; the layout stands at the top of this file. @throws MalformedFootageError when it exceeds a limit */
export function encodeUnit(unit: FootageUnit): Buffer {
  const cameraBytes = Buffer.byteLength(unit.camera);
  const sdpBytes = Buffer.byteLength(unit.sdp);
  checkCounts(cameraBytes, sdpBytes, unit.clocks.length, unit.packets.length);
  let length = HEAD_BYTES + cameraBytes + sdpBytes + unit.clocks.length * CLOCK_BYTES;
  for (const { rtp } of unit.packets) {
    if (rtp.length < MIN_RTP_BYTES || rtp.length > MAX_RTP_BYTES) {
      throw new MalformedFootageError(`an RTP packet of ${rtp.length} bytes`);
    }
    length += PACKET_HEAD_BYTES + rtp.length;
  }
  if (length > MAX_ENCODED_UNIT_BYTES) throw new MalformedFootageError(`a unit of ${length} bytes`);
  const bytes = Buffer.allocUnsafe(length);
  bytes.writeUInt16BE(MAGIC, 0);
  bytes[2] = UNIT_VERSION;
  bytes[3] = unit.startsWithKeyFrame ? 1 : 0;
  bytes.writeUInt32BE(length, 4);
  bytes.writeBigUInt64BE(unit.epoch, 12);
  bytes.writeBigUInt64BE(unit.sequence, 20);
  bytes.writeBigUInt64BE(BigInt(unit.producerUs), 28);
  bytes.writeUInt16BE(cameraBytes, 36);
  bytes.writeUInt32BE(sdpBytes, 38);
  bytes.writeUInt16BE(unit.clocks.length, 42);
  bytes.writeUInt32BE(unit.packets.length, 44);
  let at = HEAD_BYTES;
  at += bytes.write(unit.camera, at);
  at += bytes.write(unit.sdp, at);
  for (const clock of unit.clocks) {
    bytes[at] = clock.track;
    bytes.writeUInt32BE(clock.rtpTime, at + 1);
    bytes.writeBigUInt64BE(BigInt(clock.utcUs), at + 5);
    at += CLOCK_BYTES;
  }
  for (const { track, rtp } of unit.packets) {
    bytes[at] = track;
    bytes.writeUInt16BE(rtp.length, at + 1);
    bytes.set(rtp, at + PACKET_HEAD_BYTES);
    at += PACKET_HEAD_BYTES + rtp.length;
  }
  bytes.writeUInt32BE(unitChecksum(bytes), 8);
  return bytes;
}

/** What stands in a unit's checksum, by the version that its bytes tell. */
export function unitChecksum(bytes: Buffer): number {
  const rest = crc32c(bytes, CRC_FROM);
  return bytes[2] === FORMER_VERSION ? rest : (rest ^ crc32c(bytes, 0, 8)) >>> 0;
}

function checkCounts(cameraBytes: number, sdpBytes: number, clocks: number, packets: number): void {
  if (cameraBytes < 1 || cameraBytes > MAX_CAMERA_BYTES) {
    throw new MalformedFootageError(`a camera's name of ${cameraBytes} bytes`);
  }
  if (sdpBytes > MAX_SDP_BYTES) throw new MalformedFootageError(`a description of ${sdpBytes} bytes`);
  if (clocks > MAX_CLOCKS) throw new MalformedFootageError(`${clocks} clocks`);
  if (packets > MAX_UNIT_PACKETS) throw new MalformedFootageError(`${packets} packets`);
}

/** Packets are views of `bytes`. @throws MalformedFootageError, also when the checksum does not match */
export function decodeUnit(bytes: Uint8Array): FootageUnit {
  const view = asBuffer(bytes);
  checkHead(view);
  const cameraBytes = view.readUInt16BE(36);
  const sdpBytes = view.readUInt32BE(38);
  const clockCount = view.readUInt16BE(42);
  const packetCount = view.readUInt32BE(44);
  checkCounts(cameraBytes, sdpBytes, clockCount, packetCount);
  const cameraEnd = HEAD_BYTES + cameraBytes;
  const sdpEnd = cameraEnd + sdpBytes;
  const clocksEnd = sdpEnd + clockCount * CLOCK_BYTES;
  if (clocksEnd > view.length) throw new MalformedFootageError("its tables run over the end");
  const sequence = view.readBigUInt64BE(20);
  if (sequence === 0n) throw new MalformedFootageError("sequence 0");
  const clocks: ClockMapping[] = [];
  for (let at = sdpEnd; at < clocksEnd; at += CLOCK_BYTES) {
    clocks.push({ track: view[at]!, rtpTime: view.readUInt32BE(at + 1), utcUs: readMoment(view, at + 5) });
  }
  return {
    camera: view.toString("utf8", HEAD_BYTES, cameraEnd),
    epoch: view.readBigUInt64BE(12),
    sequence,
    producerUs: readMoment(view, 28),
    sdp: view.toString("utf8", cameraEnd, sdpEnd),
    startsWithKeyFrame: view[3] === 1,
    clocks,
    packets: readPackets(view, clocksEnd, packetCount),
  };
}

function checkHead(view: Buffer): void {
  if (view.length < HEAD_BYTES) throw new MalformedFootageError("shorter than its head");
  if (view.readUInt16BE(0) !== MAGIC) throw new MalformedFootageError("does not begin with HU");
  if (view[2] !== UNIT_VERSION && view[2] !== FORMER_VERSION) {
    throw new MalformedFootageError(`version ${view[2]}; this program reads ${UNIT_VERSION}`);
  }
  if (view[3]! > 1) throw new MalformedFootageError(`flags ${view[3]}`);
  const length = view.readUInt32BE(4);
  if (length !== view.length) throw new MalformedFootageError(`says ${length} bytes, has ${view.length}`);
  if (length > MAX_ENCODED_UNIT_BYTES) throw new MalformedFootageError(`a unit of ${length} bytes`);
  if (unitChecksum(view) !== view.readUInt32BE(8)) throw new MalformedFootageError("checksum does not match");
}

function readPackets(view: Buffer, from: number, count: number): FootagePacket[] {
  const packets: FootagePacket[] = [];
  let at = from;
  for (let i = 0; i < count; i++) {
    if (at + PACKET_HEAD_BYTES > view.length) throw new MalformedFootageError("a packet's head is cut off");
    const end = at + PACKET_HEAD_BYTES + view.readUInt16BE(at + 1);
    if (end > view.length) throw new MalformedFootageError("a packet is cut off");
    if (end - at - PACKET_HEAD_BYTES < MIN_RTP_BYTES)
      throw new MalformedFootageError("a packet is too short");
    packets.push({ track: view[at]!, rtp: view.subarray(at + PACKET_HEAD_BYTES, end) });
    at = end;
  }
  if (at !== view.length) throw new MalformedFootageError("longer than its packets");
  return packets;
}

/** µs since 1970 UTC, of which a JavaScript number holds 53 bits. */
function readMoment(view: Buffer, at: number): number {
  const value = view.readBigUInt64BE(at);
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw new MalformedFootageError("a time above 2^53 - 1");
  return Number(value);
}

/** What a sender report of this track says; undefined when the sender does not know the time. */
export function clockOf(track: number, report: SenderReport): ClockMapping | undefined {
  if (report.utcUs <= 0) return undefined;
  return { track, rtpTime: report.rtpTime, utcUs: report.utcUs };
}

/** The moment of an RTP time near (within 2^31 ticks of) the mapping's, µs since 1970 UTC. */
export function utcUsOf(clock: ClockMapping, clockRate: number, rtpTime: number): number {
  const ticks = rtpTimeDifference(rtpTime, clock.rtpTime);
  return clock.utcUs + Math.round((ticks * 1_000_000) / clockRate);
}

/** RTCP APP packets of this name bracket a unit on the way to the gateway, on the first track's RTCP channel. */
export const UNIT_APP_NAME = "HWTR";
const BEGIN_SUBTYPE = 1;
const END_SUBTYPE = 2;
const BEGIN_BYTES = 28;
const END_BYTES = 36;

export interface UnitBegin {
  readonly kind: "begin";
  readonly epoch: Epoch;
  readonly sequence: FrameSequence;
  readonly producerUs: number;
  readonly startsWithKeyFrame: boolean;
}

export interface UnitEnd {
  readonly kind: "end";
  readonly packetCount: number;
  /** Of unitDigest. */
  readonly sha256: Buffer;
}

/** A whole RTCP packet. @param ssrc that of the first track */
export function encodeUnitBegin(ssrc: number, begin: Omit<UnitBegin, "kind">): Buffer {
  const data = Buffer.alloc(BEGIN_BYTES);
  data.writeBigUInt64BE(begin.epoch, 0);
  data.writeBigUInt64BE(begin.sequence, 8);
  data.writeBigUInt64BE(BigInt(begin.producerUs), 16);
  data.writeUInt32BE(begin.startsWithKeyFrame ? 1 : 0, 24);
  return encodeApp({ ssrc, subtype: BEGIN_SUBTYPE, name: UNIT_APP_NAME, data });
}

export function encodeUnitEnd(ssrc: number, end: Omit<UnitEnd, "kind">): Buffer {
  const data = Buffer.alloc(END_BYTES);
  data.writeUInt32BE(end.packetCount, 0);
  data.set(end.sha256, 4);
  return encodeApp({ ssrc, subtype: END_SUBTYPE, name: UNIT_APP_NAME, data });
}

/** Undefined for APP packets of others. @throws MalformedFootageError for a broken one of ours */
export function parseUnitMark(app: AppPacket): UnitBegin | UnitEnd | undefined {
  if (app.name !== UNIT_APP_NAME) return undefined;
  const { data } = app;
  if (app.subtype === END_SUBTYPE) {
    if (data.length !== END_BYTES) throw new MalformedFootageError(`a unit's end of ${data.length} bytes`);
    return { kind: "end", packetCount: data.readUInt32BE(0), sha256: data.subarray(4) };
  }
  // A later version may send other marks between those that we know.
  if (app.subtype !== BEGIN_SUBTYPE) return undefined;
  if (data.length !== BEGIN_BYTES) throw new MalformedFootageError(`a unit's begin of ${data.length} bytes`);
  const sequence = data.readBigUInt64BE(8);
  if (sequence === 0n) throw new MalformedFootageError("sequence 0");
  return {
    kind: "begin",
    epoch: data.readBigUInt64BE(0),
    sequence,
    producerUs: readMoment(data, 16),
    startsWithKeyFrame: (data.readUInt32BE(24) & 1) === 1,
  };
}

/** SHA-256 over (track u8, length u16, RTP bytes) of every packet, in order. */
export class UnitDigest {
  readonly #hash = createHash("sha256");
  #packetCount = 0;

  get packetCount(): number {
    return this.#packetCount;
  }

  add(track: number, rtp: Uint8Array): void {
    this.#packetCount++;
    this.#hash.update(Buffer.of(track, rtp.length >> 8, rtp.length & 0xff));
    this.#hash.update(rtp);
  }

  /** Ends it. */
  digest(): Buffer {
    return this.#hash.digest();
  }
}

export function unitDigest(packets: readonly FootagePacket[]): Buffer {
  const digest = new UnitDigest();
  for (const { track, rtp } of packets) digest.add(track, rtp);
  return digest.digest();
}

/** Sequences of one epoch that the gateway holds on disk, both ends included. */
export interface PersistedRange {
  readonly epoch: Epoch;
  readonly first: FrameSequence;
  readonly last: FrameSequence;
}

/** The name of the GET_PARAMETER that lists them. */
export const PERSISTED_PARAMETER = "persisted";
const MAX_PERSISTED_CHARACTERS = 256 * 1_024;

/** `0123456789abcdef:1-17, 0123456789abcdef:19-19`; "" for none. */
export function formatPersisted(ranges: readonly PersistedRange[]): string {
  return ranges.map(({ epoch, first, last }) => `${epochName(epoch)}:${first}-${last}`).join(", ");
}

/** @throws MalformedFootageError */
export function parsePersisted(text: string): PersistedRange[] {
  if (text.length > MAX_PERSISTED_CHARACTERS) throw new MalformedFootageError("a list of ranges too long");
  if (text.trim() === "") return [];
  return text.split(",").map((part) => {
    const match = /^\s*([0-9a-f]{16}):(\d{1,20})-(\d{1,20})\s*$/.exec(part);
    if (match === null) throw new MalformedFootageError("a range not written as epoch:first-last");
    const range = { epoch: BigInt(`0x${match[1]}`), first: BigInt(match[2]!), last: BigInt(match[3]!) };
    if (range.first < 1n || range.last < range.first)
      throw new MalformedFootageError("a range that is empty");
    return range;
  });
}
