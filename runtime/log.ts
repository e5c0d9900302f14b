/** Structured logs: one JSON line an event on stderr, or readable lines on a terminal. Only `main.ts` and loop tops log. */
import { type DestinationStream, pino } from "pino";

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

/** Writes synchronously, so that the last line before a crash is there. */
export function createLog(program: string, level: LogLevel = "info", destination?: DestinationStream): Log {
  const options = {
    level,
    base: { program },
    timestamp: () => `,"time":"${new Date().toISOString()}"`,
    formatters: { level: (label: string) => ({ level: label }) },
    // The last line of defence: secrets should not reach a log call at all.
    redact: ["password", "secret", "*.password", "*.secret"],
  };
  if (destination !== undefined) return pino(options, destination);
  const stream = pino.destination({ fd: 2, sync: true, maxLength: MAX_WAITING_CHARACTERS });
  const log = pino(options, stream);
  goOn(stream, (lines) => log.warn({ lines }, "lines of the log were dropped while it could not be written"));
  return log;
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
