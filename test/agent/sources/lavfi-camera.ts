/** A camera for tests: ffmpeg draws and encodes, an RTSP server of ours shows it, and both can fail on request. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { H264Depacketiser, vclSha256 } from "../../../protocol/rtsp/h264.ts";
import { GroupFinder } from "../../../protocol/rtsp/keyframe.ts";
import { Relay } from "../../../protocol/rtsp/relay.ts";
import { parseRtp } from "../../../protocol/rtsp/rtp.ts";
import { parseSdp } from "../../../protocol/rtsp/sdp.ts";
import { RtspServer } from "../../../protocol/rtsp/server.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { silentLog } from "../../../runtime/log.ts";

export interface LavfiCameraOptions {
  readonly fps?: number;
  readonly keyFrameSeconds?: number;
  readonly port?: number;
  readonly password?: string;
}

export class LavfiCamera {
  readonly server: RtspServer;
  /** SHA-256 of each picture's VCL NAL units → when it left the camera, µs since 1970 UTC. */
  readonly pictures = new Map<string, number>();
  /** Keeps connections open and sends nothing. */
  stalled = false;
  readers = 0;
  readonly #options: LavfiCameraOptions;
  #relay: Relay | undefined;
  #child: ChildProcess | undefined;

  constructor(options: LavfiCameraOptions = {}) {
    this.#options = options;
    const { password } = options;
    this.server = new RtspServer({
      host: "127.0.0.1",
      port: options.port ?? 0,
      log: silentLog,
      clock: systemClock,
      ...(password !== undefined && {
        authenticate: (user: string, path: string) =>
          path === "inside" || user === "admin" ? password : undefined,
      }),
      handler: {
        publish: (_path, sdp) => this.#publish(sdp),
        describe: () => this.#relay?.sdp,
        play: (_path, session) => {
          this.readers++;
          return this.#relay!.play(session);
        },
      },
    });
  }

  get url(): string {
    return `rtsp://127.0.0.1:${this.server.port}/live`;
  }

  /** Resolves when it shows pictures. */
  async start(): Promise<void> {
    const { fps = 15, keyFrameSeconds = 1, password } = this.#options;
    await this.server.start();
    const user = password === undefined ? "" : `admin:${encodeURIComponent(password)}@`;
    const output = `rtsp://${user}127.0.0.1:${this.server.port}/inside`;
    const source = `testsrc2=size=320x240:rate=${fps}`;
    const encode = ["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-bf", "0"];
    const groups = ["-g", String(fps * keyFrameSeconds), "-sc_threshold", "0", "-pix_fmt", "yuv420p"];
    this.#child = spawn(
      "ffmpeg",
      [
        "-v",
        "error",
        "-re",
        "-f",
        "lavfi",
        "-i",
        source,
        ...encode,
        ...groups,
        "-f",
        "rtsp",
        "-rtsp_transport",
        "tcp",
        output,
      ],
      { stdio: ["ignore", "ignore", "inherit"] },
    );
    while (this.pictures.size < 2) await new Promise((resolve) => setTimeout(resolve, 20));
  }

  async close(): Promise<void> {
    if (this.#child !== undefined && this.#child.exitCode === null && this.#child.signalCode === null) {
      this.#child.kill("SIGKILL");
      await once(this.#child, "exit");
    }
    await this.server.close();
  }

  #publish(sdp: string) {
    const relay = new Relay({ sdp });
    const groups = new GroupFinder(parseSdp(sdp));
    const depacketiser = new H264Depacketiser();
    this.#relay = relay;
    let leftUs = 0;
    let resumed = true;
    return {
      packet: (track: number, rtp: Buffer): void => {
        const packet = parseRtp(rtp);
        const unit = packet && depacketiser.push(packet);
        if (unit !== undefined) this.pictures.set(vclSha256(unit), leftUs);
        leftUs = systemClock.nowUs();
        // It goes on with a key frame, as cameras do.
        const beginsGroup = groups.push({ track, rtp }) > 0;
        if (this.stalled) resumed = false;
        else resumed ||= beginsGroup;
        if (resumed) relay.packet(track, rtp);
      },
      rtcp: (track: number, bytes: Buffer): void => {
        if (resumed) relay.rtcp(track, bytes);
      },
      close: (reason: string): void => {
        relay.close(reason);
        this.#relay = undefined;
      },
    };
  }
}
