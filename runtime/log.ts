/** Structured logs: one JSON line an event on stderr, or readable lines on a terminal. Only `main.ts` and loop tops log. */
import { constants, fstatSync, openSync } from "node:fs";
import { type DestinationStream, pino } from "pino";
import { DROPPED, PatientLines } from "./patient-lines.ts";

export type LogFields = Record<string, unknown>;

export interface Log {
  debug(fields: LogFields, message: string): void;
  info(fields: LogFields, message: string): void;
  warn(fields: LogFields, message: string): void;
  error(fields: LogFields, message: string): void;
  /** A log whose lines all carry `fields`. */
  child(fields: LogFields): Log;
}

export type LogLevel = "debug" | "info" | "warn" | "error" | "silent";

const MAX_WAITING_CHARACTERS = 1_048_576;

/** Writes synchronously, so that the last line before a crash is there; but to a pipe that nobody reads only what it takes. */
export function createLog(program: string, level: LogLevel = "info", destination?: DestinationStream): Log {
  const options = {
    level,
    base: { program },
    timestamp: () => `,"time":"${new Date().toISOString()}"`,
    formatters: { level: (label: string) => ({ level: label }) },
    // The last line of defence: secrets should not reach a log call at all.
    redact: ["password", "secret", "*.password", "*.secret"],
  };
  const to = destination ?? patientError(program);
  if (to !== undefined) return pino(options, to);
  const stream = pino.destination({ fd: 2, sync: true, maxLength: MAX_WAITING_CHARACTERS });
  const log = pino(options, stream);
  goOn(stream, (lines) => log.warn({ lines }, DROPPED));
  return log;
}

/**
 * Where standard error is a pipe, as of a container or to another program, whose reader may stand still. The pipe is opened once
 * more, as only what is opened so waits for nobody; undefined where that is not allowed, or not known.
 */
function patientError(program: string): DestinationStream | undefined {
  // In numbers of their own: where Node's realpath finds a pipe or socket in those of others' looks, it resolves no link for a while.
  if (!fstatSync(2, { bigint: true }).isFIFO()) return undefined;
  let fd: number;
  try {
    fd = openSync("/proc/self/fd/2", constants.O_WRONLY | constants.O_NONBLOCK);
  } catch {
    return undefined;
  }
  return new PatientLines(fd, (lines) => {
    const time = new Date().toISOString();
    return `${JSON.stringify({ level: "warn", time, program, lines, msg: DROPPED })}\n`;
  });
}

/**
 * On a full disk, or a terminal that is gone, lines wait for the next one that is taken; what is more than fits is
 * dropped. The program goes on: it is on full disks that it has most to say.
 */
function goOn(stream: ReturnType<typeof pino.destination>, dropped: (lines: number) => void): void {
  let lines = 0;
  stream.on("error", () => {});
  const tell = (): void => {
    const told = lines;
    lines = 0;
    dropped(told);
  };
  stream.on("drop", () => {
    if (lines++ === 0) stream.once("drain", tell);
    // It tries again with each line that fits, and so never more once it is full.
    stream.write("");
  });
}

export const silentLog: Log = {
  debug() {},
  info() {},
  warn() {},
  error() {},
  child: () => silentLog,
};
