/**
 * ffmpeg as a child process, through fluent-ffmpeg. The one place that knows that package.
 *
 * It prints command lines and stderr, both of which hold the passwords of camera addresses; so
 * nothing raw leaves this file: an end is told in words of our own.
 */
import type { ChildProcess } from "node:child_process";
import ffmpeg from "fluent-ffmpeg";
import { HeadwaterError } from "../../../runtime/errors.ts";

export interface FfmpegRun {
  /** A name that is looked up in PATH, or a path; looked up at every start, as it may be installed later. */
  readonly program: string;
  readonly inputOptions: readonly string[];
  readonly input: string;
  readonly outputOptions: readonly string[];
  readonly output: string;
}

export interface RunningFfmpeg {
  /** Undefined before it runs and when it could not be started. */
  readonly pid: number | undefined;
  /** Resolves when the process is gone. Never rejects. */
  readonly ended: Promise<HeadwaterError>;
  /** SIGKILL, also when it has not begun yet: ffmpeg may hang in a read and ignore SIGTERM. */
  kill(): void;
}

/** ffmpeg is not installed, or not where it was. */
export class FfmpegMissingError extends HeadwaterError {
  constructor(program: string) {
    super("FFMPEG_MISSING", {
      retryable: true,
      message: `${program} cannot be started`,
      hint: "install it: apt-get install ffmpeg",
    });
  }
}

/** ffmpeg came to an end; it is never meant to by itself. The message names the likely cause. */
export class FfmpegEndedError extends HeadwaterError {
  constructor(reason: string, hint?: string) {
    super("FFMPEG_ENDED", { retryable: true, message: reason, ...(hint !== undefined && { hint }) });
  }
}

/** What fluent-ffmpeg has and does not declare. */
interface Internals {
  ffmpegProc?: ChildProcess;
  _spawnFfmpeg(args: string[], options: object, started: Started, ended: Ended): void;
  _checkCapabilities(done: (error?: Error) => void): void;
  availableEncoders(done: (error: Error | null, encoders: object) => void): void;
}
type Started = (child: ChildProcess, out: unknown, err: unknown) => void;
interface Lines {
  get(): string;
}
type Ended = (error: Error | undefined, out: Lines, err: Lines) => void;

const NO_LINES: Lines = { get: () => "" };
/** Lines of stderr that are kept to find the cause. */
const KEPT_LINES = 40;

/** Never throws; a failure to start is an end too. */
export function runFfmpeg(run: FfmpegRun): RunningFfmpeg {
  const command = ffmpeg({ stdoutLines: KEPT_LINES });
  const internals = command as unknown as Internals;
  makeSafe(internals);
  command.setFfmpegPath(run.program);
  command.input(run.input).inputOptions([...run.inputOptions]);
  command.output(run.output).outputOptions([...run.outputOptions]);
  let killed = false;
  const ended = new Promise<HeadwaterError>((resolve) => {
    command.on("start", () => {
      if (killed) internals.ffmpegProc?.kill("SIGKILL");
    });
    command.on("end", () => resolve(new FfmpegEndedError("the stream ended")));
    command.on("error", (error: Error, _out: unknown, stderr: unknown) => {
      const code = (error as NodeJS.ErrnoException).code;
      if (code === "ENOENT" || code === "EACCES") return resolve(new FfmpegMissingError(run.program));
      resolve(whyItEnded(`${error.message}\n${typeof stderr === "string" ? stderr : ""}`));
    });
    command.run();
  });
  return {
    get pid() {
      return internals.ffmpegProc?.pid;
    },
    ended,
    kill() {
      killed = true;
      internals.ffmpegProc?.kill("SIGKILL");
    },
  };
}

/**
 * When the program cannot be spawned, fluent-ffmpeg 2.1.3 calls back without the rings of lines
 * that it then reads: an uncaught TypeError, which would end the agent. Empty rings prevent it, and
 * where it cannot be spawned for want of descriptors another such error is caught.
 * Its capability checks start ffmpeg twice more and cannot matter, as nothing is encoded.
 */
function makeSafe(command: Internals): void {
  const spawn = command._spawnFfmpeg;
  command._spawnFfmpeg = function (args, options, started, ended) {
    const over: Ended = (error, out, err) => ended(error, out ?? NO_LINES, err ?? NO_LINES);
    try {
      spawn.call(this, args, options, started, over);
    } catch (error) {
      // Without descriptors Node makes no pipes, which it reads all the same. Why is told before this is.
      setImmediate(() => over(error as Error, NO_LINES, NO_LINES));
    }
  };
  command._checkCapabilities = (done) => done();
  command.availableEncoders = (done) => done(null, {});
}

const CAUSES: readonly (readonly [RegExp, string, string?])[] = [
  [/\b(EMFILE|ENFILE|EAGAIN)\b/, "ffmpeg cannot be started now: too many files or processes are open"],
  [/killed with signal/, "ffmpeg was killed"],
  [/401 Unauthorized/, "the camera refused the credentials", "check username and password of this source"],
  [/403 Forbidden/, "the camera forbids access", "check username and password of this source"],
  [/404 (Stream )?Not Found/i, "the camera knows no such path", "check the path in url"],
  [/461|Nonmatching transport/i, "the camera does not serve RTSP over TCP"],
  [
    /Connection refused/,
    "the camera refuses connections",
    "check the port in url, and that the camera is on",
  ],
  [/No route to host|Network is unreachable/, "the camera cannot be reached", "check the network"],
  [/Name or service not known|Failed to resolve|Temporary failure in name/, "the camera's name is unknown"],
  [/timed out|Connection timeout/i, "the camera does not answer", "check that the camera is on"],
  [/Broken pipe|Connection reset/, "a connection broke"],
  [/could not find codec parameters|dimensions not set/i, "the camera's stream could not be recognised"],
  [/Invalid data found/, "the camera does not speak RTSP", "check url"],
];

/** Told by a list of known causes, as the text itself may hold a password. */
function whyItEnded(text: string): FfmpegEndedError {
  const cause = CAUSES.find(([pattern]) => pattern.test(text));
  if (cause !== undefined) return new FfmpegEndedError(cause[1], cause[2]);
  const code = /exited with code (\d+)/.exec(text)?.[1];
  return new FfmpegEndedError(code === undefined ? "ffmpeg ended" : `ffmpeg ended with code ${code}`);
}
