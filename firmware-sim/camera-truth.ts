/**
 * What the camera really sent: one line of JSON a picture, appended to a file, so that a test can tell
 * whether the archive holds the same. A picture is known to be whole when the next one begins, and is written
 * before that one is sent: a camera that is killed has sent at most one picture that is not in the file.
 */
import { closeSync, openSync, writeSync } from "node:fs";
import { type ClockMapping, clockOf, utcUsOf } from "../protocol/footage.ts";
import { H264Depacketiser, vclSha256 } from "../protocol/rtsp/h264.ts";
import type { AccessUnit } from "../protocol/rtsp/nal-depacketiser.ts";
import { parseRtcp } from "../protocol/rtsp/rtcp.ts";
import type { RtpPacket } from "../protocol/rtsp/rtp.ts";
import type { Clock } from "../runtime/clock.ts";

/** A line of the truth file. */
export interface PictureTruth {
  /** New at each start of the encoder, as is the base of the RTP times. */
  readonly ssrc: number;
  readonly rtpTime: number;
  /** µs since 1970 UTC, as the camera's sender reports tell it. */
  readonly producerUs: number;
  /** Over the VCL NAL units (types 1 to 5) of the picture, one behind the other. */
  readonly vclSha256: string;
  readonly keyFrame: boolean;
}

/** The H.264 clock of RTP (RFC 6184 §8.2.1). */
const CLOCK_RATE = 90_000;

export class TruthFile {
  #file: number | undefined;
  readonly #clock: Clock;
  #depacketiser = new H264Depacketiser();
  #mapping: ClockMapping | undefined;
  #ssrc = 0;
  #pictures = 0;

  constructor(path: string, clock: Clock) {
    this.#file = openSync(path, "a");
    this.#clock = clock;
  }

  get pictures(): number {
    return this.#pictures;
  }

  packet(rtp: RtpPacket): void {
    const done = this.#depacketiser.push(rtp);
    if (done !== undefined) this.#write(done);
    this.#ssrc = rtp.ssrc;
  }

  rtcp(bytes: Buffer): void {
    for (const report of parseRtcp(bytes)) {
      if (report.type === "sr") this.#mapping = clockOf(0, report) ?? this.#mapping;
    }
  }

  /** The encoder ended; its last picture is whole as far as it came. */
  encoderEnded(): void {
    const last = this.#depacketiser.flush();
    if (last !== undefined) this.#write(last);
    this.#mapping = undefined;
  }

  /** Safe to call twice. */
  close(): void {
    if (this.#file === undefined) return;
    this.encoderEnded();
    closeSync(this.#file);
    this.#file = undefined;
  }

  #write(unit: AccessUnit): void {
    const { rtpTime, keyFrame } = unit;
    const producerUs =
      this.#mapping === undefined ? this.#clock.nowUs() : utcUsOf(this.#mapping, CLOCK_RATE, rtpTime);
    const truth: PictureTruth = {
      ssrc: this.#ssrc,
      rtpTime,
      producerUs,
      vclSha256: vclSha256(unit),
      keyFrame,
    };
    this.#pictures++;
    if (this.#file !== undefined) writeSync(this.#file, `${JSON.stringify(truth)}\n`);
  }
}
