/**
 * What a program logs when systemd's journal reads it: one line an event, `<4>message key=value …`.
 * The journal takes the priority off the front (sd-daemon(3)) and knows time and program by itself.
 */
import { fstatSync } from "node:fs";
import { DROPPED, PatientLines } from "./patient-lines.ts";

/** Priorities of syslog, RFC 5424 §6.2.1. */
const PRIORITIES: Readonly<Record<string, number>> = { debug: 7, info: 6, warn: 4, error: 3 };
/** The journal adds these itself, or the priority says it. */
const KNOWN_BESIDES = new Set(["level", "time", "program", "msg"]);

interface LineSink {
  write(line: string): void;
}

/**
 * Where to log to when `fd` is the journal, else undefined. JOURNAL_STREAM alone does not tell: a
 * program that was started by a service has it too (systemd.exec(5): compare device and inode).
 */
export function journalSink(environment: Readonly<NodeJS.ProcessEnv>, fd = 2): LineSink | undefined {
  const { JOURNAL_STREAM } = environment;
  if (JOURNAL_STREAM === undefined) return undefined;
  const { dev, ino } = fstatSync(fd, { bigint: true });
  if (JOURNAL_STREAM !== `${dev}:${ino}`) return undefined;
  // A socket, which Node makes non-blocking.
  const lines = new PatientLines(fd, droppedLine);
  return { write: (line) => lines.write(journalLine(line)) };
}

function droppedLine(lines: number): string {
  return `<4>${DROPPED} lines=${lines}\n`;
}

/** @param line an event as one line of JSON, as `createLog` makes it; anything else stays as it is */
export function journalLine(line: string): string {
  let event: Readonly<Record<string, unknown>>;
  try {
    event = JSON.parse(line) as Readonly<Record<string, unknown>>;
  } catch {
    return line;
  }
  const priority = PRIORITIES[String(event.level)] ?? 5;
  let text = `<${priority}>${plain(String(event.msg ?? ""))}`;
  for (const [key, value] of Object.entries(event)) {
    if (!KNOWN_BESIDES.has(key)) text += ` ${plain(key)}=${fieldValue(value)}`;
  }
  return `${text}\n`;
}

/** In quotes where a reader could not tell where it ends. */
function fieldValue(value: unknown): string {
  if (typeof value === "string" && /^[!#-<>-~]+$/.test(value)) return value;
  return plain(JSON.stringify(value) ?? "");
}

/** An event is one line, and no device's name may begin another or steer a terminal. */
function plain(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: those are what is taken out
  return text.replace(/[\x00-\x1f\x7f-\x9f\u2028\u2029]/g, (character) => {
    return `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
  });
}
