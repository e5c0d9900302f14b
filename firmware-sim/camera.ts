/**
 * A stand-in IP camera: H.264 by RTSP at rtsp://host:port/path, with a moving picture, a clock burnt in, and
 * a file that holds what was really sent. Faults on request.
 *
 *   ffmpeg ─ANNOUNCE/RECORD, secret path→ RtspServer → gate (stall) → Relay → readers
 *                                                            └→ truth file
 */
import { randomBytes } from "node:crypto";
import { mkdir } from "node:fs/promises";
import { dirname } from "node:path";
import { GroupFinder } from "../protocol/rtsp/keyframe.ts";
import { Relay } from "../protocol/rtsp/relay.ts";
import { parseRtp } from "../protocol/rtsp/rtp.ts";
import { type Publication, RtspError, RtspServer } from "../protocol/rtsp/server.ts";
import { pause } from "../runtime/backoff.ts";
import type { Clock } from "../runtime/clock.ts";
import type { Log } from "../runtime/log.ts";
import { CameraEncoder, type PictureSettings } from "./camera-encoder.ts";
import { TruthFile } from "./camera-truth.ts";

export interface SimCameraOptions extends PictureSettings {
  readonly host: string;
  /** 0 for any free one. */
  readonly port: number;
  /** Where readers find it, without slashes at its ends. */
  readonly path: string;
  /** Appended to; PictureTruth in camera-truth.ts is a line. */
  readonly truthFile: string;
  readonly log: Log;
  readonly clock: Clock;
}

/** How long a reader's DESCRIBE waits for an encoder that is just being started. */
const DESCRIBE_WAIT_MS = 5_000;
const FIRST_PICTURE_WAIT_MS = 10_000;
const POLL_MS = 20;

export class SimCamera {
  readonly #options: SimCameraOptions;
  readonly #secretPath = randomBytes(16).toString("hex");
  readonly #server: RtspServer;
  readonly #stop = new AbortController();
  #encoder: CameraEncoder | undefined;
  #truth: TruthFile | undefined;
  #relay: Relay | undefined;
  #stalled = false;
  #closing: Promise<void> | undefined;

  constructor(options: SimCameraOptions) {
    this.#options = options;
    this.#server = new RtspServer({
      host: options.host,
      port: options.port,
      log: options.log,
      clock: options.clock,
      handler: {
        publish: (path, sdp) => {
          if (path !== this.#secretPath) throw new RtspError(403, "Forbidden");
          return this.#publication(sdp);
        },
        describe: (path) => this.#describe(path),
        play: (path, session) => {
          if (path !== options.path || this.#relay === undefined) throw new RtspError(404, "Not Found");
          return this.#relay.play(session);
        },
      },
    });
  }

  /** Resolves when the first pictures are there. @throws PortBusyError, EncoderMissingError */
  async start(): Promise<void> {
    const { host, truthFile, clock, log } = this.#options;
    await mkdir(dirname(truthFile), { recursive: true });
    await this.#server.start();
    this.#truth = new TruthFile(truthFile, clock);
    const from = host === "0.0.0.0" || host === "::" ? "127.0.0.1" : host;
    const url = `rtsp://${from.includes(":") ? `[${from}]` : from}:${this.port}/${this.#secretPath}`;
    this.#encoder = new CameraEncoder(this.#options, url, log);
    try {
      await this.#encoder.start();
    } catch (error) {
      await this.close();
      throw error;
    }
    await this.#wait(() => this.pictures > 0, FIRST_PICTURE_WAIT_MS);
  }

  /** No encoder, socket or timer is left, and the truth is in its file. Safe to call twice. */
  close(): Promise<void> {
    this.#closing ??= (async () => {
      this.#stop.abort();
      await this.#encoder?.close();
      await this.#server.close();
      this.#truth?.close();
    })();
    return this.#closing;
  }

  get port(): number {
    return this.#server.port;
  }

  /** For readers. */
  get url(): string {
    return `rtsp://${this.#options.host}:${this.port}/${this.#options.path}`;
  }

  /** In the truth file so far. */
  get pictures(): number {
    return this.#truth?.pictures ?? 0;
  }

  get readers(): number {
    return this.#relay?.readers ?? 0;
  }

  /** Of ffmpeg, for tests that kill it. */
  get encoderPid(): number | undefined {
    return this.#encoder?.pid;
  }

  get stalled(): boolean {
    return this.#stalled;
  }

  /** From the next picture on the camera sends nothing, though its connections stay open. */
  stall(): void {
    this.#stalled = true;
  }

  /** It goes on with the next key frame, and with the RTP sequence number after the last that it sent. */
  resume(): void {
    this.#stalled = false;
  }

  async #describe(path: string): Promise<string | undefined> {
    if (path !== this.#options.path) return undefined;
    await this.#wait(() => this.#relay !== undefined, DESCRIBE_WAIT_MS);
    return this.#relay?.sdp;
  }

  async #wait(holds: () => boolean, timeoutMs: number): Promise<void> {
    const { clock } = this.#options;
    const endMs = clock.monotonicMs() + timeoutMs;
    while (!holds() && clock.monotonicMs() < endMs && !this.#stop.signal.aborted) {
      await pause(POLL_MS, this.#stop.signal);
    }
  }

  #publication(sdp: string): Publication {
    // A reader that comes again must not get pictures for a second time: the archive would hold them twice.
    const relay = new Relay({ sdp, replaysGroup: false });
    const truth = this.#truth!;
    this.#relay = relay;
    const gate = new StallGate(
      new GroupFinder(relay.description),
      () => this.#stalled,
      (rtp) => {
        const before = truth.pictures;
        truth.packet(parseRtp(rtp)!);
        if (truth.pictures > before) this.#encoder?.flowing();
        relay.packet(0, rtp);
      },
    );
    return {
      packet: (track, rtp) => {
        if (track === 0 && parseRtp(rtp) !== undefined) gate.push(rtp);
      },
      rtcp: (track, bytes) => {
        truth.rtcp(bytes);
        if (!this.#stalled) relay.rtcp(track, bytes);
      },
      close: (reason) => {
        truth.encoderEnded();
        if (this.#relay === relay) this.#relay = undefined;
        relay.close(reason);
      },
    };
  }
}

/**
 * Lets packets through; shuts between two pictures, opens at a key frame. What was held back leaves no hole in the
 * sequence numbers, as a camera that hangs has not sent anything.
 */
class StallGate {
  readonly #finder: GroupFinder;
  readonly #isStalled: () => boolean;
  readonly #pass: (rtp: Buffer) => void;
  #shut = false;
  #pictureTime: number | undefined;
  /** The packets of the picture that is coming while the gate is shut. */
  #held: Buffer[] = [];
  #swallowed = 0;

  constructor(finder: GroupFinder, isStalled: () => boolean, pass: (rtp: Buffer) => void) {
    this.#finder = finder;
    this.#isStalled = isStalled;
    this.#pass = pass;
  }

  push(rtp: Buffer): void {
    const timestamp = rtp.readUInt32BE(4);
    const newPicture = timestamp !== this.#pictureTime;
    this.#pictureTime = timestamp;
    const ofGroup = this.#finder.push({ track: this.#finder.track, rtp });
    if (newPicture) {
      this.#swallowed += this.#held.length;
      this.#held = [];
      if (this.#isStalled()) this.#shut = true;
    }
    if (!this.#shut) {
      this.#send(rtp);
      return;
    }
    this.#held.push(rtp);
    if (ofGroup === 0 || this.#isStalled()) return;
    this.#shut = false;
    const picture = this.#held;
    this.#held = [];
    for (const packet of picture) this.#send(packet);
  }

  #send(rtp: Buffer): void {
    if (this.#swallowed === 0) {
      this.#pass(rtp);
      return;
    }
    const renumbered = Buffer.from(rtp);
    renumbered.writeUInt16BE((rtp.readUInt16BE(2) - this.#swallowed) & 0xffff, 2);
    this.#pass(renumbered);
  }
}
