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
  return pino(options, destination ?? standardError());
}

/**
 * On a full disk, or a terminal that is gone, lines wait for the next one that is taken; what is more than fits is
 * dropped. The program goes on: it is on full disks that it has most to say.
 */
function standardError(): DestinationStream {
  const stream = pino.destination({ fd: 2, sync: true, maxLength: MAX_WAITING_CHARACTERS });
  stream.on("error", () => {});
  return stream;
}

export const silentLog: Log = {
  debug() {},
  info() {},
  warn() {},
  error() {},
  child: () => silentLog,
};
