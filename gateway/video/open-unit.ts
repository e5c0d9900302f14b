/** The unit that a publisher is sending: what came of it so far, and what that costs in memory. */
import type { FootagePacket, UnitDigest } from "../../protocol/footage.ts";
import type { Epoch, FrameSequence } from "../../protocol/frame.ts";
import type { AudioFrame } from "./depacketise/audio-source.ts";
import type { Picture, VideoFormat } from "./depacketise/video-format.ts";

/** What a packet that is held costs beside its bytes: the views of it, and their places in lists. */
const HELD_PACKET_BYTES = 256;
/** What a picture or a sound costs beside its bytes. */
const HELD_SAMPLE_BYTES = 768;

export interface UnitStart {
  readonly epoch: Epoch;
  readonly sequence: FrameSequence;
  readonly startsWithKeyFrame: boolean;
  /** Undefined until the first picture of an unbracketed unit told. */
  producerUs: number | undefined;
  readonly digest: UnitDigest | undefined;
  /** Kept for the case that they cannot be depacketised. */
  readonly packets: FootagePacket[] | undefined;
}

export interface OpenUnit extends UnitStart {
  readonly startedMs: number;
  readonly pictures: Picture[];
  readonly sounds: AudioFrame[];
  format: VideoFormat | undefined;
  firstPts: number | undefined;
  firstRtpTime: number;
  bytes: number;
  /** On disk already: counted through, not stored. */
  readonly repeated: boolean;
  tooLong: boolean;
  /** A picture came before any parameter sets: only the raw packets hold all of it. */
  unreadable: boolean;
  /** Pictures up to this moment were shown to viewers before. */
  readonly shownUntilUs: number;
  /** What is held of packets: all, where they are kept, or else those of the picture that is not yet whole. */
  packetBytes: number;
  /** What is held of pictures and sounds, which may be copies of what was in packets. */
  sampleBytes: number;
}

export function openUnit(
  start: UnitStart,
  more: Pick<OpenUnit, "startedMs" | "repeated" | "shownUntilUs">,
): OpenUnit {
  return {
    ...start,
    ...more,
    // What is on disk already is not looked at any more.
    packets: more.repeated ? undefined : start.packets,
    pictures: [],
    sounds: [],
    format: undefined,
    firstPts: undefined,
    firstRtpTime: 0,
    bytes: 0,
    tooLong: false,
    unreadable: false,
    packetBytes: 0,
    sampleBytes: 0,
  };
}

export function holdPacket(unit: OpenUnit, track: number, rtp: Buffer): void {
  if (unit.repeated || unit.tooLong) return;
  unit.packets?.push({ track, rtp });
  unit.packetBytes += rtp.length + HELD_PACKET_BYTES;
}

export function holdPicture(unit: OpenUnit, picture: Picture): void {
  unit.pictures.push(picture);
  unit.sampleBytes += picture.bytes + HELD_SAMPLE_BYTES;
  // The packets of a picture that is whole are in it, or nobody's.
  if (unit.packets === undefined) unit.packetBytes = 0;
}

/** @param packetBytes of the packet that they are views of */
export function holdSounds(unit: OpenUnit, sounds: readonly AudioFrame[], packetBytes: number): void {
  unit.sounds.push(...sounds);
  unit.sampleBytes += packetBytes + sounds.length * HELD_SAMPLE_BYTES;
}

/** It cannot be an agent's unit; the pictures that came of it so far stay. */
export function giveUp(unit: OpenUnit): void {
  unit.tooLong = true;
  if (unit.packets !== undefined) unit.packets.length = 0;
  unit.packetBytes = 0;
}
