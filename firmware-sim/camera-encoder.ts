/**
 * The picture of the stand-in camera: an ffmpeg that draws a moving test picture with a clock and sends it
 * by RTSP to an address on loopback. It is started again when it ends, and ends with us: its connection
 * breaks when this process dies, however that happens.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { Backoff, pause } from "../runtime/backoff.ts";
import { HeadwaterError } from "../runtime/errors.ts";
import type { Log } from "../runtime/log.ts";

export interface PictureSettings {
  readonly width: number;
  readonly height: number;
  readonly fps: number;
  readonly keyFrameSeconds: number;
  /** Decides where the moving caption is at the start. */
  readonly seed: number;
}

/** There is no ffmpeg to make the picture. */
export class EncoderMissingError extends HeadwaterError {
  constructor(cause: unknown) {
    super("SIM_ENCODER_MISSING", {
      message: "ffmpeg cannot be started",
      hint: "install it: apt-get install ffmpeg fonts-dejavu-core",
      cause,
    });
  }
}

export class CameraEncoder {
  readonly #settings: PictureSettings;
  readonly #url: string;
  readonly #log: Log;
  readonly #stop = new AbortController();
  readonly #backoff = new Backoff(250, 5_000);
  #child: ChildProcess | undefined;
  #running: Promise<void> | undefined;

  /** @param url where ffmpeg publishes to */
  constructor(settings: PictureSettings, url: string, log: Log) {
    this.#settings = settings;
    this.#url = url;
    this.#log = log;
  }

  /** The process now running. */
  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /** Resolves when ffmpeg runs. @throws EncoderMissingError */
  async start(): Promise<void> {
    const ended = this.#spawn();
    await new Promise<void>((resolve, reject) => {
      this.#child!.once("spawn", resolve);
      this.#child!.once("error", (error) => reject(new EncoderMissingError(error)));
    });
    this.#running = this.#keepRunning(ended);
  }

  /** Resolves when no ffmpeg is left. Safe to call twice. */
  async close(): Promise<void> {
    this.#stop.abort();
    this.#child?.kill("SIGKILL");
    await this.#running;
  }

  /** The picture flows: a later end counts as a first failure again. */
  flowing(): void {
    this.#backoff.reset();
  }

  async #keepRunning(first: Promise<string>): Promise<void> {
    for (let ended = first; ; ended = this.#spawn()) {
      const reason = await ended;
      if (this.#stop.signal.aborted) return;
      const waitMs = this.#backoff.nextMs();
      this.#log.warn({ reason, waitMs }, "the camera's encoder ended and is started again");
      await pause(waitMs, this.#stop.signal);
      if (this.#stop.signal.aborted) return;
    }
  }

  /** Resolves when it ended, with the last that it said. */
  #spawn(): Promise<string> {
    const child = spawn("ffmpeg", encoderArguments(this.#settings, this.#url), {
      stdio: ["ignore", "ignore", "pipe"],
    });
    this.#child = child;
    let said = "";
    child.stderr.on("data", (chunk: Buffer) => {
      said = (said + chunk.toString()).slice(-500);
    });
    return new Promise((resolve) => {
      child.once("error", (error) => resolve(error.message));
      child.once("close", (code, signal) =>
        resolve(`${signal ?? `code ${code}`} ${said.replaceAll(this.#url, "…").trim()}`),
      );
    });
  }
}

const FONT = "/usr/share/fonts/truetype/dejavu/DejaVuSansMono-Bold.ttf";

export function encoderArguments(settings: PictureSettings, url: string): string[] {
  const { width, height, fps, keyFrameSeconds, seed } = settings;
  const size = Math.max(Math.round(height / 18), 10);
  const caption = `drawtext=fontfile=${FONT}:fontsize=${size}:fontcolor=white:box=1:boxcolor=black@0.7:boxborderw=8`;
  // What changes from picture to picture may be the same in two runs, and then the pictures' bytes are; a random number is not.
  const mark = "%{eif\\:rand(0\\,999999)\\:d\\:6}";
  const clock = `${caption}:x=${size}:y=${size}:text='%{localtime\\:%F %T} %{n} ${mark}'`;
  const mover = `${caption}:x='mod(t*w/8+${(seed * 97) % width}\\,w)':y=h-3*${size}:text='seed ${seed}'`;
  const picturesPerGroup = String(Math.max(Math.round(fps * keyFrameSeconds), 1));
  return [
    ...["-nostdin", "-v", "error", "-re", "-f", "lavfi"],
    ...["-i", `testsrc2=size=${width}x${height}:rate=${fps}`, "-vf", `${clock},${mover}`],
    // One thread and no look-ahead: each picture leaves at once, in one slice.
    ...["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-threads", "1"],
    ...["-pix_fmt", "yuv420p", "-bf", "0", "-g", picturesPerGroup, "-keyint_min", picturesPerGroup],
    ...["-sc_threshold", "0", "-crf", "30", "-maxrate", "2M", "-bufsize", "2M"],
    ...["-f", "rtsp", "-rtsp_transport", "tcp", url],
  ];
}
