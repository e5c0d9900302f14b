/**
 * What the camera really sent: one line of JSON a picture, appended to a file, so that a test can tell
 * whether the archive holds the same.
 */
import { once } from "node:events";
import { createWriteStream, type WriteStream } from "node:fs";
import { type ClockMapping, clockOf, utcUsOf } from "../protocol/footage.ts";
import { type AccessUnit, H264Depacketiser, vclSha256 } from "../protocol/rtsp/h264.ts";
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
  readonly #file: WriteStream;
  readonly #clock: Clock;
  #depacketiser = new H264Depacketiser();
  #mapping: ClockMapping | undefined;
  #ssrc = 0;
  #pictures = 0;
  #failure: Error | undefined;

  constructor(path: string, clock: Clock) {
    this.#file = createWriteStream(path, { flags: "a" });
    this.#file.on("error", (error) => {
      this.#failure = error;
    });
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

  /** @throws what went wrong with the file, now or before */
  async close(): Promise<void> {
    this.encoderEnded();
    if (this.#failure === undefined && !this.#file.closed) {
      this.#file.end();
      await once(this.#file, "close");
    }
    if (this.#failure !== undefined) throw this.#failure;
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
    this.#file.write(`${JSON.stringify(truth)}\n`);
  }
}
