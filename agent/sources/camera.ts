/**
 * A camera as a source: ffmpeg fetches its stream over RTSP and publishes it, uncoded, to a server
 * of our own on loopback; a recorder cuts it into units and stores them.
 *
 *   camera ─RTSP→ ffmpeg (-c copy) ─ANNOUNCE/RECORD→ loopback server → recorder → footage buffer
 *
 * A camera that is missing, stalls or sends nonsense is tried again with back-off, for ever. No
 * ffmpeg outlives the agent: it is killed on close, and when the agent dies its output breaks.
 */
import { randomBytes } from "node:crypto";
import type { CameraSourceConfig } from "../../config/source-config.ts";
import type { SessionDescription } from "../../protocol/rtsp/sdp.ts";
import { type Publication, RtspError, RtspServer } from "../../protocol/rtsp/server.ts";
import type { SourceStatus } from "../../protocol/topics.ts";
import { Backoff, pause } from "../../runtime/backoff.ts";
import type { Clock } from "../../runtime/clock.ts";
import { describeError, HeadwaterError } from "../../runtime/errors.ts";
import type { Log } from "../../runtime/log.ts";
import type { Metrics } from "../../runtime/metrics.ts";
import type { FootageBuffer, RecordedUnit } from "../buffer/footage-buffer.ts";
import { CrampedTimes } from "./camera/cramped-times.ts";
import { type RunningFfmpeg, runFfmpeg } from "./camera/ffmpeg.ts";
import { FootageRecorder } from "./camera/footage-recorder.ts";
import { EARLIEST_US } from "./decode/sensor-time.ts";
import type { Source, SourceReport } from "./source.ts";

export interface CameraSourceOptions {
  readonly config: CameraSourceConfig;
  readonly device: string;
  readonly buffer: FootageBuffer;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
  /** `ffmpeg` of PATH unless told. */
  readonly ffmpeg?: string;
  /** For the back-off; Math.random unless told. */
  readonly random?: () => number;
}

/** The camera sent no picture for `stallSeconds`. */
export class CameraStalledError extends HeadwaterError {
  constructor(seconds: number) {
    super("CAMERA_STALLED", {
      retryable: true,
      message: `no picture for ${seconds} s`,
      hint: "check the camera and the network; it is connected to again",
    });
  }
}

/** The times of its pictures went back, as when its clock is set: ffmpeg has to begin anew to follow them. */
export class CameraTimesError extends HeadwaterError {
  constructor() {
    super("CAMERA_TIMES", {
      retryable: true,
      message: "the times of its pictures went back",
      hint: "the camera's clock was set, or its encoder began anew; it is connected to again",
    });
  }
}

const BACKOFF_BASE_MS = 500;
/** One attempt every few seconds costs nothing, and the camera is back soon after it is. */
const BACKOFF_CAP_MS = 5_000;
/** What ffmpeg may take to connect and to recognise the stream, beside stallSeconds. */
const RECOGNISE_MS = 5_000;
const WATCH_EVERY_MS = 250;
/** How much longer than stallSeconds ffmpeg itself waits for a camera that sends nothing. */
const ORPHAN_TIMEOUT_US = 5_000_000;
/** A unit that ends so long before the one ahead of it was not made before it: our clock was set. */
const SET_BACK_US = 10_000_000;
/** A shorter break is not worth a report. */
const GAP_US = 1_000_000;

/** One life of ffmpeg. */
interface Session {
  /** The path to which ffmpeg publishes; known to nobody else, and new for each life. */
  readonly secret: string;
  readonly ffmpeg: RunningFfmpeg;
  recorder: FootageRecorder | undefined;
  lastPictureMs: number;
  /** Why it was killed. */
  failure: CameraStalledError | CameraTimesError | undefined;
  units: number;
}

export class CameraSource implements Source {
  readonly name: string;
  readonly #options: CameraSourceOptions;
  readonly #log: Log;
  readonly #server: RtspServer;
  readonly #backoff: Backoff;
  readonly #closing = new AbortController();
  readonly #counts: ReturnType<typeof countsOf>;
  #running: Promise<void> | undefined;
  #closed: Promise<void> | undefined;
  #session: Session | undefined;
  /** Of all sessions: their last units may still be on the way to the disk. */
  readonly #recorders = new Set<Promise<void>>();
  #state: SourceStatus["state"] = "waiting";
  /** While it backs off. */
  #retryAtMs: number | undefined;
  #storedUnits = 0;
  #lastError: string | undefined;
  /** End of the newest unit, stored or reported as lost, in producer time. */
  #coveredUntilUs: number | undefined;

  constructor(options: CameraSourceOptions) {
    this.#options = options;
    this.name = options.config.name;
    this.#log = options.log.child({ camera: this.name });
    this.#backoff = new Backoff(BACKOFF_BASE_MS, BACKOFF_CAP_MS, options.random);
    this.#counts = countsOf(options.metrics);
    this.#server = new RtspServer({
      host: "127.0.0.1",
      port: 0,
      log: this.#log,
      clock: options.clock,
      maxConnections: 4,
      handler: {
        publish: (path, sdp, _peer, description) => this.#publish(path, sdp, description),
      },
    });
  }

  async start(): Promise<void> {
    // Nobody recorded from the last unit of an earlier start until the first of this one.
    this.#coveredUntilUs = this.#options.buffer.newestUs(this.name);
    await this.#server.start();
    this.#running = this.#run();
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    this.#closing.abort();
    this.#session?.ffmpeg.kill();
    await this.#running;
    await this.#server.close();
    await Promise.all(this.#recorders);
    this.#state = "stopped";
  }

  status(): SourceReport {
    const waitMs =
      this.#retryAtMs === undefined ? undefined : this.#retryAtMs - this.#options.clock.monotonicMs();
    return {
      name: this.name,
      type: "camera",
      state: this.#state,
      health: waitMs !== undefined ? "backing-off" : this.#state === "running" ? "running" : "idle",
      ...(waitMs !== undefined && { retryInMs: Math.max(0, Math.round(waitMs)) }),
      records: this.#storedUnits,
      rejected: 0,
      ...(this.#lastError !== undefined && { lastError: this.#lastError }),
    };
  }

  /** The process that runs now; undefined between two. */
  get ffmpegPid(): number | undefined {
    return this.#session?.ffmpeg.pid;
  }

  async #run(): Promise<void> {
    const { signal } = this.#closing;
    while (!signal.aborted) {
      const reason = await this.#runOnce(signal).catch((error: unknown) => error);
      if (signal.aborted) return;
      this.#lastError = describeError(reason);
      this.#counts.restarts.inc({ camera: this.name });
      const waitMs = this.#backoff.nextMs();
      this.#log.warn({ error: this.#lastError, waitMs }, "camera lost");
      this.#retryAtMs = this.#options.clock.monotonicMs() + waitMs;
      await pause(waitMs, signal);
      this.#retryAtMs = undefined;
    }
  }

  /** Resolves with the reason when ffmpeg is gone. */
  async #runOnce(signal: AbortSignal): Promise<HeadwaterError> {
    const secret = randomBytes(16).toString("hex");
    const session: Session = {
      secret,
      ffmpeg: this.#startFfmpeg(secret),
      recorder: undefined,
      lastPictureMs: this.#options.clock.monotonicMs() + RECOGNISE_MS,
      failure: undefined,
      units: 0,
    };
    this.#session = session;
    // Closing may have begun while nothing ran.
    if (signal.aborted) session.ffmpeg.kill();
    const watch = setInterval(() => this.#watch(session), WATCH_EVERY_MS);
    const ended = await session.ffmpeg.ended;
    clearInterval(watch);
    this.#session = undefined;
    if (!(session.failure instanceof CameraStalledError)) this.#state = "waiting";
    return session.failure ?? ended;
  }

  #startFfmpeg(secret: string): RunningFfmpeg {
    const { config } = this.#options;
    // Only for the time when the agent is gone: as long as it lives, its own watch is first.
    const timeoutUs = Math.round(config.stallSeconds * 1_000_000) + ORPHAN_TIMEOUT_US;
    return runFfmpeg({
      program: this.#options.ffmpeg ?? "ffmpeg",
      // -fpsprobesize 0: it would hold the first second back to guess a frame rate that nobody asks for.
      inputOptions: [
        "-nostdin",
        "-nostats",
        "-loglevel warning",
        "-fpsprobesize 0",
        "-rtsp_transport tcp",
        `-timeout ${timeoutUs}`,
      ],
      input: addressOf(config),
      outputOptions: ["-map 0:v:0", "-map 0:a:0?", "-c copy", "-f rtsp", "-rtsp_transport tcp"],
      output: `rtsp://127.0.0.1:${this.#server.port}/${secret}`,
    });
  }

  /** A stalled camera keeps its connection; only killing ffmpeg makes it dial again. */
  #watch(session: Session): void {
    const silentMs = this.#options.clock.monotonicMs() - session.lastPictureMs;
    const { stallSeconds } = this.#options.config;
    if (session.failure !== undefined || silentMs < stallSeconds * 1_000) return;
    session.failure = new CameraStalledError(stallSeconds);
    this.#state = "stalled";
    this.#counts.stalls.inc({ camera: this.name });
    session.ffmpeg.kill();
  }

  #publish(path: string, sdp: string, description: SessionDescription): Publication {
    const session = this.#session;
    if (session === undefined || path !== session.secret) throw new RtspError(404, "Not Found");
    if (session.recorder !== undefined) throw new RtspError(403, "Forbidden");
    const { buffer, clock, metrics } = this.#options;
    const recorder = new FootageRecorder({
      camera: this.name,
      sdp,
      description,
      buffer,
      clock,
      log: this.#log,
      metrics,
      // Its sender reports count from when it opened its output, and its parser waits for the next
      // picture to know that one is whole; docs/design/0005-footage-uplink.md has the measurements.
      timing: { from: "arrival", picturesLate: 1 },
      onUnit: (unit, stored) => this.#unitEnded(session, unit, stored),
    });
    session.recorder = recorder;
    const pictures = Math.max(
      0,
      description.media.findIndex(({ kind }) => kind === "video"),
    );
    const times = new CrampedTimes();
    this.#log.info({ tracks: description.media.map((media) => media.encoding) }, "camera connected");
    return {
      packet: (track, rtp) => {
        if (track === pictures) {
          // Its sound may go on while its picture stands still.
          session.lastPictureMs = clock.monotonicMs();
          if (times.note(rtp.readUInt32BE(4), session.lastPictureMs) && session.failure === undefined) {
            session.failure = new CameraTimesError();
            session.ffmpeg.kill();
          }
        }
        if (session.failure === undefined) this.#state = "running";
        recorder.packet(track, rtp);
      },
      rtcp: (track, bytes) => recorder.rtcp(track, bytes),
      close: () => this.#finish(recorder),
    };
  }

  #finish(recorder: FootageRecorder): void {
    const finished = recorder.close().finally(() => this.#recorders.delete(finished));
    this.#recorders.add(finished);
  }

  #unitEnded(session: Session, unit: RecordedUnit, stored: boolean): void {
    const coveredUs = this.#coveredUntilUs;
    // A clock that was set back makes all that was covered before it mean nothing.
    const setBack = coveredUs !== undefined && coveredUs - unit.endUs > SET_BACK_US;
    this.#coveredUntilUs = setBack ? unit.endUs : Math.max(coveredUs ?? 0, unit.endUs);
    // Within a session a slow camera must not look like a broken one.
    const slowUs = session.units++ === 0 ? 0 : this.#options.config.stallSeconds * 500_000;
    // The time of day became known within the session: how far these two are apart is not.
    const learnt =
      session.units > 1 && coveredUs !== undefined && coveredUs < EARLIEST_US && unit.endUs >= EARLIEST_US;
    // A device without a clock has started again, and does not know the time yet: it was off in between.
    const unknown =
      session.units === 1 &&
      coveredUs !== undefined &&
      coveredUs >= EARLIEST_US &&
      unit.producerUs < EARLIEST_US;
    const isGap = coveredUs !== undefined && unit.producerUs - coveredUs > Math.max(GAP_US, slowUs);
    if (unknown || (isGap && !learnt)) {
      const reason = "nothing came from the camera";
      this.#options.buffer.reportGap({ camera: this.name, fromUs: coveredUs, toUs: unit.producerUs, reason });
    }
    if (!stored) return;
    this.#storedUnits++;
    // The last unit of a session that broke is no sign of health.
    if (this.#session !== session) return;
    this.#lastError = undefined;
    this.#backoff.reset();
  }
}

/** With credentials, which ffmpeg takes only as part of the address. */
function addressOf(config: CameraSourceConfig): string {
  const url = new URL(config.url);
  if (config.username !== undefined) url.username = encodeURIComponent(config.username);
  if (config.password !== undefined) url.password = encodeURIComponent(config.password);
  return url.href;
}

function countsOf(metrics: Metrics) {
  return {
    restarts: metrics.counter(
      "headwater_agent_camera_restarts_total",
      "Times that ffmpeg was started again",
      ["camera"],
    ),
    stalls: metrics.counter(
      "headwater_agent_camera_stalls_total",
      "Times that no picture came for too long",
      ["camera"],
    ),
  };
}
