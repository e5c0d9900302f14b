/**
 * The compatibility preview: MPEG-1 in MPEG-TS for jsmpeg players, made by node-rtsp-stream's muxer, which
 * runs ffmpeg. It costs a decoder and an encoder a camera, so it runs only while somebody watches.
 *
 *   first viewer → ffmpeg starts … ffmpeg ends → again after a back-off … last viewer leaves → killed
 *
 * The muxer alone is used, as the package's own websocket server asks nobody for a password.
 */
import type { ChildProcess } from "node:child_process";
import type { EventEmitter } from "node:events";
import { createRequire } from "node:module";
import { Backoff } from "../../runtime/backoff.ts";
import { describeError } from "../../runtime/errors.ts";
import type { Log } from "../../runtime/log.ts";
import type { CameraPreviews, PreviewViewer } from "./video.ts";

/** A viewer with more waiting is sent nothing until it has caught up; jsmpeg goes on from there. */
const MAX_BACKLOG_BYTES = 1_048_576;
/** MPEG-1 knows a few frame rates only; 25 serves cameras of any. */
const FRAME_RATE = "25";
/** A run as long as this was a good one: the next failure waits as briefly as the first. */
const STEADY_MS = 10_000;
const MAX_WAIT_MS = 10_000;

interface Muxer extends EventEmitter {
  readonly stream: ChildProcess;
}

/** A function to be called with `new`, which has no other way than to throw where ffmpeg cannot be started. */
interface MuxerFunction {
  readonly prototype: object;
  call(
    muxer: Partial<Muxer>,
    options: { url: string; ffmpegPath: string; ffmpegOptions: Record<string, string> },
  ): void;
}

const Mpeg1Muxer = createRequire(import.meta.url)("node-rtsp-stream/mpeg1muxer") as MuxerFunction;

export interface Mpeg1PreviewOptions {
  /** Never logged, but a list of processes shows it: a password in it should be good for one use only. */
  readonly rtspUrl: string;
  onData(chunk: Buffer): void;
  /** ffmpeg ended by itself, or could not be started. Called once, never after close(). */
  onEnd?(reason: string): void;
  readonly ffmpegPath?: string;
}

/** One run of ffmpeg. */
export class Mpeg1Preview {
  readonly #options: Mpeg1PreviewOptions;
  #muxer: Muxer | undefined;
  #ended: Promise<void> = Promise.resolve();
  #over = false;

  constructor(options: Mpeg1PreviewOptions) {
    this.#options = options;
  }

  start(): void {
    const { rtspUrl, ffmpegPath = "ffmpeg" } = this.#options;
    const muxer = this.#make({
      // The muxer leaves no room for -rtsp_transport before -i: ffmpeg asks for UDP, is answered 461, and takes TCP.
      url: rtspUrl,
      ffmpegPath,
      ffmpegOptions: {
        "-r": FRAME_RATE,
        "-q:v": "5",
        "-bf": "0",
        "-an": "",
        "-loglevel": "error",
        "-nostdin": "",
      },
    });
    if (muxer === undefined) return;
    this.#muxer = muxer;
    muxer.on("mpeg1data", (chunk: Buffer) => {
      if (!this.#over) this.#options.onData(chunk);
    });
    this.#ended = new Promise((resolve) => {
      // Without this listener a missing ffmpeg would end the whole program.
      muxer.stream.once("error", (error: NodeJS.ErrnoException) => {
        this.#end(error.code === "ENOENT" ? `${ffmpegPath} is not installed` : `ffmpeg: ${error.code}`);
        resolve();
      });
      muxer.stream.once("exit", (code, signal) => {
        this.#end(`ffmpeg ended with ${code ?? signal}`);
        resolve();
      });
    });
  }

  /**
   * Where no file descriptor is left the muxer throws in the middle, and the error of its child, which it then
   * never listens to, would end the whole program.
   */
  #make(options: Parameters<MuxerFunction["call"]>[1]): Muxer | undefined {
    const muxer = Object.create(Mpeg1Muxer.prototype) as Muxer;
    try {
      Mpeg1Muxer.call(muxer, options);
      return muxer;
    } catch (error) {
      const child = (muxer as Partial<Muxer>).stream;
      if (child === undefined) this.#end(`ffmpeg: ${describeError(error)}`);
      else child.once("error", (cause: NodeJS.ErrnoException) => this.#end(`ffmpeg: ${cause.code}`));
      return undefined;
    }
  }

  /** Resolves when ffmpeg is gone. Safe to call twice. */
  async close(): Promise<void> {
    this.#over = true;
    this.#muxer?.stream.kill("SIGKILL");
    await this.#ended;
  }

  #end(reason: string): void {
    if (this.#over) return;
    this.#over = true;
    this.#options.onEnd?.(reason);
  }
}

export interface PreviewsOptions {
  /** Where a camera can be read; asked anew for each run of ffmpeg. */
  urlOf(camera: string): string;
  readonly log: Log;
  readonly ffmpegPath?: string;
  /** First wait before ffmpeg is started again. 500 ms unless told. */
  readonly retryMs?: number;
}

interface Running {
  readonly viewers: Set<PreviewViewer>;
  readonly backoff: Backoff;
  preview: Mpeg1Preview | undefined;
  timer: NodeJS.Timeout | undefined;
  startedMs: number;
}

/** The previews of all cameras, each shared by its viewers. */
export class Previews implements CameraPreviews {
  readonly #options: PreviewsOptions;
  readonly #running = new Map<string, Running>();
  readonly #endings = new Set<Promise<void>>();
  #closed = false;

  constructor(options: PreviewsOptions) {
    this.#options = options;
  }

  /** The answer ends it. */
  watch(camera: string, viewer: PreviewViewer): () => void {
    if (this.#closed) return () => undefined;
    let running = this.#running.get(camera);
    if (running === undefined) {
      const backoff = new Backoff(this.#options.retryMs ?? 500, MAX_WAIT_MS);
      running = { viewers: new Set(), backoff, preview: undefined, timer: undefined, startedMs: 0 };
      this.#running.set(camera, running);
      this.#start(camera, running);
    }
    const joined = running;
    joined.viewers.add(viewer);
    return () => {
      if (joined.viewers.delete(viewer) && joined.viewers.size === 0) this.#stop(camera, joined);
    };
  }

  /** Resolves when every ffmpeg is gone. Safe to call twice. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const [camera, running] of [...this.#running]) this.#stop(camera, running);
    await Promise.all(this.#endings);
  }

  #start(camera: string, running: Running): void {
    const { urlOf, ffmpegPath, log } = this.#options;
    running.startedMs = performance.now();
    running.preview = new Mpeg1Preview({
      rtspUrl: urlOf(camera),
      ...(ffmpegPath !== undefined && { ffmpegPath }),
      onData: (chunk) => {
        for (const viewer of running.viewers) {
          if (viewer.backlogBytes() <= MAX_BACKLOG_BYTES) viewer.data(chunk);
        }
      },
      onEnd: (reason) => {
        log.warn({ camera, reason }, "preview interrupted");
        running.preview = undefined;
        if (performance.now() - running.startedMs > STEADY_MS) running.backoff.reset();
        running.timer = setTimeout(() => this.#start(camera, running), running.backoff.nextMs());
      },
    });
    running.preview.start();
  }

  #stop(camera: string, running: Running): void {
    clearTimeout(running.timer);
    running.viewers.clear();
    if (this.#running.get(camera) === running) this.#running.delete(camera);
    const ending = (running.preview?.close() ?? Promise.resolve()).finally(() =>
      this.#endings.delete(ending),
    );
    this.#endings.add(ending);
  }
}
